"""Shell completion as shells ask for it: commands, options, and names that the service knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from managed.cli import REFUSED, run
from managed.cli.completion import server_names
from managed.client import ManagedClient
from managed.settings import settings
from tests.integration.api.conftest import ApiBench
from tests.support.waiting import wait_until

# The tests' shell is none of theirs.
NO_DETECTION = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
MANAGED = Path(sys.executable).parent / "managed"


def environment(live: ManagedClient, bench: ApiBench, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{MANAGED.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "MANAGED_API_URL": live.base_url,
        "MANAGED_TOKEN": bench.token,
    }


def completed(line: str, number: int, **variables: str) -> list[str]:
    """What the program answers to bash about the word of this number."""
    asked = {"_MANAGED_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(number)}
    done = subprocess.run(
        [str(MANAGED)], env={**variables, **asked}, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def fleet(bench: ApiBench) -> None:
    for name in ("shop", "shop-2", "blog"):
        bench.add_server(name)


def is_completed_by(names: list[str], line: str, word: int, known: dict[str, str]) -> bool:
    return completed(line, word, **known) == names


@pytest.mark.usefixtures("fleet")
def test_commands_and_names_are_completed(
    live: ManagedClient, bench: ApiBench, tmp_path: Path
) -> None:
    known = environment(live, bench, tmp_path)
    for line, word, names in (
        ("managed serv", 1, ["serve", "servers"]),
        ("managed servers show sh", 3, ["shop", "shop-2"]),
        ("managed servers show shop", 3, ["shop", "shop-2"]),
        ("managed jobs submit ", 3, ["blog", "shop", "shop-2"]),
        ("managed jobs submit-many --server bl", 4, ["blog"]),
    ):
        # A service that a busy machine keeps from answering in a second is asked again: Tab, Tab.
        wait_until(
            partial(is_completed_by, names, line, word, known),
            timeout=60,
            what=f"{line!r} is completed by {names}",
        )
    assert completed("managed servers show no-such", 3, **known) == []


def test_without_a_service_nothing_is_said(tmp_path: Path, unused_tcp_port: int) -> None:
    nobody = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MANAGED_API_URL": f"http://127.0.0.1:{unused_tcp_port}",
    }
    line = "managed servers show sh"
    assert completed(line, 3, **nobody, MANAGED_TOKEN="x") == []
    assert completed(line, 3, **nobody, MANAGED_STATE_DIR=str(tmp_path)) == []
    assert completed(line, 3, **nobody, MANAGED_LISTEN_PORT="abc") == []


@pytest.mark.usefixtures("fleet")
def test_a_token_that_may_not_completes_nothing(
    live: ManagedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGED_API_URL", live.base_url)
    monkeypatch.setenv("MANAGED_TOKEN", "wrong")
    settings.cache_clear()
    assert server_names("sh") == []
    settings.cache_clear()


@pytest.mark.usefixtures("fleet")
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_a_real_bash_completes(live: ManagedClient, bench: ApiBench, tmp_path: Path) -> None:
    """With the script that `--show-completion bash` prints, by the function that it registers."""
    script = """
        eval "$(managed --show-completion bash)"
        complete -p managed
        COMP_WORDS=(managed servers show sh) COMP_CWORD=3
        _managed_completion managed
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    known = {**environment(live, bench, tmp_path), **NO_DETECTION}
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env=known,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    registered, *names = done.stdout.split("\n")
    assert registered.endswith("-F _managed_completion managed")
    assert [name for name in names if name] == ["shop", "shop-2"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_printed(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as ended:
        run(["--show-completion", shell])
    assert ended.value.code == 0
    assert f"_MANAGED_COMPLETE=complete_{shell}" in capsys.readouterr().out


def test_it_is_installed_for_a_shell(tmp_path: Path) -> None:
    known = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **NO_DETECTION}
    command = [str(MANAGED), "--install-completion", "bash"]
    subprocess.run(command, env=known, capture_output=True, check=True, timeout=120)
    assert "complete_bash" in (tmp_path / ".bash_completions" / "managed.sh").read_text()
    assert "managed.sh" in (tmp_path / ".bashrc").read_text()


def test_the_document_is_printed_for_whoever_has_no_token(
    live: ManagedClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MANAGED_STATE_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("MANAGED_API_URL", live.base_url)
    settings.cache_clear()
    try:
        assert run(["openapi"]) == 0
        assert run(["jobs", "list"]) == REFUSED
    finally:
        settings.cache_clear()
    assert '"openapi": "3.1.0"' in capsys.readouterr().out
