"""The demo's report: steps with times and evidence, as a file and as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from managed.domain.text import without_controls

NOT_REACHED = "not reached"


@dataclass
class DemoStep:
    """`evidence` is filled while the step works; `status` is ok, failed or not reached."""

    name: str
    status: str = NOT_REACHED
    seconds: float = 0.0
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass
class DemoReport:
    """Written anew after every step, so that an interrupted demo leaves what it knew."""

    path: Path
    steps: tuple[DemoStep, ...]

    @classmethod
    def begin(cls, path: Path, names: tuple[str, ...]) -> DemoReport:
        report = cls(path, tuple(DemoStep(name) for name in names))
        report.write()
        return report

    @property
    def is_ok(self) -> bool:
        return all(step.status == "ok" for step in self.steps)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time the step and take its evidence; a step that raises has failed."""
        step = next(step for step in self.steps if step.name == name)
        began = time.monotonic()
        step.status = "failed"
        try:
            yield step.evidence
            step.status = "ok"
        except BaseException as error:
            step.evidence["error"] = str(error) or type(error).__name__
            raise
        finally:
            step.seconds = round(time.monotonic() - began, 1)
            self.write()

    def write(self) -> None:
        document: Mapping[str, Any] = {"ok": self.is_ok, "steps": [vars(s) for s in self.steps]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".new")
        unfinished.write_text(json.dumps(document, indent=1) + "\n")
        unfinished.replace(self.path)

    def show(self, console: Console) -> None:
        table = Table(title="The main job on a real VPS")
        for heading in ("step", "status", "seconds", "evidence"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for step in self.steps:
            colour = "green" if step.status == "ok" else "red"
            summary = str(step.evidence.get("summary") or step.evidence.get("error") or "")
            row = (step.name, Text(step.status, colour), f"{step.seconds:.1f}")
            table.add_row(*row, Text(without_controls(summary)))
        total = sum(step.seconds for step in self.steps)
        table.add_row("", "", f"{total:.1f}", "all together")
        console.print(table)
