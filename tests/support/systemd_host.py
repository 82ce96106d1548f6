"""An operator's host: a cell where the program was installed by the lines of the operator's guide.

Only what the guide fetches or builds is brought along instead: the program, its Python packages,
restic, images.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from managed.client import ManagedClient
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from managed.lab.ports import free_port
from tests.support.hypervisors import IMAGES
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.redis import redis
from tests.support.runtime import short_directory
from tests.support.storage import restic_binary, s3_bucket
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
_RELEASES = {(3, 11): "debian-12", (3, 13): "debian-13"}

GATEWAY = "gateway.example.org"
WORKERS = ("worker-1", "worker-2")
SECONDS = 90.0
"""How long all parts may take to be up."""

_PROGRAM = ("api", "deploy", "images", "managed", "playbooks", "scripts", "workers")
# What tests and lint use; Ansible's collections, of which no playbook of ours uses one.
_LEFT_OUT = (
    "site-packages/playwright",
    "site-packages/mypy",
    "site-packages/*__mypyc*.so",
    "site-packages/jsonschema_rs",
    "site-packages/ansible_collections",
    # Made by whoever ran first here, perhaps root with a umask of its own.
    "__pycache__",
)
_COMMAND = re.compile(r"^# (.+)$", re.MULTILINE)
_PACKAGES = "libvirt0 tzdata"
_SECONDS = 300.0


def guide_commands(heading: str = "With systemd", block: int = 0) -> list[str]:
    """What a block of this section of the guide has an operator type."""
    guide = (REPOSITORY / "docs" / "guides" / "operations.md").read_text()
    section = guide.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return _COMMAND.findall(section.split("```")[2 * block + 1])


@dataclass(frozen=True)
class Address:
    """Where the parts listen: ports of loopback, which the cell shares with this host."""

    api: int
    gateway: int
    metrics: Mapping[str, int]
    """By the name of the part's own settings file."""


@dataclass(frozen=True)
class SystemdHost:
    cell: Cell
    address: Address
    _shell: SshShell = field(default_factory=SshShell)

    def run(self, script: str) -> str:
        """What this says, run by bash as root; AssertionError when it fails."""
        command = ("bash", "-ec", script)
        done = self._shell.run(self.cell.endpoint, command, timeout=_SECONDS)
        assert done.exit_status == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def property_of(self, unit: str, name: str) -> str:
        return self.run(f"systemctl show --property={name} --value {unit}").strip()

    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.address.api}"

    def readiness(self) -> Mapping[str, object]:
        """The answer of /readyz; empty while nobody answers."""
        return _answer(f"{self.api_url()}/readyz")

    def is_ready(self) -> bool:
        return self.readiness().get("status") == "ready"

    def is_healthy(self, part: str) -> bool:
        """Is the part, by the name of its settings file, alive?"""
        try:
            return httpx.get(f"http://127.0.0.1:{self.address.metrics[part]}/healthz").is_success
        except httpx.HTTPError:
            return False

    def is_up(self) -> bool:
        """Every part serves."""
        return self.is_ready() and all(map(self.is_healthy, self.address.metrics))

    def token(self) -> str:
        return (self.cell.root_dir / "var/lib/managed/keys/api-token").read_text().strip()

    def client(self) -> ManagedClient:
        return ManagedClient(self.api_url(), self.token(), "the test")


def host_release() -> str:
    """The release of cells whose Python can use the packages of this one; skips where none can."""
    release = _RELEASES.get(sys.version_info[:2])
    if release is None:
        pytest.skip("there is no cell whose Python can use the packages of this one")
    return release


@contextmanager
def operators_host(cell: Cell) -> Iterator[tuple[SystemdHost, PostgresCluster]]:
    """The cell as a host on which all parts are up, and the database that they use; that, broker
    and bucket are the test's own.
    """
    with ExitStack() as stack:
        cluster = stack.enter_context(
            postgres_cluster("-c fsync=off -c max_connections=100", free_port())
        )
        broker = stack.enter_context(redis())
        bucket = stack.enter_context(s3_bucket(stack.enter_context(short_directory())))
        address = Address(
            free_port(), free_port(), {part: free_port() for part in (*WORKERS, "clock")}
        )
        host = SystemdHost(cell, address)
        settings = {
            "MANAGED_S3_ENDPOINT": bucket.endpoint,
            "MANAGED_S3_BUCKET": bucket.bucket,
            "MANAGED_GATEWAY_URL": f"https://{GATEWAY}:{address.gateway}",
            "MANAGED_WORKER_PROCESSES": "2",
            # Short: a killed worker's job waits for both.
            "MANAGED_LEASE_SECONDS": "6",
            "MANAGED_RESEND_SECONDS": "2",
        }
        secrets = {
            "database_url": cluster.loopback_url,
            "broker_url": broker.url,
            "s3_access_key": bucket.access_key.reveal(),
            "s3_secret_key": bucket.secret_key.reveal(),
        }
        host.run(f"echo 127.0.0.1 {GATEWAY} >>/etc/hosts")
        install(host, settings, secrets)
        start(host)
        wait_until(host.is_up, timeout=SECONDS, what="all parts are up")
        yield host, cluster


