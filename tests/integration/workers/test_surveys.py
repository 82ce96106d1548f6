"""Surveys of real servers: what apt, dpkg and the kernel say there, and what follows from it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from managed.domain.jobs import Job
from managed.domain.surveys import Survey, SurveyOutcome
from managed.lab.cell_processes import process_ids
from managed.lab.cells import Cell
from managed.settings import Settings
from managed.wiring import open_installation, prepare_installation, utc_now
from tests.support.apt_repository import AptRepository, Package, apt_repositories
from tests.support.cells import StartCell
from tests.support.runtime import short_directory
from tests.support.surveyed_servers import OpenWindow, on_cell, open_patch_window
from tests.support.waiting import wait_until
from workers import surveys as surveys_module
from workers.openings import Openings
from workers.surveys import Surveys

pytestmark = [pytest.mark.cell, pytest.mark.timeout(300)]

SHOP = Package("shop", "1")
NEWER = Package("shop", "2")


@dataclass
class Night:
    """The clock's part in a window that is open, on real servers."""

    window: OpenWindow
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.installation = self.window.installation
        self.surveys = Surveys(self.installation)
        self.openings = Openings(self.installation, self.surveys, self.sent.append)

    def jobs(self) -> list[Job]:
        return list(self.installation.queue.find())

    def tick(self) -> None:
        self.surveys.store(utc_now())
        self.openings.start(utc_now())

    def survey_of(self, cell: Cell) -> Survey:
        """Bring the cell under management and wait until it has been surveyed."""
        server_id = self.window.add(cell)

        def is_surveyed() -> bool:
            self.tick()
            return self.window.survey(server_id) is not None

        wait_until(is_surveyed, timeout=120, what="the server has been surveyed")
        self.tick()
        found = self.window.survey(server_id)
        assert found is not None
        return found

    def require_missed_nothing(self) -> None:
        self.openings.record_missed(self.window.opening.ends_at)
        assert self.installation.windows.missed(since=self.window.opening.starts_at) == []


@contextmanager
def night_of(directory: Path, *, only_security: bool = False) -> Iterator[Night]:
    with short_directory() as runtime:
        settings = Settings(
            state_dir=directory,
            runtime_dir=runtime,
            s3_endpoint="http://127.0.0.1:1",
            s3_access_key="no-key-of-any-account",
        )
        prepare_installation(settings)
        installation = open_installation(settings)
        night = Night(open_patch_window(installation, only_security=only_security))
        try:
            yield night
        finally:
            night.surveys.give_up()
            installation.database.dispose()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with night_of(tmp_path / "state") as opened:
        yield opened


@pytest.fixture(scope="module")
def surveyed_cell(start_test_cell: StartCell) -> Cell:
    return start_test_cell("surveyed")


@pytest.fixture
def repository(surveyed_cell: Cell, tmp_path: Path) -> Iterator[AptRepository]:
    """The cell's only source of packages; the newest one is installed there, alone and whole."""
    with apt_repositories(tmp_path / "packages", ["shop"]) as (made,):
        made.publish([SHOP])
        set_sources(surveyed_cell, made.source)
        on_cell(
            surveyed_cell,
            "apt-get -qq update && apt-get -qq --allow-downgrades install shop=1",
        )
        yield made
        on_cell(surveyed_cell, "dpkg --purge --force-all shop")


@contextmanager
def changed(cell: Cell, change: str, back: str) -> Iterator[None]:
    """For the time of the block a shell command has changed the cell, and another takes it back."""
    try:
        on_cell(cell, change)
        yield
    finally:
        on_cell(cell, back)


def set_sources(cell: Cell, text: str) -> None:
    (cell.root_dir / "etc/apt/sources.list").write_text(text)


