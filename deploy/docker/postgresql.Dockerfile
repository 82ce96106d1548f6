# PostgreSQL as Debian packages it. Who has a PostgreSQL sets MANAGED_DATABASE_URL to it instead.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# No cluster is made in the image: the first start makes it, in the volume.
RUN groupadd --gid 10002 postgres && useradd --uid 10002 --gid postgres --home-dir /var/lib/postgresql postgres \
    && apt-get update -q && apt-get install -q -y --no-install-recommends postgresql-common \
    && echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf \
    && apt-get install -q -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data
COPY deploy/docker/start-postgresql /usr/local/bin/
USER postgres
VOLUME ["/var/lib/postgresql/data"]
STOPSIGNAL SIGINT
CMD ["start-postgresql"]
