# Valkey as Debian 13 packages it; Debian 12 has Redis instead: BASE=debian:bookworm-slim
# PACKAGE=redis-server.
ARG BASE=debian:trixie-slim
FROM ${BASE}
ARG PACKAGE=valkey-server
RUN groupadd --gid 10003 broker && useradd --uid 10003 --gid broker --home-dir /run/broker broker \
    && apt-get update -q && apt-get install -q -y --no-install-recommends ${PACKAGE} \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/docker/start-broker deploy/docker/broker-answers /usr/local/bin/
USER broker
CMD ["start-broker"]
