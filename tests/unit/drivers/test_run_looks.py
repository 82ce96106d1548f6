"""How the answer to a look at a detached run is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.errors import InvalidInput
from managed.domain.runs import RunRequest, RunState
from managed.domain.secrets import Secret
from managed.drivers.runs import (
    LOG_BYTES_PER_LOOK,
    look_command,
    report_of,
    request_document,
    runner_file,
    whole_part,
)

BOOT = "3243caaf-89ba-4050-b038-a41775bdc57c"


def test_states_are_read_with_boot_and_status() -> None:
    finished = report_of(f"managed-look: finished 3 {BOOT}\nhello\n".encode(), 0)
    assert (finished.state, finished.exit_status) == (RunState.FINISHED, 3)
    assert (finished.boot_id, finished.log, finished.next_offset) == (BOOT, "hello\n", 6)
    unknown = report_of(f"managed-look: unknown {BOOT}\nhalf".encode(), 10)
    assert (unknown.state, unknown.exit_status, unknown.boot_id) == (RunState.UNKNOWN, None, BOOT)
    assert (unknown.log, unknown.next_offset) == ("half", 14)
    assert report_of(b"managed-look: absent\n", 7).next_offset == 7


def test_a_status_without_a_boot_id_is_still_a_status() -> None:
    report = report_of(b"managed-look: finished 0 \n", 0)
    assert (report.exit_status, report.boot_id) == (0, "")


def test_a_running_script_shows_whole_lines_only() -> None:
    assert whole_part(b"one\ntwo", all_is_there=False) == b"one\n"
    assert whole_part(b"two", all_is_there=False) == b""
    assert whole_part(b"one\ntwo", all_is_there=True) == b"one\ntwo"


@given(st.lists(st.sampled_from("aé€😀\n"), max_size=40), st.integers(0, 3))
def test_pieces_of_any_log_join_to_the_whole(pattern: list[str], shift: int) -> None:
    text = "x" * shift + "".join(pattern or ["€"]) * 6000
    log, offset, shown = text.encode(), 0, ""
    while offset < len(log):
        piece = whole_part(log[offset : offset + LOG_BYTES_PER_LOOK], all_is_there=True)
        assert piece, "no progress"
        shown += piece.decode()
        offset += len(piece)
    assert shown == text


@given(st.binary(max_size=8))
def test_a_full_piece_always_makes_progress(end: bytes) -> None:
    log = b"x" * (LOG_BYTES_PER_LOOK - len(end)) + end
    assert whole_part(log, all_is_there=False)


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".hidden", "-option", "a b", "x" * 129])
def test_a_run_id_must_be_a_plain_name(run_id: str) -> None:
    with pytest.raises(InvalidInput):
        look_command(run_id, 0)


def test_the_request_carries_its_secrets_only_in_the_document() -> None:
    request = RunRequest("a.b.1", "#!/bin/sh\n", secrets={"KEY": Secret("hidden")})
    assert b"hidden" in request_document(request)
    assert "hidden" not in repr(request)


def test_the_runner_is_one_program_named_by_its_content() -> None:
    path, source = runner_file()
    compile(source, path, "exec")
    assert b"from managed." not in source
    assert path.startswith("/usr/local/lib/managed/runner-")