def test_a_server_that_is_up_to_date_gets_no_job_and_has_missed_nothing(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.NOTHING_TO_DO, survey
    assert night.jobs() == []
    night.require_missed_nothing()
    assert on_cell(surveyed_cell, "ls -d /tmp/managed-survey-* || true") == ""


def test_an_update_that_was_published_since_starts_the_job(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    """The server's own lists do not know of it yet."""
    repository.publish([NEWER])
    survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.WORK
    assert survey.finding.found["updates"] == 1
    (job,) = night.jobs()
    assert night.sent == [job.job_id]
    assert job.run_key == survey.opening.run_key
    assert on_cell(surveyed_cell, "dpkg-query --show -f '${Version}' shop") == "1", "not yet done"


def test_a_dead_repository_is_unknown_and_starts_the_job(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    """`apt-get update` would end with status 0, and the lists of before say: up to date."""
    set_sources(surveyed_cell, f"{repository.source}deb http://127.0.0.1:9/debian bookworm main\n")
    survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.UNKNOWN
    assert survey.finding.detail.startswith("the package lists could not be fetched")
    assert "127.0.0.1:9" in survey.finding.detail
    assert len(night.jobs()) == 1


def test_without_sources_nothing_is_proven(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    set_sources(surveyed_cell, "")
    survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.UNKNOWN
    assert "no package lists" in survey.finding.detail
    assert len(night.jobs()) == 1


@pytest.mark.parametrize(
    ("stable", "security", "outcome"),
    [
        ([NEWER], [SHOP], SurveyOutcome.NOTHING_TO_DO),
        ([SHOP], [NEWER], SurveyOutcome.WORK),
        ([NEWER], None, SurveyOutcome.UNKNOWN),
    ],
)
def test_a_plan_of_security_updates_has_no_other_work_if_there_is_a_source_of_these(
    tmp_path: Path,
    surveyed_cell: Cell,
    repository: AptRepository,
    stable: list[Package],
    security: list[Package] | None,
    outcome: SurveyOutcome,
) -> None:
    repository.publish(stable, "stable")
    with (
        night_of(tmp_path / "security", only_security=True) as night,
        apt_repositories(tmp_path / "more", ["security"]) as (second,),
    ):
        if security is not None:
            second.publish(security, "stable-security")
            set_sources(surveyed_cell, repository.source + second.source)
        survey = night.survey_of(surveyed_cell)
        assert survey.finding.outcome is outcome, survey
        assert len(night.jobs()) == (1 if outcome.starts_a_job else 0)
        assert survey.finding.found["newest_release_at"] is not None
        if outcome is SurveyOutcome.UNKNOWN:
            assert survey.finding.detail == "it has no source of security updates"


def test_an_update_on_hold_is_named_and_no_work(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    repository.publish([NEWER])
    with changed(surveyed_cell, "apt-mark hold shop", "apt-mark unhold shop"):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.NOTHING_TO_DO
    assert survey.finding.detail == "everything is up to date; on hold: shop"


def test_a_reboot_that_is_due_is_work(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    with changed(surveyed_cell, "touch /run/reboot-required", "rm /run/reboot-required"):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.WORK
    assert "a reboot is needed: the distribution asks for it" in survey.finding.detail
    assert len(night.jobs()) == 1


def test_a_package_that_is_not_whole_is_work(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    repository.publish([SHOP, Package("broken", "1", postinst="exit 1\n")])
    break_it = "apt-get -qq update; ! apt-get -qq install broken"
    with changed(surveyed_cell, break_it, "dpkg --purge --force-all broken"):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.WORK
    assert "dpkg is not content" in survey.finding.detail


def test_a_patch_without_a_good_end_is_work(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    begin = "mkdir -p /var/lib/managed && touch /var/lib/managed/patch.json"
    with changed(surveyed_cell, begin, "rm /var/lib/managed/patch.json"):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.detail == "an earlier patch did not come to a good end"


HOLDS_THE_LOCK = (
    "import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'w');"
    " fcntl.lockf(file, fcntl.LOCK_EX); open('/run/locked', 'w'); time.sleep(600)"
)


def test_a_survey_waits_for_no_other_package_manager(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    hold = f'systemd-run --quiet --unit=holder python3 -c "{HOLDS_THE_LOCK}"'
    with changed(surveyed_cell, hold, "systemctl stop holder; rm -f /run/locked"):
        wait_until(
            lambda: on_cell(surveyed_cell, "ls /run/locked || true"),
            timeout=30,
            what="it is locked",
        )
        began = time.monotonic()
        survey = night.survey_of(surveyed_cell)
        assert time.monotonic() - began < 40
    assert survey.finding.outcome is SurveyOutcome.UNKNOWN
    assert "lock was not free" in survey.finding.detail
    assert len(night.jobs()) == 1


def test_a_server_without_python_is_unknown(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    away = (
        "mv /usr/bin/python3 /usr/bin/python3.away",
        "mv /usr/bin/python3.away /usr/bin/python3",
    )
    with changed(surveyed_cell, *away):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.UNKNOWN
    assert "status 127" in survey.finding.detail


def test_what_a_login_shell_prints_is_no_part_of_the_answer(
    night: Night, surveyed_cell: Cell, repository: AptRepository
) -> None:
    print_first = "cp /root/.bashrc /root/kept; echo 'echo {}' > /root/.bashrc"
    with changed(surveyed_cell, print_first, "mv /root/kept /root/.bashrc"):
        survey = night.survey_of(surveyed_cell)
    assert survey.finding.outcome is SurveyOutcome.NOTHING_TO_DO


def test_one_hung_server_delays_no_other_and_is_unknown_in_the_end(
    night: Night,
    surveyed_cell: Cell,
    repository: AptRepository,
    start_test_cell: StartCell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is given up when its login is, long before a survey's time is over."""
    monkeypatch.setattr(surveys_module, "_LOGIN_SECONDS", 15.0)
    hung = start_test_cell("hung")
    hung_id = night.window.add(hung)
    for process in process_ids(hung.group):
        os.kill(process, signal.SIGSTOP)
    night.tick()

    assert night.survey_of(surveyed_cell).finding.outcome is SurveyOutcome.NOTHING_TO_DO
    assert night.window.survey(hung_id) is None, "it is being asked still"

    def is_surveyed() -> bool:
        night.tick()
        return bool(night.jobs())

    wait_until(is_surveyed, timeout=60, what="the hung one is given up")
    survey = night.window.survey(hung_id)
    assert survey is not None
    assert survey.finding.outcome is SurveyOutcome.UNKNOWN
    assert "time is up" in survey.finding.detail
    assert [job.server_id for job in night.jobs()] == [hung_id]
