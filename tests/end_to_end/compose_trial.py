"""docker-compose.yml for real: images built, everything up on a Docker engine of our own, a server
enrolled and backed up through the gateway, the workers replaced meanwhile, the control plane
restored from a copy of itself, everything taken down.

`python -m tests.end_to_end.compose_trial`, as root; needs docker.io, docker-compose and mmdebstrap.
The images are built by an engine in the host's network. The service runs in a network namespace of
its own, with the compose file as it is; the server is a cell beside it. Images are kept in
var/compose for the next time, nothing else is.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from images.sources import resolve_sources
from managed.client import ManagedClient
from managed.lab.cell_image import build_cell_root
from managed.lab.cells import Cell, cells_down, start_cell
from managed.lab.ports import kept_port
from tests.support.docker_engine import DockerEngine, docker_engine
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
WORK = REPOSITORY / "var" / "compose"
PROJECT = "managed-trial"
PARTS = ("postgres", "valkey", "s3", "gateway", "api", "worker-1", "worker-2", "clock")
_IN_NAMESPACE = "--in-namespace"
_UP_SECONDS = 600.0
_JOB_SECONDS = 600.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    if os.geteuid() != 0:
        sys.exit("the trial needs root: it starts a Docker engine and a container with systemd")
    for tool in ("dockerd", "docker", "docker-compose", "mmdebstrap", "openssl", "systemd-nspawn"):
        if shutil.which(tool) is None:
            sys.exit(f"the trial needs {tool}; apt-get install docker.io docker-compose")
    if arguments == [_IN_NAMESPACE]:
        trial()
        return 0
    with docker_engine(WORK, in_own_namespace=False) as engine:
        build(engine)
    command = [sys.executable, "-m", "tests.end_to_end.compose_trial", _IN_NAMESPACE]
    return subprocess.run(
        ["unshare", "--net", "--", *command], cwd=REPOSITORY, check=False
    ).returncode


def build(engine: DockerEngine) -> None:
    """The three images, from bases that are pulled, or made here where that cannot be."""
    release = platform.freedesktop_os_release()
    suite = release["VERSION_CODENAME"] if release["ID"] == "debian" else "bookworm"
    for base in {suite, "trixie"}:
        ensure_base(engine, base)
    with wheels(release["ID"] == "debian") as packages:
        for tag, file, arguments in (
            ("broker", "deploy/docker/broker.Dockerfile", {"BASE": "debian:trixie-slim"}),
            ("postgresql", "deploy/docker/postgresql.Dockerfile", {"BASE": f"debian:{suite}-slim"}),
            ("", "Dockerfile", {"BASE": f"debian:{suite}-slim", **packages}),
        ):
            name = f"managed-{tag}:local" if tag else "managed:local"
            say(f"building {name}")
            given = [word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")]
            engine.run(
                *("docker", "build", "-q", "--network", "host", "-t", name, "-f", file),
                *given,
                str(REPOSITORY),
            )


def ensure_base(engine: DockerEngine, suite: str) -> None:
    tag = f"debian:{suite}-slim"
    if engine.has_image(tag):
        return
    try:
        engine.run("timeout", "60", "docker", "pull", "-q", tag)
        say(f"{tag} pulled")
    except subprocess.CalledProcessError:
        say(f"{tag} cannot be pulled; making it")
        engine.run(
            str(REPOSITORY / "scripts" / "build-base-image"),
            *(suite, tag),
            environment={"PYTHON": sys.executable},
        )


@contextmanager
def wheels(is_debian: bool) -> Iterator[dict[str, str]]:
    """Build arguments by which pip finds the locked packages here: this host may reach a registry
    in a way of its own that a container does not know. Where the host's Python is not that of the
    base, pip is left to find them by itself.
    """
    if not is_debian:
        yield {}
        return
    folder, python = WORK / "wheels", WORK / "python"
    pip = str(python / "bin" / "pip")
    folder.mkdir(exist_ok=True)
    say("fetching the locked Python packages")
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(python)], check=True)
    locked = ("-q", "--require-hashes", "--no-deps")
    build_tools = str(REPOSITORY / "requirements-build.txt")
    subprocess.run([pip, "install", *locked, "-r", build_tools], check=True)
    for requirements in (build_tools, str(REPOSITORY / "requirements.txt")):
        command = [pip, "download", *locked, "--no-build-isolation", "-d", str(folder)]
        subprocess.run([*command, "-r", requirements], check=True)
    # The same each time: with another one Docker would build all anew.
    port = kept_port(WORK / "port")
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield {"PIP_FIND_LINKS": f"http://127.0.0.1:{port}/", "PIP_NO_INDEX": "1"}
    finally:
        server.terminate()
        server.wait()


class Compose:
    """The service as docker-compose.yml describes it."""

    def __init__(self, engine: DockerEngine, secrets: Path) -> None:
        self._engine = engine
        # The clock's pause between two looks stands for the settings that are handed on.
        self._environment = {"MANAGED_SECRETS": str(secrets), "MANAGED_POLL_SECONDS": "0.5"}

    def run(self, *arguments: str) -> str:
        command = ("docker-compose", "--project-name", PROJECT, *arguments)
        return self._engine.run(*command, environment=self._environment)

    def is_healthy(self, part: str) -> bool:
        state = self._engine.run("docker", "inspect", "--format", "{{json .State}}", self._id(part))
        return bool(json.loads(state)["Health"]["Status"] == "healthy")

    def read(self, part: str, path: str) -> str:
        return self.run("exec", "-T", part, "cat", path).strip()

    def gateway_of_network(self) -> str:
        """The host's address in the network of the service."""
        network = self._engine.run("docker", "network", "inspect", f"{PROJECT}_default")
        return str(json.loads(network)[0]["IPAM"]["Config"][0]["Gateway"])

    def environments(self) -> str:
        """What `docker inspect` shows of all containers: everybody in the group docker reads it."""
        return self._engine.run("docker", "inspect", *map(self._id, PARTS))

    def _id(self, part: str) -> str:
        return self.run("ps", "-q", part).strip()


