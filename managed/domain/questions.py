"""What a waiting job asks, and the answers that wake it. Values with a JSON form, nothing else.

`RunEnded` asks whether a detached run on the server has ended; with `tunnel` the poller keeps the
reverse tunnel to the backup gateway open meanwhile. `SshAnswers` asks whether the server (or its
rescue session) lets us in with the pinned key, on a boot other than `not_boot_id`; with `console`
nobody knocks before its serial console has printed that text (QEMU's user network keeps early
connection attempts and repeats them to the booting guest, which slows it down).
`PowerIs` asks the hypervisor for a power state. `TimePassed` asks nobody: its wait's limit is all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, get_type_hints

from managed.domain.errors import InvalidInput, Json
from managed.domain.servers import PowerState


@dataclass(frozen=True)
class RunEnded:
    kind: ClassVar[str] = "run-ended"
    run_id: str
    tunnel: bool = False
    offset: int = 0


@dataclass(frozen=True)
class SshAnswers:
    kind: ClassVar[str] = "ssh-answers"
    not_boot_id: str = ""
    console: str = ""


@dataclass(frozen=True)
class PowerIs:
    kind: ClassVar[str] = "power-is"
    state: str = PowerState.STOPPED.value


@dataclass(frozen=True)
class TimePassed:
    kind: ClassVar[str] = "time-passed"


Question = RunEnded | SshAnswers | PowerIs | TimePassed
_KINDS: Mapping[str, type[RunEnded] | type[SshAnswers] | type[PowerIs] | type[TimePassed]] = {
    question.kind: question for question in (RunEnded, SshAnswers, PowerIs, TimePassed)
}


def question_as_json(question: Question) -> dict[str, Json]:
    return {"kind": question.kind, **asdict(question)}


def question_from_json(document: Mapping[str, Json]) -> Question:
    """The question again; raises InvalidInput for one that this version does not know, as a newer
    one beside it may ask: another kind, another field, a value of another type.
    """
    values = {key: value for key, value in document.items() if key != "kind"}
    kind = _KINDS.get(str(document.get("kind")))
    if kind is None:
        raise InvalidInput(f"unknown question kind {document.get('kind')!r}")
    types = get_type_hints(kind)
    for name, value in values.items():
        if type(value) is not types.get(name):
            raise InvalidInput(f"a question {kind.kind!r} has no field {name!r} like this")
    try:
        return kind(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise InvalidInput(f"a field of the question {kind.kind!r} is missing") from error
