"""A Docker engine of our own: own data, own socket, ended by its pid. In the host's network it has
no bridge and touches no firewall; in a network namespace of ours it may have both.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_until

_NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false")


@dataclass(frozen=True)
class DockerEngine:
    socket: Path

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """A command of Docker's or Compose's; its output. CalledProcessError when it fails."""
        given = {
            **os.environ,
            **(environment or {}),
            "DOCKER_HOST": f"unix://{self.socket}",
        }
        done = subprocess.run(
            command, env=given, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
        )
        return done.stdout.decode()

    def has_image(self, tag: str) -> bool:
        return bool(self.run("docker", "image", "ls", "-q", tag).strip())

    def version(self) -> str:
        return self.run("docker", "version", "--format", "{{.Server.Version}}").strip()

    def gateway(self, network: str) -> str:
        """The host's address in a network of containers."""
        found = json.loads(self.run("docker", "network", "inspect", network))
        return str(found[0]["IPAM"]["Config"][0]["Gateway"])

    def answers(self) -> bool:
        try:
            self.version()
        except subprocess.CalledProcessError:
            return False
        return True


@contextmanager
def docker_engine(directory: Path, *, in_own_namespace: bool) -> Iterator[DockerEngine]:
    """Runs until the context ends, its containers with it. Images stay in `directory`."""
    run = directory / "run"
    run.mkdir(parents=True, exist_ok=True)
    engine = DockerEngine(run / "docker.sock")
    command = [
        *("dockerd", "--data-root", str(directory / "data"), "--exec-root", str(run / "exec")),
        *("--pidfile", str(run / "pid"), "--host", f"unix://{engine.socket}"),
        *(() if in_own_namespace else _NO_NETWORK),
    ]
    with (directory / "dockerd.log").open("ab") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], stdout=log, stderr=log
        )
    try:
        wait_until(
            lambda: daemon.poll() is not None or engine.answers(), timeout=120, what="dockerd is up"
        )
        assert daemon.poll() is None, (directory / "dockerd.log").read_text()[-2000:]
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(60)
        for name in sorted((run / "exec" / "netns").glob("*")):
            subprocess.run(["umount", str(name)], check=False, capture_output=True)
