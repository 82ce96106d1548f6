"""What senders of tickets are told. The texts hold what happened on their own server and nothing
else: no secrets, no addresses or errors of ours, nothing of servers that are not theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from managed.domain.documents import list_in, mapping_in
from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.plain_text import one_line
from managed.domain.requests import Request

_SHOWN_PACKAGES: Final = 40
_SHOWN_ITEMS: Final = 20
_FIRST_PAUSE: Final = timedelta(seconds=30)
_LONGEST_PAUSE: Final = timedelta(hours=1)

UNKNOWN_SENDER: Final = (
    "Thank you for your message. We could not match it to a server of yours, so nothing was done."
    "\n\nPlease write from the e-mail address that your contract has, and name your server. If you"
    " have done so, a person of our support will look at it."
)
"""The same whether such a server exists or not: the answer tells a stranger nothing."""


@dataclass(frozen=True)
class Reply:
    """One answer to a ticket. `reference` stands in its text, so that it can be found there: with
    it nobody answers twice. `to` is an e-mail address; empty for an article in the ticket alone.
    """

    reference: str
    ticket_id: int
    to: str
    subject: str
    text: str

    @property
    def body(self) -> str:
        return f"{self.text}\n\n{reference_line(self.reference)}"


def reference_line(reference: str) -> str:
    return f"Reference: {reference}"


def reply_to(request: Request, text: str) -> Reply:
    """The text as the answer to the request's ticket, on the way that its sender came."""
    ticket = request.ticket
    return Reply(
        reference=request.request_id,
        ticket_id=ticket.ticket_id,
        to=ticket.sender if ticket.by_email else "",
        subject=one_line(f"Re: {ticket.title}", 250),
        text=text,
    )


def next_try(attempts: int, now: datetime) -> datetime:
    """When an answer that could not be sent is tried again, after so many tries."""
    return now + min(_FIRST_PAUSE * float(2 ** min(attempts - 1, 20)), _LONGEST_PAUSE)


def refusal_text(reason: str) -> str:
    return f"We have not done what you asked for.\n\n{reason}"


def result_text(server_name: str, job: Job) -> str:
    """What became of an approved request: told by what its ended job recorded."""
    lines = _good_end(server_name, job) if job.status is JobStatus.SUCCEEDED else _bad_end(job)
    return "\n".join(lines)


def _good_end(server_name: str, job: Job) -> Iterator[str]:
    yield f"Done: {_DONE.get(job.kind.value, job.kind.value)} on {server_name}."
    yield ""
    yield from _evidence(job)
    shown = [one_line(text, 300) for text in job.warnings[:_SHOWN_ITEMS]]
    if shown:
        yield ""
        yield "Please note:"
        yield from (f"- {text}" for text in shown)


def _bad_end(job: Job) -> Iterator[str]:
    what = _DONE.get(job.kind.value, job.kind.value)
    ended = "was called off" if job.status is JobStatus.CANCELLED else "failed"
    yield f"What you asked for ({what}) {ended}."
    yield ""
    error = job.error or {}
    failed = next((step.name for step in reversed(job.steps) if step.error), "")
    if job.status is JobStatus.FAILED:
        where = f' at the step "{failed.replace("_", " ")}"' if failed else ""
        yield f"It ended{where}: {error.get('title') or 'the reason is not known'}."
        yield from _listed("Worse than before:", _texts(mapping_in(error, "data"), "regressions"))
    done = [step.name for step in job.steps if step.error is None and not step.status.is_undo]
    if done:
        yield f"Before that was done: {', '.join(name.replace('_', ' ') for name in done)}."
    if any(step.status.is_undo for step in job.steps):
        yield "What could be taken back was taken back."
    yield "A person of our support looks at it and will write to you."


_DONE: Final[Mapping[str, str]] = {
    JobKind.PATCH: "updates",
    JobKind.RESCUE: "start of the rescue system",
    JobKind.RESTORE: "restore of the whole server",
    JobKind.RESTORE_FILES: "restore of files",
}


