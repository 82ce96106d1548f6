"""Files and folders restored on real cells, by real restic through the real gateway from S3."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from managed.domain.customers import Customer
from managed.domain.errors import Json
from managed.domain.jobs import Job, JobStatus
from managed.lab.cells import Cell
from managed.storage.customers import Customers
from managed.storage.database import open_database, writing
from tests.support.cells import StartCell
from tests.support.file_restores import FileBench
from tests.support.storage import Storage, storage

pytestmark = [pytest.mark.cell, pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = "/srv/backed-up"
SITE = f"{ROOT}/site"

FILL = f"""
import os
os.makedirs(b"{SITE}/deep/er")
os.makedirs(b"{ROOT}/other")
os.chown("{SITE}/deep", 33, 33)
os.chmod("{SITE}/deep", 0o2750)
def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
write("{SITE}/page", b"a page\\n")
os.chmod("{SITE}/page", 0o640)
os.chown("{SITE}/page", 33, 0)
os.setxattr("{SITE}/page", "user.note", b"\\x00\\xff")
os.utime("{SITE}/page", ns=(1, 1234567890123456789))
for name in (b"latin-\\xe8", b"star*[q]?\\\\", b"new\\nline", b"$HOME", b"end \\t"):
    write(b"{SITE}/deep/er/" + name, b"odd " + name)
