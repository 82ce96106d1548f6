"""How the scripts read what dpkg, apt and the kernel print."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from managed.domain.health import health_report
from managed.server_scripts import (
    _apt,
    _packages,
    _reboot,
    _run,
    apply_updates,
    check_health,
    script_source,
)


def test_simulated_updates_know_new_packages_and_security() -> None:
    printed = (
        "Inst libc6 [2.36-9] (2.36-10 Debian:12.12/oldstable, "
        "Debian-Security:12/oldstable-security [amd64]) []\n"
        "Inst linux-image-6.1.0-41-amd64 (6.1.158-1 Debian:12/oldstable [amd64])\n"
        "Inst bash [1] (2 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [amd64])\n"
        "Conf libc6 (2.36-10 Debian:12.12/oldstable [amd64])\n"
    )

    found = _packages.simulated_updates(printed)

    assert [(u["name"], u["before"], u["after"], u["security"]) for u in found] == [
        ("libc6", "2.36-9", "2.36-10", True),
        ("linux-image-6.1.0-41-amd64", "", "6.1.158-1", False),
        ("bash", "1", "2", True),
    ]


def test_packages_without_files_do_not_count() -> None:
    printed = "a\t1\tinstalled\nb:i386\t2\tunpacked\nc\t3\tconfig-files\nd\t\tnot-installed\n"

    assert _packages.parsed_packages(printed) == {"a": "1", "b:i386": "2"}


def test_the_newest_kernel_is_not_the_last_in_the_alphabet() -> None:
    images = [Path(f"/boot/vmlinuz-6.1.0-{number}-amd64") for number in (9, 41, 38)]

    assert _reboot.newest_kernel(images) == "6.1.0-41-amd64"
    assert _reboot.newest_kernel([]) == ""


def test_progress_counts_packages_and_takes_lines_in_pieces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reader, writer = os.pipe()
    progress = _apt.PackageProgress(of=2)
    os.write(writer, b"pmstatus:libc6:amd64:40.0:Installed libc6 (amd64)\npmstatus:a:8")
    progress.read(reader)
    os.write(writer, b"0.0:Unpacking a\n")
    progress.read(reader)
    os.close(writer)
    os.close(reader)

    event = json.loads(capsys.readouterr().out.splitlines()[0].removeprefix("@managed "))
    assert event == {
        "event": "patch_progress", "done": 1, "of": 2, "percent": 40, "phase": "install"
    }  # fmt: skip
    assert progress.rest == b""


CHATTY_APT = f"""#!{sys.executable}
import os, sys, time
option = next(word for word in sys.argv if word.startswith("APT::Status-Fd="))
status = int(option.partition("=")[2])
line = b"dlstatus:1:12.5:Retrieving file 1 of 9\\n"
for _ in range(200_000 // len(line)):
    os.write(status, line)
print("Fetched all of it")
sys.stdout.write("the last line, without its end")
sys.stdout.flush()
if "--leave-a-daemon" in sys.argv and os.fork() == 0:
    time.sleep(30)
sys.exit(7)
"""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("arguments", [(), ("--leave-a-daemon",)])
def test_a_slow_download_fills_no_pipe(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    """More status lines than a pipe holds, before the first line of output."""
    program = tmp_path / "apt-get"
    program.write_text(CHATTY_APT)
    program.chmod(0o755)
    monkeypatch.setattr(_run, "PROGRAM_PATH", f"{tmp_path}:{_run.PROGRAM_PATH}")

    status, tail = _apt.run_shown(["apt-get", *arguments], _apt.PackageProgress(of=9))

    assert status == 7
    assert tail == "Fetched all of it\nthe last line, without its end"
    printed = capsys.readouterr().out.splitlines()
    progress = json.loads(printed[0].removeprefix("@managed "))
    assert (progress["phase"], progress["percent"]) == ("download", 12)
    assert printed[-2:] == tail.splitlines()


def test_one_run_of_updates_is_at_work_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply_updates, "LOCK_FILE", tmp_path / "patch.lock")
    with apply_updates.the_only_run():
        left_behind = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
        with pytest.raises(_run.ScriptFailed) as refused:
            apply_updates.main({})
    assert refused.value.code == "still-running"
    with left_behind, apply_updates.the_only_run():
        assert left_behind.poll() is None, "what a run has started does not hold the lock"


def test_a_lock_of_another_process_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not _apt.is_locked(str(lock)), "no file, no lock"
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert _apt.is_locked(str(lock))
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(timeout=10)
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_UN)
    assert not _apt.is_locked(str(lock))


def test_addresses_of_the_kernel_are_readable() -> None:
    assert check_health.readable_address("0100007F") == "127.0.0.1"
    assert check_health.readable_address("00000000000000000000000001000000") == "::1"


def test_only_listening_sockets_of_visible_processes_count() -> None:
    line = "  0: 010200C0:0050 00000000:0000 {state} 0:0 0:0 0  0 0 777 1"

    found = check_health.listener("tcp", line.format(state="0A"), {"777": "nginx"})
    assert found == {"protocol": "tcp", "address": "192.0.2.1", "port": 80, "process": "nginx"}
    assert check_health.listener("tcp", line.format(state="01"), {"777": "nginx"}) is None
    assert check_health.listener("tcp", line.format(state="0A"), {}) is None


def test_read_only_on_purpose_is_no_problem() -> None:
    assert check_health.wanted_read_only(
        "# x /a ext4 ro\nUUID=1 /b\\040c ext4 noatime,ro 0 0\n"
    ) == {"/b c"}


def test_only_units_whose_job_is_under_way_are_starting() -> None:
    listing = (
        "  84 mariadb.service            start running\n"
        " 2   multi-user.target          start waiting\n"
    )

    assert check_health.starting_units(listing) == ["mariadb.service"]
    assert check_health.starting_units("No jobs running.\n") == []


@contextmanager
def web_server(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_whole_script_gives_a_report_that_the_domain_reads() -> None:
    with web_server(200) as good, web_server(503) as bad:
        done = subprocess.run(
            [sys.executable, "-", json.dumps({"probes": [good, bad]})],
            input=script_source("check_health"),
            capture_output=True,
            text=True,
            check=True,
        )
    report = health_report(json.loads(done.stdout))

    assert report.boot_id
    assert [probe.status for probe in report.probes] == [200, 503]
    assert report.probes[0].sha256.startswith("2cf24dba")
    assert report.probes[0].is_good
    assert not report.probes[1].is_good
