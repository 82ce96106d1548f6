"""Asks many servers at once what there is to do for them, before a window starts any job.

The clock hands servers over, and later stores what came of it, many rows at once; it never waits
for a server itself. Nothing here has to outlive the process: a server without a row is asked again.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from managed.domain.connections import Endpoint
from managed.domain.documents import parsed_document
from managed.domain.errors import (
    CommandFailed,
    Conflict,
    EvidenceMissing,
    HostKeyChanged,
    LoginRefused,
    ManagedError,
    ServerUnreachable,
)
from managed.domain.jobs import JobKind
from managed.domain.servers import Server
from managed.domain.surveys import Finding, Survey, finding_of, unknown
from managed.domain.windows import Opening
from managed.drivers.ssh.background import background_loop
from managed.server_scripts import script_source
from managed.wiring import Installation
from workers.time_scales import TimeScales

log = structlog.get_logger()

_AT_ONCE: Final = 300
_LOGIN_SECONDS: Final = 20.0
_SURVEY_SECONDS: Final = 120.0
# Bytes; a thousand pending updates make some 200 000.
_LARGEST_ANSWER: Final = 2**20


@dataclass(frozen=True)
class Asked:
    """A server, and the opening for which it is asked."""

    server_id: str
    job_kind: JobKind
    opening: Opening


class Surveys:
    """For one thread, the clock's; the asking is done in the SSH driver's loop."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._under_way: dict[Asked, Future[Survey]] = {}
        self._time_scales = TimeScales(self._time_scale_of)

    @property
    def has_room(self) -> bool:
        return len(self._under_way) < _AT_ONCE

    @property
    def is_asking(self) -> bool:
        """Has some of what was asked not been stored yet?"""
        return bool(self._under_way)

    def is_under_way(self, asked: Asked) -> bool:
        """Also while its answer waits to be stored."""
        return asked in self._under_way

    def ask(self, asked: Asked, *, only_security: bool) -> None:
        """Begin to ask a server that is not being asked."""
        survey = self._survey(asked, only_security)
        self._under_way[asked] = asyncio.run_coroutine_threadsafe(survey, background_loop())

    def store(self, now: datetime) -> None:
        """Store what has come. What the database does not take now is kept for the next time; what
        came after its window had closed is too late, and not stored. Who was cut off from asking
        has no answer, and its server is asked again.
        """
        ended = {asked: survey for asked, survey in self._under_way.items() if survey.done()}
        found = [survey.result() for survey in ended.values() if not survey.cancelled()]
        self._installation.surveys.record([one for one in found if now < one.opening.ends_at])
        for asked in ended:
            del self._under_way[asked]
        for one in found:
            log.info(
                "server_surveyed" if now < one.opening.ends_at else "survey_too_late",
                server_id=one.server_id,
                kind=one.job_kind,
                outcome=one.finding.outcome,
                detail=one.finding.detail,
            )

    def give_up(self) -> None:
        """Ask nobody any more; the process ends."""
        for survey in self._under_way.values():
            survey.cancel()

    async def _survey(self, asked: Asked, only_security: bool) -> Survey:
        began = self._installation.clock()
        finding = await self._finding(asked.server_id, only_security)
        return Survey(asked.server_id, asked.job_kind, asked.opening, began, finding)

    async def _finding(self, server_id: str, only_security: bool) -> Finding:
        """Whatever goes wrong, and on whose side, it is not known then what there is to do. Of what
        went wrong on our side customers are not told.
        """
        try:
            return await self._found_on(server_id, only_security)
        except (
            CommandFailed,
            Conflict,
            EvidenceMissing,
            HostKeyChanged,
            LoginRefused,
            ServerUnreachable,
        ) as error:
            return unknown(error.message)
        except ManagedError as error:
            log.warning(
                "survey_failed", server_id=server_id, error=error.code, detail=error.message
            )
        except Exception as error:
            log.error("survey_defect", server_id=server_id, exc_info=error)
        return unknown("the server could not be asked")

    async def _found_on(self, server_id: str, only_security: bool) -> Finding:
        server, endpoint = await asyncio.to_thread(self._present, server_id)
        time_scale = await self._time_scales.of(server.node_id)
        polls = self._installation.world.polls
        # Who does not let us in is given up soon: its place is another's for the rest of the time.
        await polls.boot_id(endpoint, timeout=_LOGIN_SECONDS * time_scale)
        result = await polls.run(
            endpoint,
            ("python3", "-", json.dumps({"only_security": only_security})),
            stdin=script_source("survey_updates").encode(),
            timeout=_SURVEY_SECONDS * time_scale,
            limit=_LARGEST_ANSWER,
        )
        if result.exit_status != 0:
            said = result.stderr.strip()[-200:]
            raise CommandFailed(f"the survey ended with status {result.exit_status}: {said}")
        # Start files of root's shell may print before the script does.
        last_line = result.stdout.rstrip().rpartition("\n")[2]
        document = parsed_document(last_line.encode(), "the answer to the survey")
        return finding_of(document, only_security, self._installation.clock())

    def _present(self, server_id: str) -> tuple[Server, Endpoint]:
        """The server and the way to it. Conflict when a rescue session answers in its place: of the
        rescue image's packages nothing is to be said. A session that opens later has another host
        key.
        """
        world = self._installation.world
        endpoint, server = world.endpoint(server_id), world.servers.get(server_id)
        if endpoint.host_key != server.host_key:
            raise Conflict("it is in a rescue session")
        return server, endpoint

    def _time_scale_of(self, node_id: str) -> float:
        return self._installation.world.hypervisor_of(node_id).capabilities().time_scale