write("{SITE}/deep/first", b"one file" * 1000)
os.link("{SITE}/deep/first", "{SITE}/second name")
os.link("{SITE}/deep/first", "{ROOT}/other/third name")
os.symlink("page", "{SITE}/link")
os.mkfifo("{SITE}/pipe")
os.makedirs("{SITE}/empty")
write("{ROOT}/other/large", os.urandom(200_000))
"""


@dataclass
class Stage:
    """A server with one backup of ROOT, which every test finds as it was backed up."""

    bench: FileBench
    cell: Cell
    server_id: str
    snapshot_id: str

    def restore(self, *paths: str, **parameters: Any) -> Job:
        given = {"snapshot_id": self.snapshot_id, "paths": list(paths), **parameters}
        return self.bench.restore(self.server_id, **given)

    def on(self, script: str) -> str:
        return self.bench.on(self.cell, script)

    def listed(self, folder: str, cell: Cell | None = None) -> str:
        """Every property of every file below it, the same for equal trees."""
        scripts = (
            "find . -printf '%P %y %m %U %G %T@ %l\\n' | sort",
            "find . -type f -print0 | sort -z | xargs -0r sha256sum",
            "find . -type f -printf '%i\\n' | sort | uniq -d | sed 's/.*/several names/'",
            "python3 -c \"import os; print(os.listxattr('page'))\" 2>&1 | tail -1",
        )
        return "".join(
            self.bench.on(cell or self.cell, f"cd '{folder}' && {script}") for script in scripts
        )


@pytest.fixture(scope="module")
def place() -> Iterator[Storage]:
    with storage() as running:
        yield running


@pytest.fixture(scope="module")
def bench(
    place: Storage, migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FileBench]:
    path = shutil.copy(migrated_file, tmp_path_factory.mktemp("restores") / "managed.db")
    database = open_database(f"sqlite:///{path}")
    yield FileBench(database, place)
    database.dispose()


@pytest.fixture(scope="module")
def backed_up(bench: FileBench, cell: Cell) -> Stage:
    server_id = bench.add(cell, "shop")
    bench.on(cell, f"rm -rf {ROOT} /var/restored")
    bench.python_on(cell, FILL + "print('null')")
    return Stage(bench, cell, server_id, bench.back_up(server_id))


@pytest.fixture
def stage(backed_up: Stage) -> Iterator[Stage]:
    backed_up.on(f"rm -rf /srv/aside && cp -a {ROOT} /srv/aside")
    yield backed_up
    backed_up.on(f"rm -rf {ROOT} /var/restored && mv /srv/aside {ROOT}")


@pytest.fixture(scope="module")
def other(start_test_cell: StartCell) -> Cell:
    return start_test_cell()


@pytest.fixture(scope="module")
def other_id(bench: FileBench, other: Cell) -> str:
    return bench.add(other, "spare")


def result_of(job: Job, step: str = "restore") -> dict[str, Any]:
    record = job.done_step(step)
    assert record is not None, job.error
    return dict(record.result)


def test_a_folder_and_a_file_come_back_beside_as_they_were(stage: Stage) -> None:
    before = stage.listed(SITE)
    job = stage.restore(SITE, f"{ROOT}/other/large")

    assert job.status is JobStatus.SUCCEEDED, job.error
    found = result_of(job)
    here = f"/var/restored/{job.job_id}"
    assert found["restored"] == [f"{here}{ROOT}/other/large", f"{here}{SITE}"]
    assert found["checked"] == 15
    assert found["safety_snapshot"] is None
    assert stage.listed(f"{here}{SITE}") == before
    assert before.count("several names") == 1
    assert "user.note" in before
    assert stage.on(f"stat -c '%a %U' {here}").split() == ["700", "root"]
    stage.on(f"cmp {ROOT}/other/large {here}{ROOT}/other/large")
    left = stage.on("ls -A /var/lib/managed/restores /var/lib/managed/runs")
    assert job.job_id not in left, "manifest and record of the run are gone"


def test_in_place_after_a_safety_snapshot_and_back_again(stage: Stage) -> None:
    backed_up = stage.listed(SITE)
    spoil = f"""cd {SITE}; echo spoiled >page; chmod 600 page; rm -r deep; echo file >deep
        rm link; ln -s /etc/passwd link; mkdir -p empty/new; echo kept >empty/new/one"""
    stage.on(spoil)
    spoiled = stage.listed(SITE)
    job = stage.restore(SITE, target="in-place")

    assert job.status is JobStatus.SUCCEEDED, job.error
    found = result_of(job)
    assert found["kept_paths"] == [f"{SITE}/empty/new", f"{SITE}/empty/new/one"]
    assert stage.on(f"cat {SITE}/empty/new/one; rm -r {SITE}/empty/new") == "kept\n"
    stage.on(f"touch -d @$(stat -c %.Y /srv/aside/site/empty) {SITE}/empty")
    assert stage.listed(SITE) == backed_up

    [safety] = [r for r in stage.bench.catalogue.of_server(stage.server_id) if r.paths == (SITE,)]
    assert safety.snapshot_id == found["safety_snapshot"]
    assert safety.verified_at is not None
    stage.on(f"rm -r {SITE}/deep")
    again = stage.restore(SITE, target="in-place", snapshot_id=safety.snapshot_id)
    assert again.status is JobStatus.SUCCEEDED, again.error
    assert stage.listed(SITE) == spoiled
    assert stage.on("ls -A /var/lib/managed/restores") == ""


def test_what_is_gone_comes_back_with_the_folders_above_it(stage: Stage) -> None:
    before = stage.on(f"stat -c '%a %u %g %Y' {SITE}/deep")
    stage.on(f"rm -r {SITE}")
    job = stage.restore(f"{SITE}/deep/first", target="in-place")

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert result_of(job)["safety_snapshot"] is None, "there was nothing to be saved"
    assert result_of(job, "take") == {"needed": False}
    assert stage.on(f"stat -c '%a %u %g %Y' {SITE}/deep") == before
    stage.on(f"cmp {SITE}/deep/first '/srv/aside/site/second name'")


def test_a_path_that_is_not_in_the_snapshot_is_an_error_that_names_its_neighbours(
    stage: Stage,
) -> None:
    job = stage.restore(SITE, f"{SITE}/pag")

    assert job.error is not None
    assert job.error["code"] == "not-found"
    assert job.error["hint"] == f"There is {SITE}/page."
    assert [step.name for step in job.steps] == ["choose"]
    assert stage.on("ls /var | grep restored || true") == ""


def test_nothing_is_written_through_a_symlink(stage: Stage) -> None:
    stage.on(f"mv {SITE}/deep /srv/elsewhere && ln -s /srv/elsewhere {SITE}/deep")
    try:
        job = stage.restore(f"{SITE}/deep/first", target="in-place")
        assert job.error is not None
        assert job.error["code"] == "conflict"
        assert f"{SITE}/deep" in str(job.error["detail"])
    finally:
        stage.on("rm -r /srv/elsewhere")


def test_a_filesystem_without_room_is_left_as_it_is(stage: Stage) -> None:
    stage.on("mkdir -p /var/restored && mount -t tmpfs -o size=8m,mode=700 none /var/restored")
    try:
        job = stage.restore(SITE)
        assert job.error is not None
        assert "MiB are free below /var/restored" in str(job.error["detail"])
        assert stage.on("ls -A /var/restored") == ""
    finally:
        stage.on("umount /var/restored")


def test_a_killed_worker_costs_nothing(stage: Stage) -> None:
    stage.bench.dies_after = "restore"
    odd = f"{SITE}/deep/er/star*[q]?\\"
    job = stage.restore(odd)

    assert stage.bench.deaths[-1] == "restore"
    assert job.status is JobStatus.SUCCEEDED, job.error
    assert job.run_number("restore") == 1, "the successor attaches to the same run"
    stage.on(f"cmp '{odd}' '/var/restored/{job.job_id}{odd}'")
    assert result_of(job)["checked"] == 1, "what the pattern would match is not restored"


def test_another_server_gets_files_also_from_the_successor_of_a_killed_worker(
    stage: Stage, other: Cell, other_id: str
) -> None:
    before = stage.listed(SITE)
    stage.bench.transfers.dies = True
    given = {"from_server": stage.server_id, "snapshot_id": stage.snapshot_id}
    paths: list[Json] = [SITE, f"{ROOT}/other/large"]
    job = stage.bench.restore(other_id, paths=paths, **given)

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert not stage.bench.transfers.dies
    here = f"/var/restored/{job.job_id}"
    assert stage.listed(f"{here}{SITE}", other) == before
    assert result_of(job)["checked"] == 15
    stage.bench.on(other, f"test ! -e {SITE}")

    in_place = stage.bench.restore(other_id, paths=paths, target="in-place", **given)
    assert in_place.status is JobStatus.SUCCEEDED, in_place.error
    assert stage.listed(SITE, other) == before


def test_a_server_of_another_customer_gets_nothing(stage: Stage, other_id: str) -> None:
    customers = Customers(stage.bench.database)
    anna = Customer("00000000-0000-4000-8000-0000000000aa", "Anna", "")
    with writing(stage.bench.database) as connection:
        customers.add(connection, anna, stage.bench.clock())
        customers.place(
            connection,
            stage.bench.inventory.get(other_id),
            anna.customer_id,
            None,
            stage.bench.clock(),
        )
    given = {"from_server": stage.server_id, "snapshot_id": stage.snapshot_id}
    job = stage.bench.restore(other_id, paths=[SITE], **given)

    assert job.error is not None
    assert job.error["code"] == "not-supported"
    assert [step.name for step in job.steps] == ["choose"]
