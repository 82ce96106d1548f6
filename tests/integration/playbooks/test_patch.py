"""Real updates on a cell, also after a kill in the middle of apt, and beside what else there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from managed.domain.errors import Json
from managed.domain.health import HealthReport, health_problems, health_regressions, health_report
from managed.domain.packages import patch_report
from managed.domain.runs import RunRequest
from managed.drivers.runs import SshRuns, request_document, runner_file
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from managed.server_scripts import script_source
from tests.support.cells import StartCell
from tests.support.playbook_runs import Remote, Run, text_of
from tests.support.waiting import wait_until

UPDATES = json.dumps({"only_security": False, "time_limit": 3600})
"""What the script that installs updates is given."""

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


def test_real_updates_are_installed_even_after_a_kill_in_the_middle(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("patch")
    before = _health(cell, remote)
    first = run("patch", cell, **_patch_request("job.patch.1"))
    assert first.facts["run_started"] is True
    assert run("patch", cell, **_patch_request("job.patch.1")).changed == 0, "claimed once"
    path, source = runner_file()
    assert (cell.root_dir / path.lstrip("/")).read_bytes() == source
    log = cell.root_dir / "var/lib/managed/runs/job.patch.1/log"
    wait_until(lambda: "Unpacking " in text_of(log), timeout=200, what="packages are unpacked")
    remote(cell, "systemctl kill --signal=KILL managed-run-job.patch.1.service")

    run("patch", cell, **_patch_request("job.patch.2"))
    record = cell.root_dir / "var/lib/managed/runs/job.patch.2"
    wait_until(lambda: (record / "status").exists(), timeout=400, what="the second run ends")

    assert (record / "status").read_text().strip() == "0", text_of(record / "log")[-3000:]
    result = json.loads((record / "result.json").read_text())
    patch_report(result)
    changed = dict(result["packages_after"].items() - result["packages_before"].items())
    assert len(changed) >= 15, "also those that the killed run had installed"
    assert '@managed {"event": "patch_progress"' in text_of(record / "log")
    after = _health(cell, remote)
    assert health_problems(after) == ()
    assert health_regressions(before, after) == ()
    assert remote(cell, "dpkg --audit") == ""


@pytest.fixture(scope="module")
def offline(start_test_cell: StartCell) -> Cell:
    """A cell for tests that bring their own sources of packages."""
    return start_test_cell("offline", isolated=True)


def test_a_dead_repository_is_no_green(offline: Cell) -> None:
    dead = "deb http://127.0.0.1:9/debian bookworm main\n"

    status, record = _patched(offline, "dead-repository", dead)

    assert status == 1
    result = json.loads((record / "result.json").read_text())
    assert "fetch package lists" in result["error"]["detail"]


def test_a_package_whose_needs_cannot_be_met_is_named_and_not_removed(
    offline: Cell, remote: Remote
) -> None:
    package = _built_package(offline, remote, "vendor-panel", "Depends: vendor-runtime\n")
    remote(offline, f"dpkg --force-depends --install {package}")
    assert "Remv vendor-panel" in remote(offline, "apt-get --simulate --fix-broken install")

    status, record = _patched(offline, "vendor-package", "")

    assert status == 1
    problem = json.loads((record / "result.json").read_text())["error"]["detail"]
    assert problem.startswith("repair packages")
    assert "vendor-panel" in problem
    assert "installed" in remote(offline, "dpkg-query --show -f '${Status}' vendor-panel")
    remote(offline, "dpkg --purge vendor-panel")


KILLS_ITS_DPKG_ONCE = """#!/bin/sh
grep -q $DPKG_MAINTSCRIPT_PACKAGE /root/killed || {
    echo $DPKG_MAINTSCRIPT_PACKAGE >> /root/killed
    kill -KILL $PPID
}
"""
SHOP_STATES = "dpkg-query --show -f '${Version} ${db:Status-Abbrev},' 'shop*'"


def test_what_a_kill_left_of_packages_that_need_each_other_is_mended(
    offline: Cell, remote: Remote
) -> None:
    """Of three one is old, one new, one half unpacked, so that none can be mended by itself; a
    fourth was half unpacked in its old version, which apt does not mend without being told.
    """
    cell = offline
    remote(cell, "cat > /root/index", INDEX_PACKAGES)
    remote(cell, f"dpkg --install {' '.join(_shop_packages(cell, remote, '/srv/old', '1', ''))}")
    new = _shop_packages(cell, remote, "/srv/new", "2", KILLS_ITS_DPKG_ONCE)
    remote(cell, "cd /srv/new && python3 /root/index *.deb > Packages && touch /root/killed")
    _program, library, data, theme = new
    remote(cell, f"dpkg --unpack {library}")
    remote(cell, f"! dpkg --unpack {data}; ! dpkg --unpack {theme}")
    assert remote(cell, SHOP_STATES) == "1 ii ,2 iU ,1 iHR,1 iHR,"

    status, record = _patched(cell, "half-unpacked", "deb [trusted=yes] file:/srv/new ./\n")

    assert status == 0, text_of(record / "log")[-3000:]
    assert remote(cell, SHOP_STATES) == "2 ii ,2 ii ,2 ii ,1 ii ,"


def test_an_update_on_hold_is_a_warning_and_no_failure(offline: Cell, remote: Remote) -> None:
    cell = offline
    remote(cell, "cat > /root/index", INDEX_PACKAGES)
    remote(cell, f"dpkg --install {_built_package(cell, remote, 'kept', '')}")
    _built_package(cell, remote, "kept", "", version="2", directory="/srv/hold")
    remote(cell, "cd /srv/hold && python3 /root/index *.deb > Packages && apt-mark hold kept")

    status, record = _patched(cell, "on-hold", "deb [trusted=yes] file:/srv/hold ./\n")

    assert status == 0, text_of(record / "log")[-3000:]
    result = json.loads((record / "result.json").read_text())
    assert result["warnings"] == ["kept is on hold and was not upgraded"]
    remote(cell, "dpkg --purge --force-hold kept")


def test_a_patch_for_security_without_a_source_of_it_is_a_warning(offline: Cell) -> None:
    security = json.dumps({"only_security": True, "time_limit": 3600})

    status, record = _patched(offline, "no-security", "", security)

    assert status == 0, text_of(record / "log")[-3000:]
    result = json.loads((record / "result.json").read_text())
    report = patch_report(result)
    assert report.warnings == ("the server has no source of security updates",)


def _shop_packages(
    cell: Cell, remote: Remote, directory: str, version: str, preinst: str
) -> list[str]:
    """A program, its library and the library's data, which need each other's version, and a theme
    of which there is one version only. The preinst is of the last two.
    """

    def built(name: str, version: str, needs: str = "", preinst: str = "") -> str:
        depends = f"Depends: {needs}\n" if needs else ""
        return _built_package(
            cell, remote, name, depends, version=version, directory=directory, preinst=preinst
        )

    return [
        built("shop", version, needs=f"shop-lib (= {version})"),
        built("shop-lib", version, needs=f"shop-lib-data (>= {version})"),
        built("shop-lib-data", version, preinst=preinst),
        built("shop-theme", "1", preinst=preinst),
    ]


OLD_LIBRARY = "/usr/local/lib/libold.so"
USES_OLD_LIBRARY = f"""#!/usr/bin/python3
import ctypes, os, time
ctypes.CDLL("{OLD_LIBRARY}")
print("loaded", flush=True)
while not os.path.exists("/run/end"):
    time.sleep(0.1)