def install(host: SystemdHost, settings: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """All of the guide's lines but those that start something; `settings` are those of all parts,
    `secrets` files by their name.
    """
    host.run(f"apt-get update -q && apt-get install -qy --no-install-recommends {_PACKAGES}")
    commands = guide_commands()
    starting = next(i for i, line in enumerate(commands) if line.startswith("systemctl enable"))
    for command in commands[:starting]:
        carry_out(host, command, "/opt/managed-1")
    _adapt(host, settings, secrets)
    host.run("systemctl daemon-reload")


def carry_out(host: SystemdHost, command: str, folder: str) -> None:
    """A line of the guide, in the folder of the version that is installed; what it would fetch is
    brought along.
    """
    if command.startswith("git clone"):
        host.run(f"mkdir -p {folder}")
        _bring_program(host, folder)
        if "ln -sfn" in command:
            host.run(f"ln -sfn {folder} /opt/managed")
    elif "images.build" in command:
        _bring_images(host, folder, *command.split()[-3::2])
    else:
        host.run(f"mkdir -p {folder}; cd {folder}; {command}")


def start(host: SystemdHost) -> None:
    """The guide's line that starts all parts."""
    (command,) = (c for c in guide_commands() if c.startswith("systemctl enable"))
    host.run(command)


def _in_cell(host: SystemdHost, folder: str) -> Path:
    return host.cell.root_dir / folder.lstrip("/")


def _bring_program(host: SystemdHost, folder: str) -> None:
    """The program and its Python packages, put right for where they are now by `make setup`'s own
    script.
    """
    target = _in_cell(host, folder)
    files = [*_PROGRAM, *(file.name for file in REPOSITORY.glob("requirements*.txt"))]
    _copy(REPOSITORY, files, target)
    host.run(f"python3 -m venv --without-pip {folder}/.venv")
    environment = Path(sys.prefix)
    _copy(environment, ["lib"], target / ".venv")
    for program in _programs(environment / "bin"):
        text = program.read_bytes()
        first, newline, rest = text.partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            text = f"#!{folder}/.venv/bin/python".encode() + newline + rest
        copy = target / ".venv" / "bin" / program.name
        copy.write_bytes(text)
        copy.chmod(0o755)
    wheels = _fetch_missing(host, folder)
    host.run(
        f"cd {folder}; SKIP_APT=1 PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels} scripts/bootstrap.sh"
        " || { tail -n 20 var/log/setup.log; exit 1; }"
    )


def _bring_images(host: SystemdHost, folder: str, image: str, output: str) -> None:
    """What the builder of images would have made of this image, or of all, in its output folder."""
    target = _in_cell(host, str(Path(folder) / output))
    target.mkdir(parents=True)
    if image == "all":
        assert (IMAGES / "debian-12" / "image.json").is_file(), "the images are not built"
        folders = [str(IMAGES / name) for name in ("rescue", "debian-12")]
        subprocess.run(["cp", "-pR", *folders, str(target)], check=True)
    (target / "restic").mkdir()
    subprocess.run(["cp", "-p", str(restic_binary()), str(target / "restic/restic")], check=True)


def _copy(folder: Path, names: list[str], target: Path) -> None:
    left_out = [f"--exclude={path}" for path in _LEFT_OUT]
    packed = ["tar", "-C", str(folder), *left_out, "-cf", "-", *names]
    with subprocess.Popen(packed, stdout=subprocess.PIPE) as reader:
        subprocess.run(["tar", "-C", str(target), "-xf", "-"], stdin=reader.stdout, check=True)
    assert reader.returncode == 0


def _programs(folder: Path) -> Iterator[Path]:
    """Those that the parts run, and not the interpreter."""
    for name in ("celery", "ansible-playbook", "rclone"):
        yield folder / name


def _fetch_missing(host: SystemdHost, folder: str) -> str:
    """A folder in the cell with the packages that its Python needs and this one, a bit newer or
    older, does not; this host knows how it reaches its registry.
    """
    version = host.run("python3 -c 'import platform; print(platform.python_version())'").strip()
    there = {**default_environment(), "python_full_version": version}
    wheels = _in_cell(host, folder) / "wheels"
    wheels.mkdir()
    missing = [
        f"{wanted.name}{wanted.specifier}"
        for wanted in _locked(REPOSITORY / "requirements.txt")
        if wanted.marker and wanted.marker.evaluate(there) and not wanted.marker.evaluate()
    ]
    if missing:
        options = ("-q", "--no-deps", "--only-binary=:all:", "--python-version", version)
        pip = (sys.executable, "-m", "pip", "download", *options)
        subprocess.run([*pip, "-d", str(wheels), *missing], check=True)
    return f"{folder}/wheels"


def _locked(file: Path) -> list[Requirement]:
    """The requirements of a file with hashes, without these."""
    lines = file.read_text().replace("\\\n", " ").splitlines()
    texts = (line.partition(" --hash")[0].strip() for line in lines)
    return [Requirement(text) for text in texts if text and not text.startswith(("#", "-"))]


def _adapt(host: SystemdHost, settings: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """What an operator writes into the files of /etc/managed."""
    folder = host.cell.root_dir / "etc" / "managed"
    for name, secret in secrets.items():
        (folder / "secrets" / name).write_text(secret)
    _set(folder / "managed.env", {**settings, "MANAGED_LISTEN_PORT": str(host.address.api)})
    _set(
        folder / "gateway.env",
        {"MANAGED_GATEWAY_LISTEN": f"127.0.0.1:{host.address.gateway}"},
    )
    for name, port in host.address.metrics.items():
        _set(folder / f"{name}.env", {"MANAGED_METRICS_LISTEN": f"127.0.0.1:{port}"})


def _set(file: Path, settings: Mapping[str, str]) -> None:
    """These settings in the place of those that the file has."""
    kept = [
        line for line in file.read_text().splitlines() if line.partition("=")[0] not in settings
    ]
    given = [f"{name}={text}" for name, text in settings.items()]
    file.write_text("\n".join([*kept, *given, ""]))


def _answer(url: str) -> Mapping[str, object]:
    try:
        document = httpx.get(url, timeout=10).json()
    except httpx.HTTPError:
        return {}
    return document if isinstance(document, dict) else {}
