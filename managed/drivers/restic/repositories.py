"""Repositories by restic, directly on the bucket: implements `managed.ports.BackupRepositories`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    InvalidInput,
    Json,
    MissingRequirement,
    NoBackup,
    NotFound,
)
from managed.domain.snapshots import Check, RepositoryAddress, Snapshot, SnapshotFile
from managed.drivers.restic import commands, output
from managed.drivers.restic.commands import REPOSITORIES, ResticSettings
from managed.drivers.restic.output import ResticStatus
from managed.drivers.restic.process import Ended, run_for_lines, started
from managed.drivers.restic.quarantine import Inspection, Kind, place_of
from managed.ports import Clock, Emit, ObjectStore, RegisterChild

Runner = Callable[[], Ended]


class ResticRepositories:
    """Every method looks first, by one request, whether the repository is there: restic itself
    would try for minutes to reach a bucket that does not answer.
    """

    def __init__(
        self,
        settings: ResticSettings,
        objects: ObjectStore,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._objects = objects
        self._clock = clock

    def version(self) -> str:
        """restic's version. MissingRequirement when there is none, or one that is too old."""
        if not self._settings.binary.is_file():
            raise MissingRequirement(
                f"there is no restic at {self._settings.binary}",
                hint="Build it with `python -m images.build restic`.",
            )
        lines: list[str] = []
        ended = run_for_lines(commands.version_command(self._settings.binary), {}, lines.append)
        if ended.status != ResticStatus.OK:
            raise MissingRequirement(f"restic does not run: {output.message_in(ended.stderr)}")
        return output.require_version("".join(lines))

    def create(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> str:
        inspection = Inspection(self._objects, repository, self._clock())
        names = inspection.names()
        if Kind.CONFIG not in names:
            inspection.remove_half_made(names)
            self._settings.cache_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            list(self._lines(repository, commands.init_command(self._settings), register_child))
            names = inspection.names()
        key_id, _ = inspection.trusted_key(names)
        return key_id

    def snapshots(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> Sequence[Snapshot]:
        self._require(repository)
        command = commands.snapshots_command(self._settings, repository.key_id)
        return output.parsed_snapshots("".join(self._lines(repository, command, register_child)))

    @contextmanager
    def files(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        register_child: RegisterChild | None = None,
    ) -> Iterator[Iterator[SnapshotFile]]:
        self._require_snapshot(repository, snapshot_id)
        command = commands.files_command(self._settings, repository.key_id, snapshot_id)
        with closing(self._lines(repository, command, register_child)) as lines:
            parsed = map(output.parsed_file, output.json_lines(lines))
            yield (file for file in parsed if file is not None)

    def file_digest(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        largest: int,
        register_child: RegisterChild | None = None,
    ) -> str:
        command = commands.content_command(self._settings, repository.key_id, snapshot_id, path)
        digest = ""

        def run() -> Ended:
            nonlocal digest
            with started(command, self._environment(repository), register_child) as running:
                digest = _digest_of(running.chunks(), largest, path)
                return running.ended()

        self._require_snapshot(repository, snapshot_id)
        ended = self._unlocked(repository, run, register_child)
        self._require_success(repository, ended)
        return digest

    @contextmanager
    def content(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        register_child: RegisterChild | None = None,
    ) -> Iterator[Iterator[bytes]]:
        self._require_snapshot(repository, snapshot_id)
        command = commands.content_command(self._settings, repository.key_id, snapshot_id, path)
        with closing(self._chunks(repository, command, register_child)) as chunks:
            yield chunks

    def check(
        self,
        repository: RepositoryAddress,
        part: int,
        parts: int,
        emit: Emit,
        register_child: RegisterChild | None = None,
    ) -> Check:
        if not 1 <= part <= parts:
            raise InvalidInput(f"there is no part {part} of {parts}")
        command = commands.check_command(self._settings, repository.key_id, part, parts)
        messages: list[dict[str, Json]] = []

        def on_line(line: str) -> None:
            for message in output.json_lines([line]):
                progress = output.check_progress(message)
                if progress is None:
                    messages.append(message)
                else:
                    emit("repository_check_progress", progress)

        def run() -> Ended:
            messages.clear()
            environment = self._environment(repository)
            return run_for_lines(command, environment, on_line, register_child)

        self._require(repository)
        emit("repository_check_started", {"part": part, "parts": parts})
        ended = self._unlocked(repository, run, register_child)
        messages += output.json_lines(ended.stderr.splitlines())
        if ended.status not in (ResticStatus.OK, ResticStatus.FAILED):
            self._require_success(repository, ended)
        self._require(repository)
        return output.verdict_of_check(ended.status, messages, part, parts)

    def quarantine(self, repository: RepositoryAddress) -> Sequence[str]:
        self._require(repository)
        return Inspection(self._objects, repository, self._clock()).move_strays()

    def unlock(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> None:
        self._require(repository)
        self._require_success(repository, self._unlock(repository, register_child))

    def _require(self, repository: RepositoryAddress) -> None:
        """NoBackup without repository, ObjectStoreUnavailable when nobody can tell."""
        self._settings.cache_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._objects.exists(f"{REPOSITORIES}/{repository.account}/{Kind.CONFIG}"):
            raise NoBackup(
                f"{repository.account} has no backup repository", account=repository.account
            )

    def _require_snapshot(self, repository: RepositoryAddress, snapshot_id: str) -> None:
        """NotFound for a whole id that the repository has not; restic itself judges short ones."""
        self._require(repository)
        place = place_of(f"{Kind.SNAPSHOT}/{snapshot_id}")
        root = f"{REPOSITORIES}/{repository.account}"
        if place and not self._objects.exists(f"{root}/{place.kind}/{place.name}"):
            raise NotFound(
                f"{repository.account} has no snapshot {snapshot_id}", account=repository.account
            )

    def _lines(
        self,
        repository: RepositoryAddress,
        command: Sequence[str],
        register_child: RegisterChild | None,
    ) -> Generator[str]:
        """The output of restic while it works; what it fails with is raised at its end. A lock in
        the way ends it before the first line.
        """
        ended = yield from self._output(repository, command, register_child)
        if ended.status == ResticStatus.LOCKED:
            self._unlock(repository, register_child)
            ended = yield from self._output(repository, command, register_child)
        self._require_success(repository, ended)

    def _output(
        self,
        repository: RepositoryAddress,
        command: Sequence[str],
        register_child: RegisterChild | None,
    ) -> Generator[str, None, Ended]:
        with started(command, self._environment(repository), register_child) as running:
            yield from running.lines()
            return running.ended()

    def _chunks(
        self,
        repository: RepositoryAddress,
        command: Sequence[str],
        register_child: RegisterChild | None,
    ) -> Generator[bytes]:
        """The same, byte for byte."""
        for is_last in (False, True):
            with started(command, self._environment(repository), register_child) as running:
                yield from running.chunks()
                ended = running.ended()
            if ended.status != ResticStatus.LOCKED or is_last:
                self._require_success(repository, ended)
                return
            self._unlock(repository, register_child)

    def _unlocked(
        self, repository: RepositoryAddress, run: Runner, register_child: RegisterChild | None
    ) -> Ended:
        """Run; when a lock is in the way, remove stale ones and run once more."""
        ended = run()
        if ended.status == ResticStatus.LOCKED:
            self._unlock(repository, register_child)
            ended = run()
        return ended

    def _unlock(self, repository: RepositoryAddress, register_child: RegisterChild | None) -> Ended:
        command = commands.unlock_command(self._settings, repository.key_id)
        environment = self._environment(repository)
        return run_for_lines(command, environment, lambda _line: None, register_child)

    def _environment(self, repository: RepositoryAddress) -> dict[str, str]:
        return commands.restic_environment(self._settings, repository)

    def _require_success(self, repository: RepositoryAddress, ended: Ended) -> None:
        """Raise what the status means; if the bucket fails now, that is the better explanation."""
        error = output.error_for(ended.status, repository.account, ended.stderr)
        if isinstance(error, CommandFailed):
            self._require(repository)
        if error is not None:
            raise error


def _digest_of(chunks: Iterable[bytes], largest: int, path: str) -> str:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > largest:
            raise EvidenceMissing(f"{path!r} has more than {largest} bytes", path=path)
        digest.update(chunk)
    return digest.hexdigest()
