"""What benchmarks say at their end."""

from __future__ import annotations

import json

import pytest

from bench._report import percentile, report


def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    report("api", {"p99_ms": 3.0}, {"p99_ms": 2.0}, 1.5, "at most 1.5 times", met=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "bench": "api",
        "product": {"p99_ms": 3.0},
        "rival": {"p99_ms": 2.0},
        "ratio": 1.5,
        "goal": "at most 1.5 times",
        "met": True,
    }


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value
