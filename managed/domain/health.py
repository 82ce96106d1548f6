"""Is a server well, and is it worse than before? Reads what check_health.py prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from managed.domain.errors import EvidenceMissing, Json

FULL_PERCENT: Final = 95
_FIRST_EPHEMERAL_PORT: Final = 32768
_NORMAL_STATES: Final = ("running", "degraded")
_SETTLED_STATES: Final = (*_NORMAL_STATES, "maintenance", "stopping", "offline")


@dataclass(frozen=True)
class Listener:
    """A socket that a process of the server listens on."""

    protocol: str
    address: str
    port: int
    process: str

    @property
    def key(self) -> str:
        """What stays the same over restarts: the port, or the process where ports are random."""
        if self.port >= _FIRST_EPHEMERAL_PORT:
            return f"{self.process} ({self.protocol})"
        return f"{self.protocol} port {self.port}"


@dataclass(frozen=True)
class Filesystem:
    mount: str
    read_only: bool
    used_percent: int
    inodes_used_percent: int

    @property
    def is_full(self) -> bool:
        return max(self.used_percent, self.inodes_used_percent) >= FULL_PERCENT


@dataclass(frozen=True)
class ProbeResult:
    """What an HTTP request from the server to itself brought; `sha256` is that of the body."""

    url: str
    status: int
    sha256: str
    error: str

    @property
    def is_good(self) -> bool:
        return not self.error and 200 <= self.status < 400


@dataclass(frozen=True)
class HealthReport:
    boot_id: str
    kernel: str
    uptime_seconds: float
    system_state: str
    starting_units: tuple[str, ...]
    failed_units: tuple[str, ...]
    listeners: tuple[Listener, ...]
    filesystems: tuple[Filesystem, ...]
    dpkg_problems: tuple[str, ...]
    probes: tuple[ProbeResult, ...]

    @property
    def is_settled(self) -> bool:
        """Has the boot come to its end, well or badly?"""
        return self.system_state in _SETTLED_STATES


def health_report(document: Mapping[str, Json]) -> HealthReport:
    """Read check_health.py's document; EvidenceMissing when a part of it is not there."""
    try:
        return HealthReport(
            boot_id=_text(document, "boot_id"),
            kernel=_text(document, "kernel"),
            uptime_seconds=float(_text(document, "uptime_seconds")),
            system_state=_text(document, "system_state"),
            starting_units=tuple(str(unit) for unit in _list(document, "starting_units")),
            failed_units=tuple(str(unit) for unit in _list(document, "failed_units")),
            listeners=tuple(_listener(item) for item in _objects(document, "listeners")),
            filesystems=tuple(_filesystem(item) for item in _objects(document, "filesystems")),
            dpkg_problems=tuple(str(text) for text in _list(document, "dpkg_problems")),
            probes=tuple(_probe(item) for item in _objects(document, "probes")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceMissing(f"the health check left an incomplete report: {error}") from error


def health_problems(report: HealthReport) -> tuple[str, ...]:
    """What is wrong with the server by itself, as sentences; empty when it is well."""
    problems = _boot_problems(report)
    problems += [f"unit {unit} has failed" for unit in report.failed_units]
    for filesystem in report.filesystems:
        if filesystem.read_only:
            problems.append(f"{filesystem.mount} is mounted read-only")
        if filesystem.is_full:
            problems.append(f"{filesystem.mount} is full")
    problems += [f"dpkg: {text}" for text in report.dpkg_problems]
    problems += _probe_problems(report)
    return tuple(problems)


def still_coming(report: HealthReport, before: HealthReport | None) -> tuple[str, ...]:
    """What is not up yet and may come by itself, as sentences: the end of the boot; after a
    `before`, also listeners that were there then, and addresses that were asked for. What was not
    up before is not waited for.
    """
    coming = [] if report.is_settled else _boot_problems(report)
    if before is None:
        return tuple(coming)
    coming += _lost_listeners(before, report)
    coming += _probe_problems(report)
    coming += _probe_regressions(before, report)
    known = set(health_problems(before))
    return tuple(dict.fromkeys(text for text in coming if text not in known))


def health_regressions(before: HealthReport, after: HealthReport) -> tuple[str, ...]:
    """What is worse than before, as sentences; what was bad already is not counted."""
    known = set(health_problems(before))
    regressions = [problem for problem in health_problems(after) if problem not in known]
    regressions += _lost_listeners(before, after)
    mounted = {filesystem.mount for filesystem in after.filesystems}
    regressions += [
        f"{filesystem.mount} is not mounted any more"
        for filesystem in before.filesystems
        if filesystem.mount not in mounted
    ]
    regressions += _probe_regressions(before, after)
    return tuple(dict.fromkeys(regressions))


def _boot_problems(report: HealthReport) -> list[str]:
    """What the service manager says of itself; while it boots, also what it waits for."""
    if report.system_state in _NORMAL_STATES:
        return []
    starting = () if report.is_settled else report.starting_units
    return [
        f"the system is {report.system_state}",
        *(f"unit {unit} is still starting" for unit in starting),
    ]


def _lost_listeners(before: HealthReport, after: HealthReport) -> list[str]:
    kept = {listener.key for listener in after.listeners}
    lost = dict.fromkeys(listener.key for listener in before.listeners if listener.key not in kept)
    return [f"nothing listens on {key} any more" for key in lost]


def _probe_problems(report: HealthReport) -> list[str]:
    return [
        f"{probe.url} answers {probe.error or probe.status}"
        for probe in report.probes
        if not probe.is_good
    ]


def _probe_regressions(before: HealthReport, after: HealthReport) -> list[str]:
    now = {probe.url: probe for probe in after.probes}
    regressions = []
    for probe in before.probes:
        answer = now.get(probe.url)
        if not probe.is_good:
            continue
        if answer is None:
            regressions.append(f"{probe.url} was not asked again")
        elif answer.is_good and answer.sha256 != probe.sha256:
            regressions.append(f"{probe.url} answers with other content")
    return regressions


def _listener(item: Mapping[str, Json]) -> Listener:
    return Listener(
        protocol=_text(item, "protocol"),
        address=_text(item, "address"),
        port=int(_text(item, "port")),
        process=_text(item, "process"),
    )


def _filesystem(item: Mapping[str, Json]) -> Filesystem:
    return Filesystem(
        mount=_text(item, "mount"),
        read_only=bool(item["read_only"]),
        used_percent=int(_text(item, "used_percent")),
        inodes_used_percent=int(_text(item, "inodes_used_percent")),
    )


def _probe(item: Mapping[str, Json]) -> ProbeResult:
    return ProbeResult(
        url=_text(item, "url"),
        status=int(_text(item, "status")),
        sha256=_text(item, "sha256"),
        error=_text(item, "error"),
    )


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document[name]
    if value is None or isinstance(value, (list, dict)):
        raise TypeError(f"{name} is {value!r}")
    return str(value)


def _list(document: Mapping[str, Json], name: str) -> list[Json]:
    value = document[name]
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return value


def _objects(document: Mapping[str, Json], name: str) -> list[dict[str, Json]]:
    items = _list(document, name)
    if not all(isinstance(item, dict) for item in items):
        raise TypeError(f"{name} holds something that is no object")
    return [item for item in items if isinstance(item, dict)]