def trial() -> None:
    """In a network namespace of our own: up, work, replace, down."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    secrets = WORK / "secrets"
    shutil.rmtree(secrets, ignore_errors=True)
    subprocess.run([str(REPOSITORY / "scripts" / "make-secrets"), str(secrets)], check=True)
    with docker_engine(WORK, in_own_namespace=True) as engine:
        compose = Compose(engine, secrets)
        try:
            say("up")
            compose.run("up", "--detach", "--no-build")
            for part in PARTS:
                wait_until(
                    partial(compose.is_healthy, part),
                    timeout=_UP_SECONDS,
                    what=f"{part} is healthy",
                )
                say(f"{part} is healthy")
            require_no_secret_shown(compose, secrets)
            require_settings_handed_on(compose)
            with cell(compose.gateway_of_network()) as server:
                work(compose, server)
            restore(compose)
        finally:
            say("down")
            compose.run("down", "--volumes")
            shutil.rmtree(secrets)


def require_no_secret_shown(compose: Compose, secrets: Path) -> None:
    shown = compose.environments()
    names = ("postgres_password", "broker_password", "s3_access_key", "s3_secret_key")
    assert not [name for name in names if (secrets / name).read_text() in shown]
    say("no secret is in what Docker shows")


def require_settings_handed_on(compose: Compose) -> None:
    """What is set here is set in a part, and what is not is not, not even empty."""
    given = compose.run("exec", "-T", "clock", "env").splitlines()
    assert "MANAGED_POLL_SECONDS=0.5" in given
    assert not [line for line in given if line.startswith("MANAGED_RESEND_SECONDS")]
    say("settings are handed on")


@contextmanager
def cell(address: str) -> Iterator[Cell]:
    """A server of a customer's with its own systemd, at an address that the service reaches."""
    kept = Path(os.environ.get("MANAGED_TEST_STATE", REPOSITORY / "var" / "cells"))
    root = build_cell_root(kept, "debian-12", resolve_sources(None, None, None, say))
    state = WORK / "cells"
    try:
        yield start_cell(state, root, "customer", address=address)
    finally:
        cells_down(state)


