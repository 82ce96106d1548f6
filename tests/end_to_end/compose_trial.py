"""docker-compose.yml for real: Compose builds the images, everything is up on a Docker engine of
our own, a server enrolled and backed up through the gateway, the workers replaced meanwhile, the
control plane restored from a copy of itself, everything taken down. Then a backup with PostgreSQL
and the bucket elsewhere, and one with the broker elsewhere, too.

`python -m tests.end_to_end.compose_trial`, as root; needs docker.io, Compose and mmdebstrap.
Compose is the command in the environment's COMPOSE, or what there is. The images are built by an
engine in the host's network. The service runs in a network namespace of its own, with the compose
file as it is; the server is a cell beside it, and what is elsewhere listens there, too. Images are
kept in var/compose for the next time, nothing else is.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path

import httpx
import sqlalchemy
import yaml

from images.sources import resolve_sources
from managed.client import ManagedClient
from managed.lab.cell_image import build_cell_root
from managed.lab.cells import cells_down, start_cell
from managed.lab.ports import kept_port
from tests.support.compose import (
    MAIN_FILE,
    REPOSITORY,
    SECOND_FILE,
    SECOND_FILES_OWN,
    Compose,
    compose_command,
    second_file_without,
)
from tests.support.docker_engine import DockerEngine, docker_engine
from tests.support.elsewhere import postgresql_at, redis_at, s3_at
from tests.support.waiting import wait_until

WORK = REPOSITORY / "var" / "compose"
PROJECT = "managed-trial"
PARTS = ("gateway", "api", "worker-1", "worker-2", "clock")
_IN_NAMESPACE = "--in-namespace"
# Of the network for documentation (RFC 5737), so nobody's.
_ELSEWHERE = "192.0.2.1"
_UP_SECONDS = 600.0
_JOB_SECONDS = 600.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    if os.geteuid() != 0:
        sys.exit("the trial needs root: it starts a Docker engine and a container with systemd")
    command = compose_command()
    for tool in ("dockerd", "docker", command[0], "mmdebstrap", "openssl", "systemd-nspawn"):
        if shutil.which(tool) is None:
            sys.exit(f"the trial needs {tool}; apt-get install docker.io docker-compose")
    if arguments == [_IN_NAMESPACE]:
        trial(command)
        return 0
    with docker_engine(WORK, in_own_namespace=False) as engine, made_secrets() as secrets:
        say(engine.run(*command, "version").strip())
        say(f"Docker {engine.version()}")
        build(engine, command, secrets)
    cell_root()
    again = [sys.executable, "-m", "tests.end_to_end.compose_trial", _IN_NAMESPACE]
    return subprocess.run(
        ["unshare", "--net", "--", *again], cwd=REPOSITORY, check=False
    ).returncode


def build(engine: DockerEngine, command: tuple[str, ...], secrets: Path) -> None:
    """The three images, from bases that are pulled, or made here where that cannot be."""
    release = platform.freedesktop_os_release()
    suite = release["VERSION_CODENAME"] if release["ID"] == "debian" else "bookworm"
    for base in {suite, "trixie"}:
        ensure_base(engine, base)
    # This engine has no network but the host's.
    built = ("migrate", "postgres", "valkey")
    networks = {name: {"build": {"network": "host"}} for name in built}
    file = WORK / "build.yml"
    file.write_text(yaml.safe_dump({"services": networks}))
    base = f"debian:{suite}-slim"
    with wheels(release["ID"] == "debian") as packages:
        environment = {
            "COMPOSE_FILE": f"{MAIN_FILE}:{SECOND_FILE}:{file}",
            "MANAGED_SECRETS": str(secrets),
            "MANAGED_BASE": base,
            "POSTGRESQL_BASE": base,
            **packages,
        }
        say("building the images")
        Compose(engine, command, PROJECT, environment).run("build", "--quiet")


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


def cell_root() -> Path:
    """Of the customer's server; made when there is none, for which it takes the host's network."""
    kept = Path(os.environ.get("MANAGED_TEST_STATE", REPOSITORY / "var" / "cells"))
    return build_cell_root(kept, "debian-12", resolve_sources(None, None, None, say))


def trial(command: tuple[str, ...]) -> None:
    """In a network namespace of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Containers reach it by their way to this host.
    subprocess.run(["ip", "address", "add", f"{_ELSEWHERE}/32", "dev", "lo"], check=True)
    with docker_engine(WORK, in_own_namespace=True) as engine:
        start = partial(Compose, engine, command, PROJECT)
        with made_secrets() as secrets:
            # The clock's pause between two looks stands for the settings that are handed on.
            given = {"MANAGED_SECRETS": str(secrets), "MANAGED_POLL_SECONDS": "0.5"}
            everything_here(start(given), secrets)
            for number in range(1, len(SECOND_FILES_OWN) + 1):
                for left_out in combinations(SECOND_FILES_OWN, number):
                    start({**given, **files_without(left_out)}).run("config", "--quiet")
            say("Compose takes its files without each of the services that may be elsewhere")
        for left_out in (("postgres", "s3"), SECOND_FILES_OWN):
            with made_secrets() as secrets, elsewhere(left_out, secrets) as given:
                say(f"elsewhere: {', '.join(left_out)}")
                some_elsewhere(start({"MANAGED_SECRETS": str(secrets), **given}), left_out, secrets)


