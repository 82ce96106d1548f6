"""Requests that may be sent twice: the same Idempotency-Key and request get the same answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar, cast

from fastapi import Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection

from api.auth import Caller
from api.dependencies import Services
from managed.domain.audit import Deed
from managed.domain.errors import Conflict, Json, NotFound
from managed.storage import audit
from managed.storage.database import reading, writing
from managed.storage.idempotency import keep_answer, kept_answer

Prepared = TypeVar("Prepared")

_LONGEST_KEY: Final = 120

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=_LONGEST_KEY,
        description="Any text of your choice, such as a UUID. The same key with the same request"
        " gives the same answer, and the work is done once; with another request it is refused.",
        examples=["6f1f5a0e-5b0c-4b65-8a2e-1f2b8b6a9d11"],
    ),
]


@dataclass(frozen=True)
class Answer:
    """What a request did. `job_id` is the job that workers are to hear of after the commit.
    `subject` is the id of what it was done to, a server's where there is one, `facts` the
    particulars, and `reason` why where the caller does not say, all for the audit log; without
    `changed` there is nothing for it.
    """

    status: int
    body: BaseModel
    location: str = ""
    job_id: str = ""
    subject: str = ""
    facts: Mapping[str, Json] = field(default_factory=dict)
    reason: str = ""
    changed: bool = True


@dataclass(frozen=True)
class Once:
    """One request of one caller, to be carried out in one transaction together with its entry in
    the audit log, and once per key. `action` is the name of what is done there.
    """

    services: Services
    caller: Caller
    key: str | None
    digest: str
    action: str

    def answer(
        self, prepare: Callable[[], Prepared], work: Callable[[Connection, Prepared], Answer]
    ) -> JSONResponse:
        """Do the work in one transaction, or give the answer that this key got before."""
        document, replayed = self.outcome(prepare, work)
        return _response(document, replayed=replayed)

    def outcome(
        self, prepare: Callable[[], Prepared], work: Callable[[Connection, Prepared], Answer]
    ) -> tuple[Mapping[str, Json], bool]:
        """The same as a document with status, location and body, and whether it is a replay.

        `prepare` reads and checks; it comes first, because a transaction that waited for another
        connection while others wait for its lock could wait for ever. A duplicate that comes at
        the same moment finds what the first one has taken (its server busy, its name used): then
        the first one's answer is the right one.
        """
        earlier = self._read_earlier()
        if earlier is not None:
            return earlier, True
        try:
            document, job_id = self._carry_out(prepare(), work)
        except (Conflict, NotFound):
            earlier = self._read_earlier()
            if earlier is None:
                raise
            return earlier, True
        if job_id:
            self.services.send(job_id)
        return document, False

    def _carry_out(
        self, prepared: Prepared, work: Callable[[Connection, Prepared], Answer]
    ) -> tuple[Mapping[str, Json], str]:
        with writing(self.services.database) as connection:
            if self._earlier(connection) is not None:
                raise Conflict("this request has just been carried out")
            made = work(connection, prepared)
            document = _document(made)
            self._keep(connection, document)
            if made.changed:
                audit.record(connection, self._deed(made))
        return document, made.job_id

    def _read_earlier(self) -> Mapping[str, Json] | None:
        if self.key is None:
            return None
        with reading(self.services.database) as connection:
            return self._earlier(connection)

    def _earlier(self, connection: Connection) -> Mapping[str, Json] | None:
        if self.key is None:
            return None
        return kept_answer(connection, self._stored_key, self.digest)

    def _keep(self, connection: Connection, document: Mapping[str, Json]) -> None:
        if self.key is not None:
            now = self.services.clock()
            keep_answer(connection, self._stored_key, self.digest, document, now)

    def _deed(self, made: Answer) -> Deed:
        facts = dict(made.facts)
        if made.job_id:
            facts["job_id"] = made.job_id
        if token := self.caller.principal.token_id:
            facts["token_id"] = token
        return Deed(
            at=self.services.clock(),
            actor=self.caller.name,
            action=self.action,
            subject=made.subject,
            reason=self.caller.reason or made.reason,
            data=facts,
        )

    @property
    def _stored_key(self) -> str:
        """Of one length: names and keys may be longer together than a column of the table."""
        return hashlib.sha256(f"{self.caller.name}\0{self.key}".encode()).hexdigest()


def once(
    services: Services, caller: Caller, key: str | None, request: Request, body: BaseModel | None
) -> Once:
    content = body.model_dump(mode="json") if body is not None else None
    text = json.dumps([request.method, request.url.path, content], sort_keys=True)
    action: str = request.scope["endpoint"].__name__
    return Once(services, caller, key, hashlib.sha256(text.encode()).hexdigest(), action)


def _document(answer: Answer) -> dict[str, Json]:
    return {
        "status": answer.status,
        "location": answer.location,
        "body": answer.body.model_dump(mode="json"),
    }


def _response(document: Mapping[str, Json], *, replayed: bool) -> JSONResponse:
    headers = {}
    if document["location"]:
        headers["Location"] = str(document["location"])
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(document["body"], cast(int, document["status"]), headers)
