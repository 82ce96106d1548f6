"""The events that scripts emit are those that the domain lets through, no more and no less."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from managed import server_scripts
from managed.domain.run_log import SCRIPT_EVENTS

# Which argument of these calls is the event's name.
_NAMES = {"emit": 0, "Progress": 0, "restic.follow": 1}


def event_arguments() -> Iterator[tuple[str, ast.expr]]:
    for path in Path(server_scripts.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).removeprefix("self.")
                if name in _NAMES:
                    yield f"{path.name}:{node.lineno}", node.args[_NAMES[name]]


def test_every_event_of_a_script_is_known_and_every_known_one_is_some_scripts() -> None:
    found = {
        argument.value for _, argument in event_arguments() if isinstance(argument, ast.Constant)
    }
    assert found == SCRIPT_EVENTS


def test_only_what_passes_a_name_on_emits_one_that_is_not_written_there() -> None:
    passed_on = [
        (place.partition(":")[0], ast.unparse(argument))
        for place, argument in event_arguments()
        if not isinstance(argument, ast.Constant)
    ]
    assert sorted(passed_on) == [("_restic.py", "event"), ("_run.py", "self.event")]
