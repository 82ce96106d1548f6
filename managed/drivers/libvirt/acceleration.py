"""Does KVM really work on this node? Found out by a bounded boot, and remembered.

A /dev/kvm that opens is no proof: on some nested hosts a guest's kernel hangs in its first
seconds. So the rescue image's kernel is booted once under KVM, up to the line that it prints when
it hands over to user space. The answer holds until the node boots anew or QEMU changes.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import libvirt

from managed.domain.errors import MissingRequirement
from managed.drivers.libvirt.console import begin_log
from managed.drivers.libvirt.domain_xml import probe_definition
from managed.drivers.libvirt.node import LibvirtNode

PROBE_TIME_LIMIT: Final = 20.0
USER_SPACE_LINE: Final = b"Run /init as init process"

# Power-on to SSH takes about six times as long without KVM.
TIME_SCALE_WITHOUT_KVM: Final = 6.0


@dataclass(frozen=True)
class Situation:
    """What the answer depends on."""

    uri: str
    boot_id: str
    kernel: str
    qemu_version: int


@dataclass(frozen=True)
class Verdict:
    """Whether guests boot under KVM, and what that was seen from."""

    accelerated: bool
    evidence: str


def present_situation(connection: Any, uri: str) -> Situation:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Situation(uri, boot_id, platform.release(), int(connection.getVersion()))


def remembered_verdict(memory: Path, situation: Situation) -> Verdict | None:
    """The verdict of an earlier probe in the same situation, if there was one."""
    try:
        record = json.loads(memory.read_text(encoding="utf-8"))
        if record["situation"] != asdict(situation):
            return None
        return Verdict(bool(record["accelerated"]), str(record["evidence"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(memory: Path, situation: Situation, verdict: Verdict) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    record = {"situation": asdict(situation), **asdict(verdict)}
    unfinished = memory.with_name(f"{memory.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(memory)


def find_out(connection: Any, node: LibvirtNode) -> Verdict:
    """The node's verdict, from memory or by a probe of at most PROBE_TIME_LIMIT seconds."""
    memory = node.state_dir / "acceleration.json"
    situation = present_situation(connection, node.uri)
    verdict = remembered_verdict(memory, situation)
    if verdict is None:
        verdict = probe(connection, node)
        if verdict is None:
            return Verdict(False, "not probed: the rescue image is not built")
        remember(memory, situation, verdict)
    return verdict


def probe(
    connection: Any, node: LibvirtNode, time_limit: float = PROBE_TIME_LIMIT
) -> Verdict | None:
    """Boot a guest under KVM and look whether it gets anywhere; None without a rescue image."""
    if "<domain type='kvm'" not in connection.getCapabilities():
        return Verdict(False, "libvirt offers no KVM on this node")
    try:
        image = node.rescue_image()
    except MissingRequirement:
        return None
    probe_id = str(uuid.uuid4())
    node.console_dir.mkdir(parents=True, exist_ok=True)
    log = node.console_log(probe_id)
    begin_log(log)
    try:
        # Auto-destroy: when this process is killed, the guest ends with its connection.
        domain = connection.createXML(
            probe_definition(probe_id, image, log), libvirt.VIR_DOMAIN_START_AUTODESTROY
        )
    except libvirt.libvirtError as error:
        log.unlink(missing_ok=True)
        return Verdict(False, f"no guest starts under KVM: {error.get_error_message()}")
    try:
        return _watch(domain, log, time_limit)
    finally:
        _end(domain)
        for path in node.files(probe_id):
            path.unlink(missing_ok=True)


def _watch(domain: Any, log: Path, time_limit: float) -> Verdict:
    started = time.monotonic()
    while True:
        running = bool(domain.isActive())
        printed = log.read_bytes()
        seconds = time.monotonic() - started
        if USER_SPACE_LINE in printed:
            return Verdict(True, f"a guest reached user space in {seconds:.1f} s")
        if not running or seconds > time_limit:
            end = "hung for" if running else "ended after"
            return Verdict(
                False, f"a guest {end} {seconds:.1f} s, having printed {len(printed)} bytes"
            )
        time.sleep(0.1)


def _end(domain: Any) -> None:
    """Destroy the probe's guest; that it ended by itself meanwhile is fine."""
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_OPERATION_INVALID,
        ):
            raise
