"""The alert rules that operators are given: each fires at what it names, quiet before, on metrics
that there are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.metrics import Metrics
from managed.domain.copies import SelfBackupState
from managed.domain.secrets import Secret
from managed.storage.numbers import BackupNumbers, Numbers
from managed.wiring import utc_now
from tests.support.promtool import require_content
from workers import heart
from workers.measures import EndedJob, JobMeasures
from workers.schedule import beats

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
_METRIC = re.compile(r"\bmanaged_\w+")
_OF_SCRAPING = {"job", "instance"}


def told(*ended: EndedJob) -> str:
    """What API, workers and clock tell; the workers have ended these jobs."""
    now = utc_now()
    numbers = Numbers(
        open_jobs={("queued", "patch"): 1},
        oldest_unbegun=now,
        abandoned=0,
        overdue_questions=0,
        missed_windows={"patch": 1},
        unreadable_windows=0,
        surveys={},
        backups=BackupNumbers(servers=1, never=0, late=0, oldest=now),
        self_backup=SelfBackupState(last_error="the bucket is away"),
        paused_since=None,
    )
    of_api = Metrics(Secret("token"), lambda _: numbers, lambda: now).text()
    registry = CollectorRegistry()
    measures = JobMeasures(registry)
    beats(registry)
    for job in ended:
        measures.count(job)
    return b"".join((of_api, generate_latest(registry), generate_latest(heart.REGISTRY))).decode()


FAILED = EndedJob("patch", "failed", 3.0, "command-failed", late=2.0)


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((GUIDES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def written_tests() -> list[dict[str, Any]]:
    return list(yaml.safe_load((GUIDES / "alerts.test.yml").read_text())["tests"])


def test_rules_ask_for_metrics_that_there_are() -> None:
    names = {sample.name for sample in samples(told(FAILED))}
    for rule in rules():
        asked = set(_METRIC.findall(rule["expr"]))
        assert asked or rule["expr"].startswith("up{"), rule["alert"]
        assert not asked - names, rule["alert"]


def test_a_rule_names_what_is_to_be_done_and_by_when() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_rules_are_what_prometheus_reads() -> None:
    require_content("check", "rules", str(GUIDES / "alerts.yml"))


def test_the_guides_configuration_is_what_prometheus_reads(tmp_path: Path) -> None:
    guide = (GUIDES / "operations.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(shown)
    (tmp_path / "alerts.yml").symlink_to(GUIDES / "alerts.yml")
    require_content("check", "config", "--syntax-only", str(tmp_path / "prometheus.yml"))
    scraped = {job["job_name"] for job in yaml.safe_load(shown)["scrape_configs"]}
    series = [series["series"] for test in written_tests() for series in test["input_series"]]
    assert set(re.findall(r'job="([^"]*)"', "".join(series))) == scraped


def test_every_rule_fires_and_is_quiet_before() -> None:
    require_content("test", "rules", str(GUIDES / "alerts.test.yml"))
    cases = [case for test in written_tests() for case in test["alert_rule_test"]]
    known = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == known
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == known


def test_rules_are_tested_with_series_that_there_are() -> None:
    there = {(sample.name, frozenset(sample.labels)) for sample in samples(told(FAILED))}
    bounds = {sample.labels["le"] for sample in samples(told()) if "le" in sample.labels}
    for test in written_tests():
        for series in test["input_series"]:
            name, _, rest = series["series"].partition("{")
            labels = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            assert name == "up" or (name, frozenset(labels) - _OF_SCRAPING) in there, series
            assert labels.get("le", "+Inf") in bounds, series


@pytest.mark.parametrize("kind", ["create", "patch", "restore-files"])
def test_what_a_rule_counts_begins_at_zero(kind: str) -> None:
    begun = [
        sample.value
        for sample in samples(told())
        if sample.name == "managed_job_seconds_count"
        and sample.labels == {"kind": kind, "status": "failed"}
    ]
    assert begun == [0.0]


@pytest.mark.parametrize("ended", [(), (FAILED,)], ids=["idle", "at work"])
def test_prometheus_has_nothing_to_say_against_what_it_is_told(ended: tuple[EndedJob, ...]) -> None:
    require_content("check", "metrics", given=told(*ended))
