#!/usr/bin/env python3
"""Looks at the server that it runs on and prints one JSON document. Changes nothing.

Usage: check_health.py ['{"probes": ["http://127.0.0.1/"]}']

Self-contained, Python 3.9 or later, standard library only. `managed.domain.health` reads what it
prints: boot_id, kernel, uptime_seconds, system_state, starting_units, failed_units, listeners,
filesystems, dpkg_problems, probes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND_TIMEOUT = 20
PROBE_TIMEOUT = 10
LARGEST_BODY = 16 * 1024 * 1024
DISK_TYPES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "zfs", "vfat",
              "overlay"}  # fmt: skip
LISTENING = {"tcp": "0A", "udp": "07"}


def main(arguments: Sequence[str]) -> int:
    given = json.loads(arguments[0]) if arguments else {}
    sys.stdout.write(json.dumps(health(given.get("probes", []))) + "\n")
    return 0


def health(probes: Sequence[str]) -> dict[str, Any]:
    return {
        "checked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "boot_id": read("/proc/sys/kernel/random/boot_id").strip(),
        "kernel": os.uname().release,
        "uptime_seconds": float(read("/proc/uptime").split()[0]),
        "system_state": output("systemctl", "is-system-running").strip() or "unknown",
        "starting_units": starting_units(output("systemctl", "list-jobs", "--no-legend", "--full")),
        "failed_units": failed_units(
            output("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full")
        ),
        "listeners": listeners(),
        "filesystems": filesystems(read("/proc/self/mounts")),
        "dpkg_problems": dpkg_problems(),
        "memory": memory(read("/proc/meminfo")),
        "probes": [probe(url) for url in probes],
    }


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def output(*command: str) -> str:
    """What a command prints, whatever its exit status; empty when it is missing or hangs."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=COMMAND_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def failed_units(listing: str) -> list[str]:
    return [line.split()[0] for line in listing.splitlines() if line.split()]


def starting_units(listing: str) -> list[str]:
    """Units whose job is under way; others wait for these. A line has id, unit, type and state."""
    rows = (line.split() for line in listing.splitlines())
    return [row[1] for row in rows if len(row) == 4 and row[3] == "running"]


def filesystems(mounts: str) -> list[dict[str, Any]]:
    """Usage of every filesystem on a disk, once per device. One that fstab wants read-only does
    not count as read-only: nothing is wrong with it.
    """
    wanted = wanted_read_only(read("/etc/fstab") if os.path.exists("/etc/fstab") else "")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in mounts.splitlines():
        source, mount, kind, options = line.split()[:4]
        mount = unescaped(mount)
        if kind not in DISK_TYPES or (kind == "overlay" and mount != "/"):
            continue
        if mount.startswith("/run/") or not os.path.isdir(mount):
            continue
        try:
            status = os.statvfs(mount)
        except OSError:
            continue
        key = (source, os.stat(mount).st_dev)
        if key not in found:
            found[key] = {
                "mount": mount,
                "type": kind,
                "read_only": "ro" in options.split(",") and mount not in wanted,
                "size_bytes": status.f_blocks * status.f_frsize,
                "used_percent": percent(status.f_blocks - status.f_bfree, status.f_bavail),
                "inodes_used_percent": percent(status.f_files - status.f_ffree, status.f_favail),
            }
    return list(found.values())


def wanted_read_only(fstab: str) -> set[str]:
    rows = (line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#"))
    return {unescaped(row[1]) for row in rows if len(row) > 3 and "ro" in row[3].split(",")}


def unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def percent(used: int, available: int) -> int:
    """Share of what ordinary users may use, rounded up as df does; 0 where nothing is counted."""
    total = used + available
    return -(-100 * used // total) if total > 0 else 0


def listeners() -> list[dict[str, Any]]:
    """Listening sockets that processes of this server hold (not those of other containers)."""
    owners = socket_owners()
    found: list[dict[str, Any]] = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        try:
            lines = read("/proc/net/" + table).splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            entry = listener(table, line, owners)
            if entry is not None and entry not in found:
                found.append(entry)
    return found


def listener(table: str, line: str, owners: Mapping[str, str]) -> dict[str, Any] | None:
    """One line of /proc/net/{tcp,udp}[6] as a listener, or None."""
    fields = line.split()
    protocol = table.rstrip("6")
    address, port = fields[1].split(":")
    if fields[3] != LISTENING[protocol] or fields[9] not in owners or port == "0000":
        return None
    return {
        "protocol": protocol,
        "address": readable_address(address),
        "port": int(port, 16),
        "process": owners[fields[9]],
    }


def readable_address(text: str) -> str:
    """The kernel prints addresses as 32-bit words in its own byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def socket_owners() -> dict[str, str]:
    """Inode of every socket that a visible process holds, to that process's name."""
    owners: dict[str, str] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name = read("/proc/" + pid + "/comm").strip()
            for descriptor in os.scandir("/proc/" + pid + "/fd"):
                target = os.readlink(descriptor.path)
                if target.startswith("socket:["):
                    owners.setdefault(target[8:-1], name)
        except OSError:
            continue
    return owners


def dpkg_problems() -> list[str]:
    """First lines of each complaint of `dpkg --audit`; empty when all packages are whole."""
    return [line.strip() for line in output("dpkg", "--audit").splitlines() if line.strip()][:50]


def memory(text: str) -> dict[str, int]:
    values = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return {
        "total_bytes": int(values.get("MemTotal", 0)) * 1024,
        "available_bytes": int(values.get("MemAvailable", 0)) * 1024,
    }


def probe(url: str) -> dict[str, Any]:
    """GET the address; an HTTP error is an answer too, with status and body."""
    result: dict[str, Any] = {"url": url, "status": 0, "sha256": "", "error": ""}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            answer = opener.open(url, timeout=PROBE_TIMEOUT)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read(LARGEST_BODY)
            result["status"] = answer.status if hasattr(answer, "status") else answer.code
    except (OSError, ValueError) as error:
        result["error"] = str(error) or type(error).__name__
    else:
        result["sha256"] = hashlib.sha256(body).hexdigest()
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