@contextmanager
def made_secrets() -> Iterator[Path]:
    secrets = WORK / "secrets"
    shutil.rmtree(secrets, ignore_errors=True)
    subprocess.run([str(REPOSITORY / "scripts" / "make-secrets"), str(secrets)], check=True)
    try:
        yield secrets
    finally:
        shutil.rmtree(secrets)


def files_without(left_out: tuple[str, ...]) -> dict[str, str]:
    """What `.env` says then, by the guide."""
    own = second_file_without(left_out)
    if not own["services"]:
        return {"COMPOSE_FILE": MAIN_FILE}
    file = WORK / "docker-compose.own.yml"
    file.write_text(yaml.safe_dump(own))
    return {"COMPOSE_FILE": f"{MAIN_FILE}:{file}"}


@contextmanager
def elsewhere(left_out: tuple[str, ...], secrets: Path) -> Iterator[dict[str, str]]:
    """The services that are left out stand on this host, at an address that containers reach; what
    `.env` says of them.
    """
    given = files_without(left_out)
    objects = WORK / "elsewhere"
    with ExitStack() as running:
        if "postgres" in left_out:
            url = running.enter_context(postgresql_at(_ELSEWHERE))
            (secrets / "database_url").write_text(url)
        if "valkey" in left_out:
            (secrets / "broker_url").write_text(running.enter_context(redis_at(_ELSEWHERE)))
        if "s3" in left_out:
            running.callback(shutil.rmtree, objects)
            keys = [(secrets / name).read_text() for name in ("s3_access_key", "s3_secret_key")]
            server = s3_at(_ELSEWHERE, objects, *keys)
            given["MANAGED_S3_ENDPOINT"] = running.enter_context(server)
        yield given


@contextmanager
def service(compose: Compose, services: tuple[str, ...]) -> Iterator[None]:
    """It is up, each of `services` and no other, and taken down with all that it had."""
    expected = {*services, "migrate"}
    assert set(compose.run("config", "--services").split()) == expected
    try:
        say("up")
        compose.run("up", "--detach")
        require_health(compose, services)
        yield
    finally:
        say("down")
        compose.run("down", "--volumes")


def require_health(compose: Compose, parts: tuple[str, ...]) -> None:
    for part in parts:
        wait_until(
            partial(compose.is_healthy, part), timeout=_UP_SECONDS, what=f"{part} is healthy"
        )
        say(f"{part} is healthy")


def everything_here(compose: Compose, secrets: Path) -> None:
    """Work, replace, restore."""
    with service(compose, (*SECOND_FILES_OWN, *PARTS)):
        require_no_secret_shown(compose, secrets)
        require_settings_handed_on(compose)
        with customers_server(compose) as client:
            for part in ("worker-1", "worker-2"):
                backup = submit(client, "backup")
                replace_while_at_work(compose, client, part, backup)
                require_success(client, backup)
        require_metrics(compose)
        restore(compose)


