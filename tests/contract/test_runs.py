"""The contract of DetachedRuns, for the fake and for the real one on a cell."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import Conflict, EvidenceMissing, InvalidInput, ServerUnreachable
from managed.domain.runs import RunReport, RunRequest, RunState
from managed.domain.secrets import Secret
from managed.drivers.fakes.runs import FakePolls, FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.runs import SshPolls, SshRuns, request_document
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.lab.cell_processes import process_ids
from managed.lab.cells import Cell, start_cell, stop_cell
from managed.ports import Polls
from tests.support.cells import StartCell
from tests.support.waiting import wait_until

HELLO = "#!/bin/sh\necho hello; exit 3\n"
ENDLESS = "#!/bin/sh\necho begun; printf 'half a line'; sleep 1000\n"
UMLAUTS = '#!/usr/bin/env python3\nfor n in range(30000): print(n, "äöü€😀" * (n % 7))\n'
ONE_LINE = '#!/usr/bin/env python3\nprint("€" * 70000, end="")\n'

PERFORMED = {
    HELLO: Performed(b"hello\n", 3),
    ENDLESS: Performed(b"begun\nhalf a line", None),
    UMLAUTS: Performed("".join(f"{n} {'äöü€😀' * (n % 7)}\n" for n in range(30000)).encode(), 0),
    ONE_LINE: Performed(("€" * 70000).encode(), 0),
}

_numbers = itertools.count(1)


@dataclass
class Stage:
    """A driver, a server for it, and how that server is made to boot again."""

    runs: SshRuns | FakeRuns
    endpoint: Endpoint
    reboot: Callable[[], object]

    @property
    def polls(self) -> Polls:
        """Short questions to the same servers."""
        if isinstance(self.runs, FakeRuns):
            return FakePolls(self.runs)
        return SshPolls(SshShell())

    def start(self, script: str, **options: object) -> str:
        run_id = f"job-{next(_numbers)}.step.1"
        self.runs.start(self.endpoint, RunRequest(run_id, script, **options))  # type: ignore[arg-type]
        return run_id

    def look(self, run_id: str, offset: int = 0) -> RunReport:
        return self.runs.look(self.endpoint, run_id, offset)

    def until(self, run_id: str, state: RunState, timeout: float = 30) -> RunReport:
        wait_until(lambda: self.look(run_id).state is state, timeout=timeout, what=state)
        return self.look(run_id)

    def until_printed(self, run_id: str, text: str) -> None:
        wait_until(lambda: text in self.look(run_id).log, timeout=30, what=f"{text} in the log")


def fake_stage() -> Stage:
    host, login, shell = new_key_pair(), new_key_pair(), FakeShell()
    server = shell.add("127.0.0.1", 22, FakeServer(host.public_key, login.private_key))
    endpoint = Endpoint("127.0.0.1", 22, "root", host.public_key, login.private_key)
    runs = FakeRuns(shell, lambda request: PERFORMED[request.script])
    return Stage(runs, endpoint, server.reboot)


def real_stage(cell: Cell) -> Stage:
    def reboot() -> None:
        stop_cell(cell)
        start_cell(cell.directory.parents[1], cell.base_root, cell.name)

    return Stage(SshRuns(SshShell()), cell.endpoint, reboot)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cell)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "fake":
        return fake_stage()
    return real_stage(request.getfixturevalue("cell"))


@pytest.fixture
def real(cell: Cell) -> Stage:
    return real_stage(cell)


def whole_log(stage: Stage, run_id: str) -> str:
    """The log put together from as many looks as it takes."""
    pieces, offset = [], 0
    while True:
        report = stage.look(run_id, offset)
        if report.next_offset == offset:
            return "".join(pieces)
        pieces.append(report.log)
        offset = report.next_offset


def test_a_run_that_was_never_started_is_absent(stage: Stage) -> None:
    report = stage.look("never-started.step.1", 5)
    assert (report.state, report.next_offset) == (RunState.ABSENT, 5)


def test_a_run_ends_with_its_status_and_log(stage: Stage) -> None:
    report = stage.until(stage.start(HELLO), RunState.FINISHED)
    assert (report.exit_status, report.log, report.next_offset) == (3, "hello\n", 6)
    assert len(report.boot_id) == 36


def test_while_it_runs_only_whole_lines_are_shown(stage: Stage) -> None:
    run_id = stage.start(ENDLESS)
    stage.until_printed(run_id, "begun")
    report = stage.look(run_id)
    assert (report.state, report.exit_status) == (RunState.RUNNING, None)
    assert report.log == "begun\n"
    assert stage.look(run_id, report.next_offset).log == ""


@pytest.mark.parametrize("script", [UMLAUTS, ONE_LINE])
def test_pieces_of_a_long_log_join_exactly(stage: Stage, script: str) -> None:
    run_id = stage.start(script)
    stage.until(run_id, RunState.FINISHED)
    assert whole_log(stage, run_id) == PERFORMED[script].log.decode()


def test_the_same_run_is_started_once(stage: Stage) -> None:
    run_id = stage.start(HELLO)
    stage.runs.start(stage.endpoint, RunRequest(run_id, ENDLESS))
    assert stage.until(run_id, RunState.FINISHED).exit_status == 3


def test_a_stopped_run_has_failed(stage: Stage) -> None:
    run_id = stage.start(ENDLESS)
    stage.until_printed(run_id, "begun")
    stage.runs.stop(stage.endpoint, run_id)
    report = stage.look(run_id)
    assert (report.state, report.exit_status) == (RunState.FINISHED, 143)
    stage.runs.stop(stage.endpoint, run_id)
    stage.runs.stop(stage.endpoint, "never-started.step.1")


def test_only_an_ended_run_can_be_forgotten(stage: Stage) -> None:
    run_id = stage.start(ENDLESS)
    with pytest.raises(Conflict):
        stage.runs.forget(stage.endpoint, run_id)
    stage.runs.stop(stage.endpoint, run_id)
    stage.runs.forget(stage.endpoint, run_id)
    assert stage.look(run_id).state is RunState.ABSENT
    stage.runs.forget(stage.endpoint, run_id)


def test_a_run_id_that_is_no_name_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInput):
        stage.runs.start(stage.endpoint, RunRequest("../etc", HELLO))


def test_polls_say_what_looks_say_and_an_unreachable_server_is_an_error(stage: Stage) -> None:
    run_id = stage.start(HELLO)
    report = stage.until(run_id, RunState.FINISHED)
    nobody = Endpoint("127.0.0.1", 1, "root", stage.endpoint.host_key, stage.endpoint.private_key)
    polls = stage.polls
    assert wait_for(polls.look(stage.endpoint, run_id, 0, timeout=10)) == report
    assert wait_for(polls.boot_id(stage.endpoint, timeout=10)) == report.boot_id
    for question in (polls.look(nobody, run_id, 0, timeout=10), polls.boot_id(nobody, timeout=10)):
        with pytest.raises(ServerUnreachable):
            wait_for(question)


def test_polls_run_commands_as_a_shell_does(stage: Stage) -> None:
    def run(*command: str, limit: int = 1000, **options: Any) -> CommandResult:
        asked = stage.polls.run(stage.endpoint, command, timeout=10, limit=limit, **options)
        return wait_for(asked)

    assert run("cat", stdin="söme\ninput".encode()) == CommandResult(0, "söme\ninput", "")
    assert run("printf", "%s", "a 'word'; id") == CommandResult(0, "a 'word'; id", "")
    assert run("false").exit_status == 1
    assert run("cat", stdin=b"x" * 1000).stdout == "x" * 1000
    with pytest.raises(EvidenceMissing):
        run("cat", stdin=b"x" * 1001)
    nobody = Endpoint("127.0.0.1", 1, "root", stage.endpoint.host_key, stage.endpoint.private_key)
    with pytest.raises(ServerUnreachable):
        wait_for(stage.polls.run(nobody, ("true",), timeout=10, limit=1000))


def test_a_command_that_takes_too_long_is_given_up(stage: Stage) -> None:
    started = time.monotonic()
    with pytest.raises(ServerUnreachable):
        wait_for(stage.polls.run(stage.endpoint, ("sleep", "20"), timeout=1, limit=1000))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", ["fake", pytest.param("real", marks=pytest.mark.cell)])
def test_a_run_that_a_reboot_ended_is_unknown(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "fake":
        stage = fake_stage()
    else:
        stage = real_stage(request.getfixturevalue("start_test_cell")())
    run_id = stage.start(ENDLESS)
    ended = stage.start(HELLO)
    stage.until_printed(run_id, "begun")
    stage.until(ended, RunState.FINISHED)
    stage.reboot()
    report = stage.look(run_id)
    assert (report.state, report.exit_status) == (RunState.UNKNOWN, None)
    assert stage.look(ended).exit_status == 3


# ---------------------------------------------------------------- only the real one can show these


def record(cell: Cell, run_id: str) -> dict[str, str]:
    directory = cell.root_dir / "var/lib/managed/runs" / run_id
    return {name: (directory / name).read_text() for name in ("pid", "request.json", "log")}


def sh(stage: Stage, command: str) -> str:
    return SshShell().run(stage.endpoint, ["sh", "-c", command]).stdout


@pytest.mark.cell
def test_a_login_shell_that_prints_hides_no_state_and_no_boot(real: Stage) -> None:
    before = wait_for(real.polls.boot_id(real.endpoint, timeout=10))
    sh(real, "echo 'date; printf hi' >/root/.bashrc")
    try:
        assert real.look("never-started.step.1").state is RunState.ABSENT
        report = real.until(real.start(HELLO), RunState.FINISHED)
        boot_id = wait_for(real.polls.boot_id(real.endpoint, timeout=10))
    finally:
        sh(real, "rm /root/.bashrc")
    assert (report.exit_status, report.log, report.next_offset) == (3, "hello\n", 6)
    assert report.boot_id == boot_id == before


@pytest.mark.cell
def test_arguments_environment_and_secrets_reach_the_script(real: Stage) -> None:
    script = (
        "#!/usr/bin/env python3\nimport os, sys\n"
        "print(sys.argv[1:], os.environ['COLOUR'], os.environ['PASSWORD'][::-1], os.getcwd())\n"
        "print(open(os.environ['MANAGED_RUN_DIR'] + '/boot_id').read().strip())\n"
    )
    run_id = real.start(
        script,
        arguments=("a b", "'"),
        environment={"COLOUR": "red"},
        secrets={"PASSWORD": Secret("s3cret")},
    )
    report = real.until(run_id, RunState.FINISHED)
    assert report.log == f"{['a b', chr(39)]} red terc3s /\n{report.boot_id}\n"


@pytest.mark.cell
def test_no_secret_in_arguments_units_memory_files_or_on_the_disk(real: Stage, cell: Cell) -> None:
    secret = "correct-horse-" + new_key_pair().public_key[-20:].replace("/", "_")
    run_id = real.start(ENDLESS, secrets={"PASSWORD": Secret(secret)})
    real.until_printed(run_id, "begun")
    # Half of it is searched for, or the search would find its own command line.
    tail = secret[-12:]
    pattern = f"[{tail[0]}]{tail[1:]}".replace("+", "[+]")
    assert sh(real, f"grep -alrs -- '{pattern}' /proc/[0-9]*/cmdline /run") == ""
    assert sh(real, f"systemctl show 'managed-run-*' | grep -- '{pattern}'") == ""
    assert sh(real, f"journalctl --no-pager | grep -- '{pattern}'") == ""
    assert sh(real, f"grep -als -- '{pattern}' /proc/[0-9]*/environ") != ""
    for file in cell.upper_dir.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert secret.encode() not in file.read_bytes(), file
    real.runs.stop(real.endpoint, run_id)


@pytest.mark.cell
def test_a_run_started_by_many_at_once_runs_once(real: Stage, cell: Cell) -> None:
    script = "#!/bin/sh\necho ran >>/root/ran-once; sleep 0.3; echo done\n"
    runner = real.start(HELLO)
    real.until(runner, RunState.FINISHED)
    SshShell().write_file(
        real.endpoint,
        "/root/request",
        request_document(RunRequest("contended.step.1", script)),
        0o600,
    )
    start = "python3 -I -S /usr/local/lib/managed/runner-*.py start </root/request"
    sh(real, f"for n in 1 2 3 4 5 6 7 8; do {start} & done; wait")
    assert real.until("contended.step.1", RunState.FINISHED).log == "done\n"
    assert (cell.root_dir / "root/ran-once").read_text() == "ran\n"


@pytest.mark.cell
@pytest.mark.parametrize("without_systemd", [False, True])
def test_a_killed_supervisor_leaves_an_unknown_run(
    real: Stage, cell: Cell, without_systemd: bool
) -> None:
    run_id = start_without_systemd(real, ENDLESS) if without_systemd else real.start(ENDLESS)
    real.until_printed(run_id, "begun")
    supervisor = record(cell, run_id)["pid"].split()[0]
    sh(real, f"kill -9 {supervisor}")
    if without_systemd:
        # The script goes on without it, and so does the run, as far as anyone may start it anew.
        assert real.look(run_id).state is RunState.RUNNING
        real.runs.stop(real.endpoint, run_id)
    report = real.until(run_id, RunState.UNKNOWN)
    assert report.exit_status is None
    assert report.log == "begun\nhalf a line"


def start_without_systemd(stage: Stage, script: str) -> str:
    """As in a rescue session: /run/systemd/system is hidden while the run starts."""
    sh(stage, "mount -t tmpfs hidden /run/systemd")
    try:
        return stage.start(script)
    finally:
        sh(stage, "umount /run/systemd")


@pytest.mark.cell
def test_without_systemd_a_run_ends_just_so(real: Stage) -> None:
    run_id = start_without_systemd(real, HELLO)
    assert real.until(run_id, RunState.FINISHED).exit_status == 3
    assert f"managed-run-{run_id}" not in sh(real, "systemctl list-units --all")


@pytest.mark.cell
def test_a_start_that_died_half_way_is_unknown_and_never_starts_later(real: Stage) -> None:
    runner = real.start(HELLO)
    real.until(runner, RunState.FINISHED)
    run_id = "abandoned.step.1"
    sh(
        real,
        f"cd /var/lib/managed/runs && cp -r {runner} {run_id} && cd {run_id} && "
        "rm status pid && : >starting && : >log && mkdir -p /run/managed/secrets && "
        f"echo '{{}}' >/run/managed/secrets/{run_id}",
    )
    assert real.look(run_id).state is RunState.UNKNOWN
    sh(real, f"python3 -I -S /usr/local/lib/managed/runner-*.py supervise {run_id}")
    report = real.look(run_id)
    assert (report.state, report.log) == (RunState.UNKNOWN, "")
    assert sh(real, "ls /run/managed/secrets") == ""


@pytest.mark.cell
def test_a_run_that_is_being_started_is_running(real: Stage) -> None:
    runner = real.start(HELLO)
    real.until(runner, RunState.FINISHED)
    starter = sh(
        real,
        f"cd /var/lib/managed/runs && cp -r {runner} begun.step.1 && cd begun.step.1 && "
        "rm status pid && : >log && exec 9>starting && flock 9 && "
        "{ sleep 1000 >/dev/null 2>&1 & echo $!; }",
    )
    assert real.look("begun.step.1").state is RunState.RUNNING
    sh(real, f"kill {starter}")
    real.until("begun.step.1", RunState.UNKNOWN)


@pytest.mark.cell
def test_records_that_nobody_forgot_are_swept_when_they_are_old(real: Stage) -> None:
    ended, young, running = real.start(HELLO), real.start(HELLO), real.start(ENDLESS)
    for run_id in (ended, young):
        real.until(run_id, RunState.FINISHED)
    real.until_printed(running, "begun")
    sh(real, f"cd /var/lib/managed/runs && touch -d '15 days ago' {ended} {running}")

    real.until(real.start(HELLO), RunState.FINISHED)

    assert real.look(ended).state is RunState.ABSENT
    assert real.look(young).state is RunState.FINISHED
    assert real.look(running).state is RunState.RUNNING
    real.runs.stop(real.endpoint, running)


@pytest.mark.cell
def test_the_time_limit_and_a_stop_end_what_does_not_listen_and_all_its_processes(
    real: Stage,
) -> None:
    """Both at a time: each kills only after a while of patience."""
    late = "#!/bin/sh\ntrap '' TERM\nsetsid sleep 777.25 &\nsleep 777.25; sleep 777.25\n"
    limited = real.start(late, time_limit=1)
    deaf = real.start("#!/bin/sh\ntrap '' TERM\necho deaf\nwhile :; do sleep 0.1; done\n")
    real.until_printed(deaf, "deaf")

    real.runs.stop(real.endpoint, deaf)
    assert real.look(deaf).exit_status == 137

    report = real.until(limited, RunState.FINISHED)
    assert report.exit_status == 124
    assert "time limit" in report.log
    assert sh(real, "pgrep -f '[s]leep 777.25'") == ""


@pytest.mark.cell
def test_a_unit_that_the_system_ends_leaves_an_unknown_run(real: Stage) -> None:
    run_id = real.start("#!/bin/sh\ntrap 'exit 0' TERM\necho begun\nwhile :; do sleep 0.1; done\n")
    real.until_printed(run_id, "begun")
    sh(real, f"systemctl stop managed-run-{run_id}.service")
    assert real.look(run_id).state is RunState.UNKNOWN


@pytest.mark.cell
def test_the_log_is_bounded(real: Stage, cell: Cell) -> None:
    run_id = real.start("#!/bin/sh\nhead -c 70000000 /dev/zero | tr '\\0' x; echo; exit 7\n")
    assert real.until(run_id, RunState.FINISHED).exit_status == 7
    log = record(cell, run_id)["log"]
    assert len(log) < 64 * 1024 * 1024 + 200
    assert log.rstrip().endswith("bytes are the limit")


@pytest.mark.cell
def test_a_script_that_cannot_be_started_has_failed(real: Stage) -> None:
    report = real.until(real.start("#!/no/such/interpreter\n"), RunState.FINISHED)
    assert report.exit_status == 126
    assert "could not be started" in report.log


@pytest.mark.cell
def test_a_process_that_stays_behind_does_not_keep_the_run_open(real: Stage) -> None:
    run_id = real.start("#!/bin/sh\nsetsid sleep 500.5 &\necho started\n")
    assert real.until(run_id, RunState.FINISHED, timeout=10).log == "started\n"


@pytest.mark.cell
def test_one_hung_server_delays_no_other_answer(real: Stage, start_test_cell: StartCell) -> None:
    hung = start_test_cell()
    run_id = real.start(HELLO)
    real.until(run_id, RunState.FINISHED)
    polls = real.polls
    wait_for(polls.boot_id(hung.endpoint, timeout=10))
    for process in process_ids(hung.group):
        os.kill(process, signal.SIGSTOP)

    async def both() -> list[RunReport | BaseException]:
        looks = [polls.look(e, run_id, 0, timeout=2) for e in (hung.endpoint, real.endpoint)]
        return await asyncio.gather(*looks, return_exceptions=True)

    started = time.monotonic()
    answers = wait_for(both())
    assert time.monotonic() - started < 5
    assert isinstance(answers[0], ServerUnreachable)
    assert isinstance(answers[1], RunReport)
