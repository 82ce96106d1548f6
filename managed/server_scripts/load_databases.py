#!/usr/bin/env python3
"""Make the databases of a restored server what the dumps in its backup say.

A backup copies the files of a running database while they change, so what is restored of them may
be torn; the dump beside them is consistent. Runs after the server's first normal boot.

Input (one JSON argument): load (the same for all runs that belong together: what one of them has
done, the next ones don't do again).

result.json: databases (kind, name, bytes of the dump, number of databases, seconds), left (kind,
name, why: those that stay as they were restored), warnings.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from managed.server_scripts._database_directories import DataDirectory
from managed.server_scripts._database_dumps import DumpRecord, dumps_present, read_record
from managed.server_scripts._database_loading import DatabaseLoad, LoadableDatabase
from managed.server_scripts._mysql_loading import MysqlServer
from managed.server_scripts._postgresql_loading import PostgresqlCluster
from managed.server_scripts._run import (
    ScriptFailed,
    emit,
    run_directory,
    run_script,
    say,
    write_atomically,
)

LOAD_STATE = Path("/var/lib/managed/database_load.json")


class ToldToEnd(BaseException):
    """SIGTERM: go back to what was, and end."""


class LoadState:
    """Which dumps were loaded for good, on record before their old files are removed."""

    def __init__(self, load: str) -> None:
        self.load = load
        self.done: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(LOAD_STATE.read_text(encoding="utf-8"))
            if found["load"] == load:
                self.done = dict(found["done"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def add(self, label: str, result: dict[str, Any]) -> None:
        self.done[label] = result
        LOAD_STATE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({"load": self.load, "done": self.done}) + "\n"
        write_atomically(LOAD_STATE, text.encode())


class Loading:
    """All dumps of this server, one after the other; one that fails does not keep the others."""

    def __init__(self, state: LoadState) -> None:
        self.state = state
        self.loaded: list[dict[str, Any]] = []
        self.left: list[dict[str, str]] = []
        self.failures: list[ScriptFailed] = []

    def load(self, dump: Path) -> None:
        try:
            record = read_record(dump)
        except ScriptFailed as failure:
            self.failures.append(failure)
            return
        try:
            self._load(record, dump)
        except ScriptFailed as failure:
            message = f"the dump of {record.label} was not loaded: {failure.message}"
            say(message)
            self.failures.append(ScriptFailed(message, failure.code))

    def _load(self, record: DumpRecord, dump: Path) -> None:
        if record.label in self.state.done:
            say(f"{record.label} was loaded before")
            DataDirectory(Path(record.data_directory)).keep_new()
            self.loaded.append(self.state.done[record.label])
            return
        load = DatabaseLoad(loadable(record), dump)
        load.require_possible()
        limitation = load.limitation()
        if limitation is not None:
            say(f"{record.label} is left as it was restored: {limitation}")
            self.left.append({"kind": record.kind, "name": record.name, "why": limitation})
            return
        say(f"loading {record.label} from {load.size} bytes")
        emit("database_load", **load.words(percent=0))
        result = load.run(lambda done: self.state.add(record.label, done))
        say(f"{record.label}: {result['databases']} databases in {result['seconds']} s")
        self.loaded.append(result)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "databases": self.loaded,
            "left": self.left,
            "warnings": [
                f"{left['kind']} {left['name']} is as its files were copied while it ran, its dump"
                f" was not loaded: {left['why']}"
                for left in self.left
            ],
        }
        if self.failures:
            details = "; ".join(failure.message for failure in self.failures)
            hint = "The dumps are in /var/backups/managed/databases, the run's log says more."
            found["error"] = {"code": self.failures[0].code, "detail": details, "hint": hint}
        return found


def loadable(record: DumpRecord) -> LoadableDatabase:
    if record.kind == "postgresql":
        return PostgresqlCluster(record, run_directory())
    return MysqlServer(record, run_directory())


def told_to_end(_number: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise ToldToEnd


def load_databases(given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    signal.signal(signal.SIGTERM, told_to_end)
    loading = Loading(LoadState(str(given["load"])))
    dumps = dumps_present()
    if not dumps:
        say("there are no dumps")
    try:
        for dump in dumps:
            loading.load(dump)
    except ToldToEnd as error:
        raise ScriptFailed("told to end before all dumps were loaded", "cancelled") from error
    return (1 if loading.failures else 0), loading.result()


if __name__ == "__main__":
    run_script(load_databases)