def some_elsewhere(compose: Compose, left_out: tuple[str, ...], secrets: Path) -> None:
    """A backup, and what it leaves is where the operator has said."""
    here = tuple(name for name in SECOND_FILES_OWN if name not in left_out)
    with service(compose, (*here, *PARTS)):
        with customers_server(compose) as client:
            require_success(client, submit(client, "backup"))
        if "postgres" in left_out:
            database = sqlalchemy.create_engine((secrets / "database_url").read_text())
            with database.connect() as connection:
                found = connection.scalars(sqlalchemy.text("SELECT name FROM servers")).all()
            database.dispose()
            assert found == ["customer"]
            say("the server is in the database elsewhere")
        if "s3" in left_out:
            assert [path for path in (WORK / "elsewhere").rglob("snapshots/*") if path.is_file()]
            say("the backup is in the bucket elsewhere")


def require_no_secret_shown(compose: Compose, secrets: Path) -> None:
    shown = compose.shown()
    names = ("postgres_password", "broker_password", "s3_access_key", "s3_secret_key")
    assert not [name for name in names if (secrets / name).read_text() in shown]
    say("no secret is in what Docker shows")


def require_settings_handed_on(compose: Compose) -> None:
    """What is set here is set in a part, and what is not is not, not even empty."""
    given = compose.run("exec", "-T", "clock", "env").splitlines()
    assert "MANAGED_POLL_SECONDS=0.5" in given
    assert not [line for line in given if line.startswith("MANAGED_RESEND_SECONDS")]
    say("settings are handed on")


ADDRESS = "http://127.0.0.1:8000"


@contextmanager
def customers_server(compose: Compose) -> Iterator[ManagedClient]:
    """The service looks after "customer", a server with its own systemd, at an address that the
    service reaches.
    """
    ready = httpx.get(f"{ADDRESS}/readyz", timeout=10).json()
    say(f"ready: {ready['parts']}")
    state = WORK / "cells"
    token = compose.read("api", "/var/lib/managed/keys/api-token")
    try:
        server = start_cell(state, cell_root(), "customer", address=compose.gateway_of_network())
        with ManagedClient(ADDRESS, token, "the trial") as client:
            body = {"name": "customer", "address": server.address, "ssh_port": server.port}
            enrolled = client.post("/v1/servers/enrol", {**body, "host_key": server.host_key})
            keys = server.root_dir / "root" / ".ssh" / "authorized_keys"
            with keys.open("a") as file:
                file.write(enrolled["authorized_keys_line"] + "\n")
            require_success(client, submit(client, "enrol"))
            yield client
    finally:
        cells_down(state)


def require_metrics(compose: Compose) -> None:
    token = compose.read("api", "/var/lib/managed/keys/metrics-token")
    headers = {"Authorization": f"Bearer {token}"}
    told = httpx.get(f"{ADDRESS}/metrics", headers=headers, timeout=10).text
    assert "managed_queue_oldest_seconds 0.0" in told, told
    say("metrics are told")


def replace_while_at_work(compose: Compose, client: ManagedClient, part: str, job_id: str) -> None:
    """The part gets a new container as soon as the job has begun."""
    path = f"/v1/jobs/{job_id}"
    wait_until(
        lambda: client.get(path)["started_at"], timeout=_JOB_SECONDS, what="the backup begins"
    )
    compose.run("up", "--detach", "--no-deps", "--force-recreate", part)
    say(f"{part} was replaced; the backup is {client.get(path)['status']}")
    require_health(compose, (part,))


def restore(compose: Compose) -> None:
    """The control plane from a copy of itself, by the commands of the guide."""
    command = ("exec", "-T", "api", "managed")
    taken = json.loads(compose.run(*command, "backup-self", "--json"))
    compose.run(*command, "audit", "verify")
    say("a copy was taken, and the audit log verified")
    compose.run("stop", *PARTS)
    restoring = ("run", "--rm", "-T", "migrate", "managed", "restore-self")
    restored = json.loads(compose.run(*restoring, "--replace", "--yes", "--json"))
    assert restored["manifest"]["name"] == taken["name"], restored
    compose.run("up", "--detach")
    require_health(compose, PARTS)
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
