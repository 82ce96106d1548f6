# API, workers, clock, gateway, migrations: one image, told apart by their commands. It needs a
# Debian or Ubuntu with Python 3.11 or newer as BASE.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS made
# libvirt's binding is compiled; Debian's keys vouch for the restic that is fetched.
RUN apt-get update -q && apt-get install -q -y --no-install-recommends \
        ca-certificates debian-archive-keyring gcc libc6-dev libvirt-dev pkg-config python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/managed
COPY requirements-build.txt requirements.txt ./
# Where pip finds packages, when it is not where it looks by itself.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
# Compiled now: nothing can be written when it runs. Ansible's modules run on servers, from source.
RUN python3 -m venv .venv \
    && .venv/bin/pip install -q --no-cache-dir --require-hashes -r requirements-build.txt \
    && .venv/bin/pip install -q --no-cache-dir --no-compile --no-build-isolation --require-hashes \
        -r requirements.txt \
    && .venv/bin/python -m compileall -q -x '/ansible_collections/|/ansible/modules/' .venv/lib \
    && .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >site \
    && echo /opt/managed >"$(cat site)/managed.pth" && rm site \
    && printf '#!/opt/managed/.venv/bin/python\nfrom managed.cli import main\n\nmain()\n' >.venv/bin/managed \
    && chmod 0755 .venv/bin/managed
COPY images images
COPY managed managed
COPY api api
COPY workers workers
RUN .venv/bin/python -m compileall -q managed images api workers
ARG MANAGED_DEBIAN_MIRROR
ARG MANAGED_DEBIAN_SECURITY_MIRROR
# It asks apt for its mirrors, and apt knows them by its lists.
RUN apt-get update -q \
    && .venv/bin/python -m images.build restic --output /opt/managed/built \
    && rm -rf /var/lib/apt/lists/*

FROM ${BASE}
RUN apt-get update -q && apt-get install -q -y --no-install-recommends \
        ca-certificates libvirt0 openssh-client python3 tini tzdata util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 managed \
    && useradd --uid 10001 --gid managed --home-dir /var/lib/managed --no-create-home managed \
    && install -d -o managed -g managed -m 0700 /var/lib/managed /run/managed /srv/s3
COPY --from=made /opt/managed/.venv /opt/managed/.venv
COPY --from=made /opt/managed/built /opt/managed/built
COPY --from=made /opt/managed/managed /opt/managed/managed
COPY --from=made /opt/managed/images /opt/managed/images
COPY --from=made /opt/managed/api /opt/managed/api
COPY --from=made /opt/managed/workers /opt/managed/workers
COPY playbooks /opt/managed/playbooks
COPY deploy/docker/answers /usr/local/bin/answers
ENV PATH=/opt/managed/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_RUNTIME_DIR=/run/managed \
    MANAGED_STATE_DIR=/var/lib/managed \
    MANAGED_RUNTIME_DIR=/run/managed \
    MANAGED_RESTIC=/opt/managed/built/restic/restic \
    MANAGED_LOG_FORMAT=json
WORKDIR /opt/managed
USER managed
VOLUME ["/var/lib/managed"]
# Whose parents have died become its children, and it takes their exit statuses.
ENTRYPOINT ["tini", "--"]
CMD ["managed", "--help"]
