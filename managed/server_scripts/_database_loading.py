"""One database server whose files are replaced by what its dump says, or left as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from managed.server_scripts._database_directories import DataDirectory
from managed.server_scripts._database_dumps import DumpRecord, is_complete_dump
from managed.server_scripts._database_processes import processes_in
from managed.server_scripts._database_servers import (
    PrivateServer,
    dependents_to_start,
    feed,
    start_dependents,
    start_unit,
    stop_unit,
)
from managed.server_scripts._run import Progress, ScriptFailed, emit, run_directory, say


class LoadableDatabase(Protocol):
    """What loading asks of each kind of database server."""

    record: DumpRecord

    def require_installed(self) -> None:
        """ScriptFailed (evidence-missing) when the server is not there any more."""

    def limitation(self, old: Path) -> str | None:
        """Why the server with these old files can't be made anew from its dump, or None."""

    def create(self, place: DataDirectory) -> None:
        """Make the files of a new server, and take over of the old ones what no dump says."""

    def server(self, place: DataDirectory) -> PrivateServer:
        """The server on the new files, for us alone."""

    def client(self, place: DataDirectory) -> tuple[str, ...]:
        """The command that executes the statements on its input there."""

    def statements(self, dump: IO[bytes]) -> Iterator[bytes]:
        """The dump, as that command is to get it."""

    def count(self, place: DataDirectory) -> int:
        """How many databases the server has now, without its own."""

    def finish(self, place: DataDirectory) -> None:
        """When the server has ended: remove what was there for loading only, write all down."""


class DatabaseLoad:
    """Loading one dump, in the order of the methods.

    Nothing is touched before all that can be known beforehand is known. From then on the server
    either ends with what the dump says, or on the files of before.
    """

    def __init__(self, database: LoadableDatabase, dump: Path) -> None:
        self.database = database
        self.record = database.record
        self.dump = dump
        self.size = dump.stat().st_size
        self.place = DataDirectory(Path(self.record.data_directory))
        self.started = time.monotonic()

    def require_possible(self) -> None:
        if not is_complete_dump(self.dump, self.record.kind):
            raise ScriptFailed("the dump is not complete", "evidence-missing")
        self.database.require_installed()
        if not self.place.old_files.is_dir():
            raise ScriptFailed(f"{self.place.path} is missing", "evidence-missing")

    def limitation(self) -> str | None:
        return self.place.limitation() or self.database.limitation(self.place.old_files)

    def run(self, commit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """What was loaded. `commit` is told of it before the old files are removed.

        A load that an earlier run has left unfinished is begun again from the old files.
        """
        self.place.require_space(self.size)
        dependents = dependents_to_start(self.record.unit)
        stop_unit(self.record.unit)
        try:
            if self.place.is_unfinished:
                say(f"{self.record.label}: an earlier load was interrupted, beginning again")
                self.place.put_back()
            self.place.clear()
            self.place.require_unused()
            self.place.move_aside()
            databases = self.load()
            self.require_service()
            start_dependents(dependents)
        except BaseException as failure:
            state = self.go_back()
            start_dependents(dependents)
            if isinstance(failure, ScriptFailed):
                raise ScriptFailed(f"{failure.message}; {state}", failure.code) from failure
            raise
        result = {
            "kind": self.record.kind,
            "name": self.record.name,
            "bytes": self.size,
            "databases": databases,
            "seconds": round(time.monotonic() - self.started, 1),
        }
        commit(result)
        self.place.keep_new()
        return result

    def load(self) -> int:
        """Make the new files and load them; the number of databases comes back."""
        self.database.create(self.place)
        with self.database.server(self.place), self.dump.open("rb") as dump:
            client = self.database.client(self.place)
            pieces = self.database.statements(dump)
            feed(client, self.shown(pieces), run_directory() / f"{self.record.kind}.load.log")
            databases = self.database.count(self.place)
        self.database.finish(self.place)
        self.place.take_over_mode()
        return databases

    def shown(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces; how far they have come is told."""
        progress, done = Progress("database_load"), 0
        for piece in pieces:
            yield piece
            done += len(piece)
            progress.show(**self.words(percent=min(99, done * 100 // self.size)))
        emit("database_load", **self.words(percent=100))

    def words(self, **more: Any) -> dict[str, Any]:
        return {"kind": self.record.kind, "name": self.record.name, **more}

    def require_service(self) -> None:
        """The distribution's service starts, and it is on these files that it works."""
        start_unit(self.record.unit)
        if not processes_in(self.place.path):
            raise ScriptFailed(f"{self.record.unit} does not work on {self.place.path}")

    def go_back(self) -> str:
        """The old files are what counts again, and the service is started; how that went."""
        stop_unit(self.record.unit)
        self.place.put_back()
        try:
            start_unit(self.record.unit)
            state = "its files of before are in place and it runs on them"
        except ScriptFailed as failure:
            say(failure.message)
            state = "its files of before are in place, but it does not start on them"
        self.place.clear()
        return state
