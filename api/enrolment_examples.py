"""Examples of answers about servers that are taken under management by a table."""

from __future__ import annotations

from typing import Final

from api.examples import ENROLLED_ID, HOST_KEY, OUR_KEY, Example

TABLE: Final = (
    "name,address,ssh_port,host_key,customer,plan\r\n"
    f"old-mail,192.0.2.11,22,{HOST_KEY},Anna Shop Ltd,managed-plus\r\n"
)

ROW_PROBLEM: Final[Example] = {
    "line": 3,
    "column": "ssh_port",
    "message": "a port is from 1 to 65535",
}

ENROLLED_ROW: Final[Example] = {
    "line": 2,
    "name": "old-mail",
    "address": "192.0.2.11",
    "ssh_port": 22,
    "ssh_user": "root",
    "server_id": ENROLLED_ID,
    "authorized_keys_line": f"{OUR_KEY} managed",
}

ENROLLED_TABLE: Final[Example] = {"dry_run": False, "items": [ENROLLED_ROW], "problems": []}