def _evidence(job: Job) -> Iterator[str]:
    results = {step.name: step.result for step in job.steps if step.error is None}
    if job.kind is JobKind.PATCH:
        yield from _patched(results)
    elif job.kind is JobKind.RESTORE:
        yield from _restored(results)
    elif job.kind is JobKind.RESCUE:
        yield "The server now runs our rescue system, with its own disk attached."
        yield "A person of our support goes on from here."
    else:
        yield from _restored_files(job, results)


def _patched(results: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    update, after = results.get("update", {}), results.get("check_after", {})
    changed = changed_packages(
        mapping_in(update, "packages_before"), mapping_in(update, "packages_after")
    )
    yield f"Packages changed: {len(changed)}."
    yield from (f"- {line}" for line in changed[:_SHOWN_PACKAGES])
    if len(changed) > _SHOWN_PACKAGES:
        yield f"- and {len(changed) - _SHOWN_PACKAGES} more"
    kernels = [_kernel(results.get("check_before", {})), _kernel(after)]
    yield f"Kernel before: {kernels[0]}. Kernel now: {kernels[1]}."
    rebooted = results.get("reboot", {}).get("rebooted") is True
    yield "The server was rebooted." if rebooted else "The server was not rebooted."
    if "health" in after:
        yield "Its health was checked before and after: nothing is worse than before."


def _restored(results: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    chosen, restored = results.get("choose", {}), results.get("restore", {})
    yield f"The backup is from {_word(chosen, 'time')}, with {_word(chosen, 'files')} files."
    yield f"Compared with that backup's list after the restore: {_word(restored, 'checked')} paths,"
    yield f"of which {_word(restored, 'equal')} are exactly as they were."
    rewritten = _objects(restored, "rewritten")
    written = [f"{_word(one, 'path')}: {_word(one, 'reason')}" for one in rewritten]
    yield from _listed("Written anew, since that is part of a restore:", written)
    databases = _objects(results.get("load_databases", {}), "databases")
    loaded = [f"{_word(one, 'kind')} {_word(one, 'name')}" for one in databases]
    yield from _listed("Databases loaded from their dumps:", loaded)
    if "health" in results.get("check", {}):
        yield f"It has booted (kernel {_kernel(results['check'])}), and its health was checked."


def _restored_files(job: Job, results: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    chosen, restored = results.get("choose", {}), results.get("restore", {})
    yield from _listed("Restored:", _texts(job.parameters, "paths"))
    yield f"The backup is from {_word(chosen, 'time')}."
    yield f"Compared with that backup's list: {_word(restored, 'checked')} files and folders."
    if job.parameters.get("target") == "beside":
        yield f"They are in the folder {_word(chosen, 'place')}: nothing was overwritten."


def changed_packages(before: Mapping[str, Json], after: Mapping[str, Json]) -> Sequence[str]:
    """What became of each package that is not as before, by name."""
    changed = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        said = f"{old} -> {new}" if old and new else f"installed {new}" if new else "removed"
        changed.append(one_line(f"{name}: {said}", 200))
    return changed


def _listed(heading: str, items: Sequence[str]) -> Iterator[str]:
    """Nothing where there is nothing to list."""
    if not items:
        return
    yield heading
    yield from (f"- {one_line(item, 300)}" for item in items[:_SHOWN_ITEMS])
    if len(items) > _SHOWN_ITEMS:
        yield f"- and {len(items) - _SHOWN_ITEMS} more"


def _kernel(result: Mapping[str, Json]) -> str:
    return _word(mapping_in(result, "health"), "kernel")


def _word(document: Mapping[str, Json], name: str) -> str:
    """One value for a sentence. It may come from the server, whose root writes what he likes."""
    value = document.get(name)
    return "not recorded" if value in (None, "") else one_line(str(value), 300)


def _objects(document: Mapping[str, Json], name: str) -> Sequence[Mapping[str, Json]]:
    return [item for item in list_in(document, name) if isinstance(item, dict)]


def _texts(document: Mapping[str, Json], name: str) -> Sequence[str]:
    return [str(item) for item in list_in(document, name)]
