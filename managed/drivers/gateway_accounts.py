"""Who may come in at the gateway: lines of a htpasswd file that rclone reads again when it changes.

Every process that admits somebody, and the gateway, see this file at one place.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from managed.domain.errors import InvalidInput
from managed.domain.secrets import Secret

SHORTEST_PASSWORD: Final = 32
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class GatewayAccounts:
    def __init__(self, accounts_file: Path) -> None:
        self._accounts_file = accounts_file

    def make_file(self) -> None:
        """Have a file, with nobody in it if it is new: rclone does not start without one."""
        with _changing(self._accounts_file):
            pass

    def admit(self, account: str, password: Secret) -> None:
        """InvalidInput for names that are no folder's and passwords below 32 characters."""
        self.admit_all({account: password})

    def admit_all(self, passwords: Mapping[str, Secret]) -> None:
        """The same for many accounts, in one change of the file."""
        lines = {account: account_line(account, one) for account, one in passwords.items()}
        with _changing(self._accounts_file) as accounts:
            accounts.update(lines)

    def dismiss(self, account: str) -> None:
        with _changing(self._accounts_file) as accounts:
            accounts.pop(account, None)


def account_line(account: str, password: Secret) -> str:
    """A line of htpasswd with the password's SHA-1.

    The plain hash is enough, because passwords are random and too long to be guessed, and it has
    to be fast: restic logs in with every request, and bcrypt takes 49 ms each time.
    """
    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput(f"{account!r} cannot be the name of a backup account", account=account)
    if len(password.reveal()) < SHORTEST_PASSWORD:
        raise InvalidInput(
            f"a gateway password has at least {SHORTEST_PASSWORD} characters", account=account
        )
    digest = hashlib.sha1(password.reveal().encode(), usedforsecurity=False).digest()
    return f"{account}:{{SHA}}{base64.b64encode(digest).decode()}"


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """The accounts' lines by name, for change under a lock; replaced in one step if changed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(
        path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = path.read_text().splitlines() if path.exists() else []
        accounts = {line.partition(":")[0]: line for line in lines if line}
        before = dict(accounts)
        yield accounts
        if accounts != before or not path.exists():
            _replace(path, "".join(f"{line}\n" for line in accounts.values()))
    finally:
        os.close(lock)


def _replace(path: Path, content: str) -> None:
    """Write, sync, rename. The new time is later than the old one whatever the clock's tick is:
    rclone goes by it.
    """
    oldest = path.stat().st_mtime_ns + 1_000_000 if path.exists() else 0
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    moment = max(time.time_ns(), oldest)
    os.utime(new, ns=(moment, moment))
    new.rename(path)