"""


def test_needrestart_restarts_services_but_no_run_of_ours(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("needrestart")
    remote(cell, f"cp /lib/*-linux-gnu/libbz2.so.1.0 {OLD_LIBRARY}")
    run("patch", cell, **_run_request("job.patch.1", USES_OLD_LIBRARY))
    remote(cell, "apt-get -qq update && apt-get -qq install needrestart")
    remote(cell, "cat > /usr/local/bin/shop && chmod 755 /usr/local/bin/shop", USES_OLD_LIBRARY)
    remote(cell, "systemd-run --quiet --unit=shop /usr/local/bin/shop")
    ours, theirs = "managed-run-job.patch.1", "shop"
    pids = {unit: _main_pid(cell, remote, unit) for unit in (ours, theirs)}
    wait_until(
        lambda: remote(cell, f"grep -l {OLD_LIBRARY} /proc/[0-9]*/maps || true").count("\n") == 2,
        timeout=60,
        what="run and service have loaded the library",
    )
    remote(cell, f"cp {OLD_LIBRARY} /root/new && mv /root/new {OLD_LIBRARY}")
    package = _built_package(cell, remote, "small", "")

    remote(cell, f"NEEDRESTART_MODE=a apt-get -qq install {package}")

    assert _main_pid(cell, remote, theirs) != pids[theirs], "needrestart has done its work"
    assert _main_pid(cell, remote, ours) == pids[ours]
    remote(cell, "touch /run/end")
    record = cell.root_dir / "var/lib/managed/runs/job.patch.1"
    wait_until(lambda: (record / "status").exists(), timeout=60, what="the run ends")
    assert (record / "status").read_text().strip() == "0"


INDEX_PACKAGES = """
import hashlib, subprocess, sys
for name in sys.argv[1:]:
    content = open(name, "rb").read()
    print(subprocess.check_output(["dpkg-deb", "--field", name], text=True).strip())
    print(f"Filename: ./{name}\\nSize: {len(content)}")
    print(f"SHA256: {hashlib.sha256(content).hexdigest()}\\n")
