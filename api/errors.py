"""Errors as answers: the one place that knows which HTTP status belongs to which error.

Every error is an RFC 9457 problem document. `code` is stable; `hint` says what to do; `data` holds
plain values. `instance` names this one occurrence and is found in the log of the service.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from managed.domain.errors import (
    Conflict,
    Forbidden,
    InternalError,
    InvalidInput,
    Json,
    ManagedError,
    MissingRequirement,
    NotFound,
    Unauthorized,
    Unavailable,
)
from managed.domain.jobs import JobKind

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
_USUAL_RETRY_SECONDS: Final = 5

_STATUS: Final[Mapping[type[ManagedError], int]] = {
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    Unauthorized: 401,
    Forbidden: 403,
    Unavailable: 503,
    MissingRequirement: 503,
    ManagedError: 500,
}


def status_of(error: ManagedError) -> int:
    """The status of the nearest class above the error that has one."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


class ProblemResponse(JSONResponse):
    """ASCII only, so that a message may quote whatever a request held (half of a surrogate pair
    has no UTF-8 form).
    """

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def problem(
    status: int, document: Mapping[str, Json], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """`document` has at least code, title and detail; type, status and instance are added."""
    content = {
        "type": f"urn:managed:problem:{document['code']}",
        "title": document["title"],
        "status": status,
        "detail": document["detail"],
        "instance": f"urn:uuid:{uuid.uuid4()}",
        **{name: document[name] for name in ("code", "hint", "data") if name in document},
    }
    return ProblemResponse(content, status, dict(headers or {}))


def problem_of(error: ManagedError) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="managed"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(math.ceil(error.retry_after or _USUAL_RETRY_SECONDS))
    return problem(status, error.as_json(), headers)


def install(app: FastAPI) -> None:
    """Have every error of this application answered as a problem document."""
    app.exception_handler(ManagedError)(_managed)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_defect)


def _managed(request: Request, error: ManagedError) -> JSONResponse:
    answer = problem_of(error)
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request_failed", path=request.url.path, error=error.code)
    return answer


def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Names each wrong field; what was given is not repeated, because it may be a secret."""
    found = [(_field(item["loc"]), str(item["msg"])) for item in error.errors()]
    field, message = found[0]
    refusal = InvalidInput(
        f"{field}: {message}" if field else message,
        hint="The OpenAPI document at /docs shows what this route takes.",
        errors=[{"field": name, "message": text} for name, text in found],
    )
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, refusal.as_json())


def _field(location: Sequence[Any]) -> str:
    """Where the value stands in the request, without the tag by which a job's kind is told."""
    source, *parts = location
    if source == "body" and len(parts) > 1 and parts[0] in tuple(JobKind):
        parts = parts[1:]
    return ".".join(str(part) for part in parts if source != "body" or not isinstance(part, int))


def _http(_request: Request, error: HTTPException) -> JSONResponse:
    """What the framework itself refuses: unknown routes and methods, bodies that it cannot read."""
    phrase = HTTPStatus(error.status_code).phrase
    code, usual = _REFUSALS.get(error.status_code, (phrase.lower().replace(" ", "-"), phrase))
    document: dict[str, Json] = {
        "code": code,
        "title": phrase,
        "detail": usual if error.detail == phrase else error.detail,
        "hint": "The OpenAPI document at /docs shows every route.",
    }
    return problem(error.status_code, document, error.headers)


_REFUSALS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad-request", "the request cannot be read"),
    404: ("not-found", "there is no such route"),
    405: ("method-not-allowed", "this route does not know this method"),
    413: ("body-too-large", "the body is too large"),
}


def _defect(request: Request, error: Exception) -> JSONResponse:
    """A defect of ours: the log has all of it, the answer nothing."""
    refusal = InternalError(
        "this is a defect in managed; the request may or may not have been carried out",
        hint="Give the value of instance to whoever runs this service; the log tells more.",
    )
    answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, refusal.as_json())
    log.error(
        "api_defect", path=request.url.path, problem=bytes(answer.body).decode(), exc_info=error
    )
    return answer
