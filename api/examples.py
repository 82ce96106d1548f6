"""One full example of each answer, for the OpenAPI document. The keys were made for this and open
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Example = Mapping[str, Any]

CUSTOMER_KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKd6WsNf+89sroOpHIKpG5kJWb6SEJOCqA+a61/i7Ve3"
)
HOST_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOLsP3DKpnFPzgtSiF2ZzwRrQuxZYFulbI3xVos5kyxR"
OUR_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO+v8aD1hycFwjnxX87QBIYUV+3V1AloEAWtPgCLI0C8"

SERVER_ID: Final = "1f6ad3c4-8b0e-4f5c-9f55-0c6d5a4f8e21"
ENROLLED_ID: Final = "c0a9d1de-0a55-4c8b-8c0d-52b3c1f4a7e6"
NODE_ID: Final = "7a6bb0a6-5f0d-4b0e-8f65-0b3f9d1c2a11"
JOB_ID: Final = "9f0d6a3e-52b4-4a55-b1f7-7a2f0f6c1d10"
CUSTOMER_ID: Final = "5e0c0a55-2f1d-4f9a-8f0e-3d2c1b0a9f8e"
PLAN_ID: Final = "2b6f4a10-7c3d-4e2b-9a41-6f5e4d3c2b1a"
WINDOW_ID: Final = "8d7c6b5a-4f3e-4d2c-9b1a-0f9e8d7c6b5a"
USER_ID: Final = "3c2b1a09-8f7e-4d6c-9b5a-4f3e2d1c0b9a"
TOKEN_ID: Final = "0a1b2c3d4e5f"  # noqa: S105 (its readable part)
SNAPSHOT_ID: Final = "4bba301ec2b6c9d5f0f3c1d8a3f0e77c1f9b7f6d4b7c8a5e0d3f2a1b6c7d8e9f"

PROBLEM: Final[Example] = {
    "type": "urn:managed:problem:server-busy",
    "title": "Another job is working on this server",
    "status": 409,
    "detail": "a patch job is working on this server",
    "instance": "urn:uuid:0d3f2f0e-9b0a-4d0e-8a11-6a3a6d4b7c55",
    "code": "server-busy",
    "hint": f"Wait for job {JOB_ID} to end, or cancel it.",
    "data": {"server_id": SERVER_ID, "job_id": JOB_ID, "job_kind": "patch"},
}

NODE: Final[Example] = {
    "id": NODE_ID,
    "name": "local",
    "libvirt_uri": "qemu:///system",
    "storage_dir": "/var/lib/managed/disks",
}

FORWARD: Final[Example] = {"host_port": 20000, "guest_port": 22}

SERVER: Final[Example] = {
    "id": SERVER_ID,
    "name": "shop",
    "origin": "created",
    "status": "active",
    "address": "127.0.0.1",
    "ssh_port": 20000,
    "ssh_user": "root",
    "host_key": HOST_KEY,
    "operating_system": "debian-12",
    "node_id": NODE_ID,
    "vcpus": 2,
    "memory_mib": 2048,
    "disk_gib": 10,
    "disk_serial": "srv-9f550c6d5a4f8e21",
    "bridge": None,
    "forwards": [FORWARD, {"host_port": 20001, "guest_port": 80}],
    "created_at": "2026-11-20T09:30:00Z",
    "customer_id": CUSTOMER_ID,
    "plan_id": PLAN_ID,
}

RESCUE_SESSION: Final[Example] = {
    "id": "b3f0a1c2-6d7e-4f80-9a1b-2c3d4e5f6a7b",
    "job_id": JOB_ID,
    "host_key": HOST_KEY,
    "started_at": "2026-11-23T02:00:00Z",
    "expires_at": "2026-11-23T06:00:00Z",
}

SERVER_DETAIL: Final[Example] = {**SERVER, "status": "rescue", "rescue_session": RESCUE_SESSION}

STEP: Final[Example] = {
    "name": "check_before",
    "status": "done",
    "attempt": 1,
    "started_at": "2026-11-23T02:00:02Z",
    "finished_at": "2026-11-23T02:00:04Z",
    "result": {"health": {"kernel": "6.1.0-37-amd64"}},
    "error": None,
}

JOB: Final[Example] = {
    "id": JOB_ID,
    "server_id": SERVER_ID,
    "kind": "patch",
    "status": "waiting",
    "parameters": {"only_security": False, "reboot": "when-needed", "urls": []},
    "requested_by": "anna (api-token)",
    "run_key": None,
    "start_by": None,
    "created_at": "2026-11-23T02:00:00Z",
    "started_at": "2026-11-23T02:00:02Z",
    "finished_at": None,
    "deadline": "2026-11-23T05:00:00Z",
    "present_step": "update",
    "attempt": 1,
    "waiting_for": "run-ended",
    "question": {"kind": "run-ended", "run_id": f"{JOB_ID}.update.1", "offset": 0},
    "question_until": "2026-11-23T04:00:05Z",
    "ending": None,
    "cancel_requested": "",
    "warnings": [],
    "error": None,
}

JOB_DETAIL: Final[Example] = {**JOB, "steps": [STEP]}

_CREATE_JOB: Final[Example] = {
    **JOB,
    "kind": "create",
    "status": "queued",
    "parameters": {"authorized_keys": [CUSTOMER_KEY]},
    "started_at": None,
    "present_step": "",
    "waiting_for": None,
    "question": None,
    "question_until": None,
    "steps": [],
}

SUBMITTED_SERVER: Final[Example] = {
    "server": {**SERVER, "status": "new", "host_key": ""},
    "job": _CREATE_JOB,
}

ENROLLED_SERVER: Final[Example] = {
    "server": {
        **SERVER,
        "id": ENROLLED_ID,
        "name": "old-shop",
        "origin": "enrolled",
        "status": "new",
        "address": "192.0.2.10",
        "ssh_port": 22,
        "node_id": None,
        "vcpus": None,
        "memory_mib": None,
        "disk_gib": None,
        "disk_serial": None,
        "forwards": [],
    },
    "public_key": OUR_KEY,
    "authorized_keys_line": f"{OUR_KEY} managed",
    "next": f"/v1/servers/{ENROLLED_ID}/jobs",
}

SHOWN_HOST_KEY: Final[Example] = {
    "address": "192.0.2.10",
    "port": 22,
    "host_key": HOST_KEY,
    "trusted": False,
    "fingerprint": "SHA256:9wSTdAos6gczsja/b2ZxrAS6Z6S8X4X2CzBxnBKUeIw",
}

SNAPSHOT: Final[Example] = {
    "id": SNAPSHOT_ID,
    "server_id": SERVER_ID,
    "job_id": JOB_ID,
    "time": "2026-11-23T02:10:00Z",
    "files": 31874,
    "size": 1288490188,
    "paths": [],
    "verified_at": "2026-11-23T02:12:30Z",
    "verification": {
        "check": {"errors": 0},
        "paths_compared": 31874,
        "contents_compared": ["/etc/fstab", "/var/www/html/index.html"],
        "quarantined": [],
    },
}

EVENT: Final[Example] = {
    "seq": 17,
    "at": "2026-11-23T02:03:10.250000Z",
    "type": "patch_progress",
    "data": {"done": 9, "of": 26, "percent": 61, "phase": "install"},
}

EVENTS: Final[Example] = {"items": [EVENT], "is_complete": False}

HEALTH: Final[Example] = {"status": "ok"}

CUSTOMER: Final[Example] = {
    "id": CUSTOMER_ID,
    "name": "Anna Shop Ltd",
    "email": "anna@example.org",
}

PLAN: Final[Example] = {
    "id": PLAN_ID,
    "name": "managed-plus",
    "kind": "managed",
    "only_security": False,
}

OPENING: Final[Example] = {
    "starts_at": "2026-11-24T01:00:00Z",
    "ends_at": "2026-11-24T04:00:00Z",
}

WINDOW: Final[Example] = {
    "id": WINDOW_ID,
    "owner": "plan",
    "owner_id": PLAN_ID,
    "job_kind": "patch",
    "rule": "FREQ=DAILY;BYHOUR=2",
    "zone": "Europe/Berlin",
    "minutes": 180,
    "starts_on": "2026-11-20",
    "next_opening": OPENING,
    "limitation": None,
}

MISSED_WINDOW: Final[Example] = {
    "server_id": SERVER_ID,
    "job_kind": "patch",
    **OPENING,
    "reason": "a restore job is working on this server",
    "recorded_at": "2026-11-24T04:00:12Z",
}

SURVEY: Final[Example] = {
    "server_id": SERVER_ID,
    "job_kind": "patch",
    **OPENING,
    "asked_at": "2026-11-24T01:00:03Z",
    "outcome": "work",
    "detail": "3 updates, 2 of them for security",
    "found": {
        "updates": 3,
        "security": 2,
        "damaged": [],
        "audit": 0,
        "held": [],
        "kept_back": [],
        "reboot": [],
        "lists_fetched_at": "2026-11-24T01:00:08+00:00",
        "newest_release_at": "2026-11-23T20:20:11+00:00",
    },
}

PAUSE: Final[Example] = {
    "reason": "the new kernel does not boot",
    "by": "kim (api-token)",
    "since": "2026-11-24T01:20:00Z",
}

PAUSE_STATE: Final[Example] = {"pause": PAUSE}

USER: Final[Example] = {
    "id": USER_ID,
    "email": "kim@example.org",
    "name": "Kim",
    "role": "support",
    "customer_id": None,
    "created_at": "2026-11-20T09:00:00Z",
    "disabled_at": None,
}

CALLER: Final[Example] = {
    "name": "anna@example.org",
    "role": "customer",
    "customer_id": CUSTOMER_ID,
    "permissions": ["jobs:read", "servers:read"],
}

TOKEN: Final[Example] = {
    "id": TOKEN_ID,
    "user_id": USER_ID,
    "name": "nightly report",
    "scopes": ["jobs:read"],
    "created_at": "2026-11-20T09:00:00Z",
    "expires_at": "2027-02-18T09:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}

NEW_TOKEN: Final[Example] = {**TOKEN, "token": f"mgd_{TOKEN_ID}_…"}

AUDIT_ENTRY: Final[Example] = {
    "number": 42,
    "at": "2026-11-23T02:03:10.250000Z",
    "actor": "kim@example.org",
    "action": "submit_job",
    "subject": SERVER_ID,
    "reason": "ticket 4711",
    "data": {"job_id": JOB_ID, "kind": "patch", "token_id": TOKEN_ID},
    "previous_hash": "9f2c0d6a1b3e4f58a7c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5",
    "hash": "1c3e5a7092b4d6f8e0a2c4e6f80a1c3e5a7092b4d6f8e0a2c4e6f80a1c3e5a70",
}

AUDIT_HEAD: Final[Example] = {"number": 42, "hash": AUDIT_ENTRY["hash"]}