"""
"""Prints the index of a repository that apt can read."""


def _built_package(
    cell: Cell,
    remote: Remote,
    name: str,
    more: str,
    *,
    version: str = "1",
    directory: str = "/root",
    preinst: str = "",
) -> str:
    """A package without files, built on the cell; its path there."""
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nDescription: test\n"
        f"Maintainer: test <test@example.org>\n{more}"
    )
    source = f"{directory}/{name}"
    remote(cell, f"mkdir -p {source}/DEBIAN && cat > {source}/DEBIAN/control", control)
    if preinst:
        remote(cell, f"cat > {source}/DEBIAN/preinst && chmod 755 {source}/DEBIAN/preinst", preinst)
    remote(cell, f"dpkg-deb --build {source} {source}.deb")
    return f"{source}.deb"


def _main_pid(cell: Cell, remote: Remote, unit: str) -> int:
    return int(remote(cell, f"systemctl show --property=MainPID --value {unit}.service"))


def _patched(cell: Cell, run_id: str, sources: str, updates: str = UPDATES) -> tuple[int, Path]:
    """The exit status and the record of a run that installs the updates which this sources.list
    has. The playbook only starts such a run; so here nothing but the run is of interest.
    """
    (cell.root_dir / "etc/apt/sources.list").write_text(sources)
    request = RunRequest(run_id, script_source("apply_updates"), arguments=(updates,))
    SshRuns(SshShell()).start(cell.endpoint, request)
    record = cell.root_dir / "var/lib/managed/runs" / run_id
    wait_until(lambda: (record / "status").exists(), timeout=300, what="the run ends")
    return int((record / "status").read_text()), record


def _patch_request(run_id: str) -> Mapping[str, Json]:
    return _run_request(run_id, script_source("apply_updates"), UPDATES)


def _run_request(run_id: str, script: str, *arguments: str) -> Mapping[str, Json]:
    request = RunRequest(run_id, script, arguments=arguments)
    path, source = runner_file()
    return {
        "patch_run_id": run_id,
        "patch_request": request_document(request).decode(),
        "patch_runner_path": path,
        "patch_runner_source": source.decode(),
    }


def _health(cell: Cell, remote: Remote) -> HealthReport:
    return health_report(json.loads(remote(cell, "python3 -", script_source("check_health"))))
