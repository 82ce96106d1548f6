"""Repositories by restic, directly on the bucket: implements `managed.ports.BackupRepositories`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from managed.domain.errors import (
    CommandFailed,
    InvalidInput,
    Json,
    MissingRequirement,
    NoBackup,
    NotFound,
    RepositoryDamaged,
)
from managed.domain.snapshots import Check, RepositoryAddress, Snapshot, SnapshotFile
from managed.drivers.restic import commands, output
from managed.drivers.restic.commands import REPOSITORIES, ResticSettings
from managed.drivers.restic.output import ResticStatus
from managed.drivers.restic.process import Ended, run_for_bytes, run_for_lines
from managed.drivers.restic.quarantine import Inspection, Kind, place_of
from managed.ports import Clock, Emit, ObjectStore

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
        ended, text = run_for_bytes(commands.version_command(self._settings.binary), {})
        if ended.status != ResticStatus.OK:
            raise MissingRequirement(f"restic does not run: {output.message_in(ended.stderr)}")
        return output.require_version(text.decode(errors="replace"))

    def create(self, repository: RepositoryAddress) -> str:
        inspection = Inspection(self._objects, repository, self._clock())
        names = inspection.names()
        if Kind.CONFIG not in names:
            self._remove_half_made(repository, list(names))
            self._settings.cache_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lines(repository, commands.init_command(self._settings))
            names = inspection.names()
        key_id, _ = inspection.trusted_key(names)
        return key_id

    def snapshots(self, repository: RepositoryAddress) -> Sequence[Snapshot]:
        command = commands.snapshots_command(self._settings, repository.key_id)
        return output.parsed_snapshots("\n".join(self._lines(repository, command)))

    def files(self, repository: RepositoryAddress, snapshot_id: str) -> Sequence[SnapshotFile]:
        self._require_snapshot(repository, snapshot_id)
        command = commands.files_command(self._settings, repository.key_id, snapshot_id)
        parsed = map(output.parsed_file, output.json_lines(self._lines(repository, command)))
        return [file for file in parsed if file is not None]

    def file_content(self, repository: RepositoryAddress, snapshot_id: str, path: str) -> bytes:
        command = commands.content_command(self._settings, repository.key_id, snapshot_id, path)
        content = b""

        def run() -> Ended:
            nonlocal content
            ended, content = run_for_bytes(command, self._environment(repository))
            return ended

        self._require_snapshot(repository, snapshot_id)
        self._succeed(repository, run)
        return content

    def check(
        self,
        repository: RepositoryAddress,
        part: int,
        parts: int,
        emit: Emit,
        register_child: Callable[[int], None] | None = None,
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
        ended = self._unlocked(repository, run)
        messages += output.json_lines(ended.stderr.splitlines())
        if ended.status not in (ResticStatus.OK, ResticStatus.FAILED):
            self._raise_for(repository, ended)
        self._require(repository)
        return output.verdict_of_check(ended.status, messages, part, parts)

    def quarantine(self, repository: RepositoryAddress) -> Sequence[str]:
        self._require(repository)
        return Inspection(self._objects, repository, self._clock()).move_strays()

    def unlock(self, repository: RepositoryAddress) -> None:
        self._require(repository)
        ended = self._unlock(repository)
        if ended.status != ResticStatus.OK:
            self._raise_for(repository, ended)

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

    def _remove_half_made(self, repository: RepositoryAddress, names: Sequence[str]) -> None:
        """restic writes the key before the configuration, and refuses to begin again after a kill
        between the two. A key alone protects nothing; anything more is a damaged repository.
        """
        if any(not name.startswith(f"{Kind.KEY}/") for name in names):
            raise RepositoryDamaged(
                f"the repository of {repository.account} has objects but no configuration",
                hint="Was its `config` deleted? Look into the bucket before you make a new one.",
                account=repository.account,
            )
        for name in names:
            self._objects.delete(f"{REPOSITORIES}/{repository.account}/{name}")

    def _lines(self, repository: RepositoryAddress, command: Sequence[str]) -> list[str]:
        lines: list[str] = []

        def run() -> Ended:
            lines.clear()
            return run_for_lines(command, self._environment(repository), lines.append)

        if "init" not in command:
            self._require(repository)
        self._succeed(repository, run)
        return lines

    def _succeed(self, repository: RepositoryAddress, run: Runner) -> None:
        ended = self._unlocked(repository, run)
        if ended.status != ResticStatus.OK:
            self._raise_for(repository, ended)

    def _unlocked(self, repository: RepositoryAddress, run: Runner) -> Ended:
        """Run; when a lock is in the way, remove stale ones and run once more."""
        ended = run()
        if ended.status == ResticStatus.LOCKED:
            self._unlock(repository)
            ended = run()
        return ended

    def _unlock(self, repository: RepositoryAddress) -> Ended:
        command = commands.unlock_command(self._settings, repository.key_id)
        return run_for_lines(command, self._environment(repository), lambda _line: None)

    def _environment(self, repository: RepositoryAddress) -> dict[str, str]:
        return commands.restic_environment(self._settings, repository)

    def _raise_for(self, repository: RepositoryAddress, ended: Ended) -> None:
        """Raise what the status means; if the bucket fails now, that is the better explanation."""
        error = output.error_for(ended.status, repository.account, ended.stderr)
        if isinstance(error, CommandFailed):
            self._require(repository)
        if error is not None:
            raise error