def work(compose: Compose, server: Cell) -> None:
    address = "http://127.0.0.1:8000"
    ready = httpx.get(f"{address}/readyz", timeout=10).json()
    say(f"ready: {ready['parts']}")
    token = compose.read("api", "/var/lib/managed/keys/api-token")
    with ManagedClient(address, token, "the trial") as client:
        body = {"name": "customer", "address": server.address, "ssh_port": server.port}
        enrolled = client.post("/v1/servers/enrol", {**body, "host_key": server.host_key})
        keys = server.root_dir / "root" / ".ssh" / "authorized_keys"
        with keys.open("a") as file:
            file.write(enrolled["authorized_keys_line"] + "\n")
        require_success(client, submit(client, "enrol"))

        for part in ("worker-1", "worker-2"):
            backup = submit(client, "backup")
            replace_while_at_work(compose, client, part, backup)
            require_success(client, backup)
    metrics = httpx.get(
        f"{address}/metrics",
        headers={
            "Authorization": f"Bearer {compose.read('api', '/var/lib/managed/keys/metrics-token')}"
        },
        timeout=10,
    )
    assert "managed_queue_oldest_seconds 0.0" in metrics.text, metrics.text
    say("metrics are told")


def replace_while_at_work(compose: Compose, client: ManagedClient, part: str, job_id: str) -> None:
    """The part gets a new container as soon as the job has begun."""
    path = f"/v1/jobs/{job_id}"
    wait_until(
        lambda: client.get(path)["started_at"], timeout=_JOB_SECONDS, what="the backup begins"
    )
    compose.run("up", "--detach", "--no-build", "--no-deps", "--force-recreate", part)
    say(f"{part} was replaced; the backup is {client.get(path)['status']}")
    wait_until(
        lambda: compose.is_healthy(part), timeout=_UP_SECONDS, what=f"the new {part} is healthy"
    )


def restore(compose: Compose) -> None:
    """The control plane from a copy of itself, by the commands of the guide."""
    command = ("exec", "-T", "api", "managed")
    taken = json.loads(compose.run(*command, "backup-self", "--json"))
    compose.run(*command, "audit", "verify")
    say("a copy was taken, and the audit log verified")
    parts = ("gateway", "api", "worker-1", "worker-2", "clock")
    compose.run("stop", *parts)
    restoring = ("run", "--rm", "-T", "migrate", "managed", "restore-self")
    restored = json.loads(compose.run(*restoring, "--replace", "--yes", "--json"))
    assert restored["manifest"]["name"] == taken["name"], restored
    compose.run("up", "--detach", "--no-build")
    for part in parts:
        wait_until(
            partial(compose.is_healthy, part),
            timeout=_UP_SECONDS,
            what=f"{part} is healthy after the restore",
        )
    assert json.loads(compose.run(*command, "pause", "show", "--json"))["pause"]
    say("restored from the copy, and paused")


def submit(client: ManagedClient, kind: str) -> str:
    return str(client.post("/v1/servers/customer/jobs", {"kind": kind})["id"])


def require_success(client: ManagedClient, job_id: str) -> None:
    """It succeeds, and no step is done twice or lost with its worker."""
    events: list[str] = []

    def note(event: dict[str, object]) -> None:
        data = event["data"]
        if event["type"] == "step_done" and isinstance(data, dict):
            events.append(str(data["step"]))

    job = client.wait_for_job(job_id, note)
    assert job["status"] == "succeeded", job["error"]
    assert events == [step["name"] for step in job["steps"]]
    say(f"{job['kind']} {job['status']}: {', '.join(events)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
