"""Asks the questions of waiting jobs, many servers at once, and wakes the jobs whose answer came.

Nothing here is lost with the process: questions, offsets and answers are in the database, and
another poller beside this one does no harm. While a run needs the backup gateway, the poller keeps
the reverse tunnel to its server open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    HypervisorUnavailable,
    Json,
    ManagedError,
    ServerUnreachable,
    UnknownOutcome,
)
from managed.domain.events import NewEvent
from managed.domain.jobs import Silence
from managed.domain.progress import AnswerOutcome
from managed.domain.questions import PowerIs, Question, RunEnded, SshAnswers, TimePassed
from managed.domain.run_log import events_of_log
from managed.domain.runs import RunReport, RunState
from managed.storage.waiting import OpenQuestion
from managed.wiring import Installation
from workers.queue import send
from workers.tunnels import HeldTunnels

log = structlog.get_logger()

_AT_ONCE = 500
_ASK_SECONDS = 20.0
_NODES_AT_ONCE = 16
_NODE_SECONDS = 60.0

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class StillOpen:
    """No answer yet. `heard` says that the server did answer; `question` is where to go on then.
    `silent` says that it was asked and did not.
    """

    question: Question | None
    events: tuple[NewEvent, ...] = ()
    heard: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Answered:
    facts: Mapping[str, Json]


class Poller:
    def __init__(
        self, installation: Installation, after_round: Callable[[], None] = lambda: None
    ) -> None:
        self._installation = installation
        self._after_round = after_round
        self._world = installation.world
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tunnels = HeldTunnels(self._world)
        # A node may hang: it must not take the threads that the database is written with.
        self._node_threads = ThreadPoolExecutor(_NODES_AT_ONCE, thread_name_prefix="node")
        self._complaints: dict[str, str] = {}

    @property
    def is_asking(self) -> bool:
        """Are questions under way?"""
        return bool(self._under_way)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until told to stop, whatever a round may bring; runs in the SSH driver's loop."""
        pause = self._installation.settings.poll_seconds
        while not stop.is_set():
            try:
                await self.poll_once()
                self._after_round()
            except ManagedError as error:
                log.warning("poll_failed", error=error.code, detail=error.message)
            except Exception:
                log.exception("poller_defect")
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue
        for task in self._under_way.values():
            task.cancel()
        await self._tunnels.close()
        self._node_threads.shutdown(wait=False, cancel_futures=True)

    async def poll_once(self) -> None:
        """Start asking every open question that is not being asked already."""
        questions = await asyncio.to_thread(self._installation.waiting.questions)
        for asked in questions:
            if asked.job_id not in self._under_way:
                task = asyncio.create_task(self._ask(asked))
                self._under_way[asked.job_id] = task
                task.add_done_callback(partial(self._asked, asked.job_id))
        open_jobs = {asked.job_id for asked in questions}
        for job_id in self._complaints.keys() - open_jobs:
            del self._complaints[job_id]
        await self._tunnels.keep_only({q.server_id for q in questions if _needs_tunnel(q)})

    def _asked(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._under_way.pop(job_id, None)

    async def _ask(self, asked: OpenQuestion) -> None:
        """Ask, and write down what came. What cannot be written keeps no wait from its end."""
        async with self._places:
            found = await self._answer(asked)
            try:
                try:
                    await asyncio.to_thread(self._conclude, asked, found)
                except Exception as error:
                    self._complain(asked, error)
                    was_heard = isinstance(found, Answered) or found.heard
                    unread = StillOpen(asked.question, heard=was_heard)
                    await asyncio.to_thread(self._conclude, asked, unread)
            except Exception as error:
                self._complain(asked, error)

    async def _answer(self, asked: OpenQuestion) -> StillOpen | Answered:
        """What the world says. A server that is silent or answers oddly, and what fails on our
        side, leave the question open; an error that time does not mend is an answer.
        """
        try:
            return await self._asked_world(asked)
        except ServerUnreachable:
            return StillOpen(asked.question, silent=True)
        except (CommandFailed, EvidenceMissing) as error:
            self._complain(asked, error)
            return StillOpen(asked.question, silent=True)
        except ManagedError as error:
            if not error.retryable:
                return Answered({"error": error.as_json()})
            self._complain(asked, error)
        except Exception as error:
            self._complain(asked, error)
        return StillOpen(asked.question)

    async def _asked_world(self, asked: OpenQuestion) -> StillOpen | Answered:
        match asked.question:
            case RunEnded() as question:
                return await self._look(asked.server_id, question)
            case SshAnswers() as question:
                return await self._log_in(asked.server_id, question)
            case PowerIs() as question:
                return await self._ask_node(self._power, asked.server_id, question)
            case TimePassed() as question:
                return StillOpen(question, heard=True)
            case None:
                raise UnknownOutcome("only another version of managed can ask this question")

    def _complain(self, asked: OpenQuestion, error: Exception) -> None:
        """Log what went wrong with a question, and not again each second while it is the same."""
        said = f"{type(error).__name__}: {error}"
        if self._complaints.get(asked.job_id) == said:
            return
        self._complaints[asked.job_id] = said
        if isinstance(error, ManagedError):
            log.warning(
                "question_failed", job_id=asked.job_id, error=error.code, detail=error.message
            )
        else:
            log.error("poller_defect", job_id=asked.job_id, exc_info=error)

    async def _ask_node(self, ask: Callable[[str, A], B], server_id: str, question: A) -> B:
        """Call a hypervisor; HypervisorUnavailable when it does not answer in time."""
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._node_threads, ask, server_id, question)
        try:
            return await asyncio.wait_for(answer, _NODE_SECONDS)
        except TimeoutError:
            raise HypervisorUnavailable(
                f"The node has not answered for {_NODE_SECONDS:g} seconds",
                retry_after=_NODE_SECONDS,
            ) from None

    async def _look(self, server_id: str, question: RunEnded) -> StillOpen | Answered:
        if question.tunnel:
            await self._tunnels.ensure(server_id)
        endpoint = await asyncio.to_thread(self._world.endpoint, server_id)
        report = await self._world.polls.look(
            endpoint, question.run_id, question.offset, timeout=_ASK_SECONDS
        )
        now = self._installation.clock()
        said = tuple(NewEvent(now, name, data) for name, data in events_of_log(report.log))
        if report.state is RunState.RUNNING or report.next_offset > question.offset:
            onward = replace(question, offset=report.next_offset)
            return StillOpen(onward, said, heard=True)
        return Answered(_run_facts(report))

    async def _log_in(self, server_id: str, question: SshAnswers) -> StillOpen | Answered:
        if not await self._ask_node(self._has_printed, server_id, question.console):
            return StillOpen(question)
        endpoint = await asyncio.to_thread(self._world.endpoint, server_id)
        boot_id = await self._world.polls.boot_id(endpoint, timeout=_ASK_SECONDS)
        if boot_id == question.not_boot_id:
            return StillOpen(question, heard=True)
        return Answered({"boot_id": boot_id})

    def _has_printed(self, server_id: str, text: str) -> bool:
        if not text:
            return True
        server = self._world.servers.get(server_id)
        return text in self._world.hypervisor(server).console_tail(server_id)

    def _power(self, server_id: str, question: PowerIs) -> StillOpen | Answered:
        server = self._world.servers.get(server_id)
        state = self._world.hypervisor(server).power_state(server_id).value
        if state == question.state:
            return Answered({"state": state})
        return StillOpen(question, heard=True)

    def _conclude(self, asked: OpenQuestion, found: StillOpen | Answered) -> None:
        """Write what was found; the job is told when its wait is over, one way or the other."""
        if isinstance(found, Answered):
            self._wake(asked, AnswerOutcome.ANSWERED, found.facts)
            return
        now, waiting = self._installation.clock(), self._installation.waiting
        if found.heard and found.question is not None:
            waiting.note(asked, found.question, found.events, now)
            asked = replace(asked, last_answer_at=now, silence=Silence())
        elif found.silent:
            asked = replace(asked, silence=asked.silence.after_failed_ask(now))
            waiting.note_silence(asked, asked.silence)
        limit = timedelta(seconds=self._installation.settings.silence_seconds)
        if now >= asked.until:
            self._wake(asked, AnswerOutcome.TIMED_OUT, {})
        elif asked.cancel_requested and asked.silence.is_safe_point(limit):
            self._wake(asked, AnswerOutcome.INTERRUPTED, {})

    def _wake(self, asked: OpenQuestion, outcome: AnswerOutcome, facts: Mapping[str, Json]) -> None:
        if self._installation.waiting.wake(asked, {"outcome": outcome.value, **facts}):
            send(self._installation, asked.job_id)


def _needs_tunnel(asked: OpenQuestion) -> bool:
    return isinstance(asked.question, RunEnded) and asked.question.tunnel


def _run_facts(report: RunReport) -> dict[str, Json]:
    return {
        "state": report.state.value,
        "exit_status": report.exit_status,
        "boot_id": report.boot_id,
    }
