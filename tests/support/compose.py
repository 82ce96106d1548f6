"""Compose on an engine of ours: which program it is, and its files with services left out."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.docker_engine import DockerEngine

REPOSITORY = Path(__file__).parents[2]
MAIN_FILE = "docker-compose.yml"
SECOND_FILE = "docker-compose.override.yml"
SECOND_FILES_OWN = ("postgres", "valkey", "s3")
"""Who has one of these elsewhere leaves it out."""


def compose_command() -> tuple[str, ...]:
    """What the environment's COMPOSE says, else `docker compose` (Compose 2) where this Docker has
    it, else `docker-compose`.
    """
    said = os.environ.get("COMPOSE")
    if said:
        return tuple(shlex.split(said))
    plugin = ("docker", "compose")
    asked = subprocess.run([*plugin, "version"], check=False, capture_output=True)
    return plugin if asked.returncode == 0 else ("docker-compose",)


def second_file_without(left_out: Collection[str]) -> dict[str, Any]:
    """docker-compose.override.yml as the operator's guide has it edited: without these services
    and what depends on them there; where no dependency is left, without that service as well.
    """
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / SECOND_FILE).read_text())
    services = {}
    for name, service in document["services"].items():
        needed = {k: v for k, v in service.get("depends_on", {}).items() if k not in left_out}
        if name in left_out or ("depends_on" in service and not needed):
            continue
        services[name] = {**service, "depends_on": needed} if needed else service
    return {**document, "services": services}


class Compose:
    """The service as its Compose files describe it. `environment` is what `.env` would say."""

    def __init__(
        self,
        engine: DockerEngine,
        command: tuple[str, ...],
        project: str,
        environment: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._command = (*command, "--project-name", project)
        self._project = project
        self._environment = environment

    def run(self, *arguments: str) -> str:
        """Its output; CalledProcessError when it fails."""
        return self._engine.run(*self._command, *arguments, environment=self._environment)

    def is_healthy(self, part: str) -> bool:
        state = self._engine.run("docker", "inspect", "--format", "{{json .State}}", self._id(part))
        return bool(json.loads(state)["Health"]["Status"] == "healthy")

    def read(self, part: str, path: str) -> str:
        return self.run("exec", "-T", part, "cat", path).strip()

    def gateway_of_network(self) -> str:
        """The host's address in the network of the service."""
        return self._engine.gateway(f"{self._project}_default")

    def shown(self) -> str:
        """What `docker inspect` shows of all containers: everybody in the group docker reads it."""
        return self._engine.run("docker", "inspect", *self.run("ps", "-q").split())

    def _id(self, part: str) -> str:
        return self.run("ps", "-q", part).strip()
