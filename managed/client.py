"""A small client of the HTTP API, for the command line, the demo and tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import httpx

from managed.domain.errors import Json, ManagedError, Unavailable

ANSWER_SECONDS: Final = 60.0
# The server sends a comment every 15 seconds; a stream that is silent for longer is dead.
_SILENCE_SECONDS: Final = 45.0
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_PATIENCE_SECONDS: Final = 120.0

Document = dict[str, Any]


class ApiUnreachable(Unavailable):
    code = "api-unreachable"
    title = "The API does not answer"


class ApiProblem(ManagedError):
    """A problem document (RFC 9457) that the API answered; `document` is all of it."""

    def __init__(self, status: int, document: Mapping[str, Json]) -> None:
        detail = str(document.get("detail") or document.get("title") or f"HTTP status {status}")
        super().__init__(detail, hint=str(document.get("hint") or ""))
        self.status = status
        self.document = dict(document)

    @property
    def problem_code(self) -> str:
        """The problem's stable code, such as "server-busy"; empty when a proxy answered."""
        return str(self.document.get("code") or "")

    def as_json(self) -> dict[str, Json]:
        return {"code": self.code, "title": self.title, **self.document}


class ManagedClient:
    """Talks to one API with one token, or with none (an empty text). Use it as a context manager,
    or `close()` it.

    Every method raises ApiProblem for an answer that is a problem, ApiUnreachable for none.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        requested_by: str = "",
        reason: str = "",
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        """`requested_by` is who asks, for the record of the jobs, and `reason` why, for the audit
        log. `timeout` is how many seconds an answer may take.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if requested_by:
            headers["X-Requested-By"] = requested_by
        if reason:
            headers["X-Reason"] = reason
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=timeout,
            trust_env=False,
        )

    def __enter__(self) -> ManagedClient:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where the API is reached, without a slash at the end."""
        return str(self._http.base_url).rstrip("/")

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Document:
        """`query` values of None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._request("GET", path, params=given)

    def post(
        self,
        path: str,
        json: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Document:
        return self._request("POST", path, json=json or {}, idempotency_key=idempotency_key)

    def upload(
        self,
        path: str,
        content: bytes,
        media_type: str,
        idempotency_key: str | None = None,
        **query: str | int | None,
    ) -> Document:
        """POST bytes as they are."""
        headers = {"Content-Type": media_type}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        given = {name: value for name, value in query.items() if value is not None}
        return _document(self._send("POST", path, content=content, params=given, headers=headers))

    def patch(self, path: str, json: Mapping[str, Any]) -> Document:
        return self._request("PATCH", path, json=json)

    def put(self, path: str, json: Mapping[str, Any]) -> Document:
        return self._request("PUT", path, json=json)

    def delete(self, path: str, idempotency_key: str | None = None) -> Document:
        return self._request("DELETE", path, idempotency_key=idempotency_key)

    def items(self, path: str, **query: str | int | None) -> Iterator[Document]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{**query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next")
            if cursor is None:
                return

    def events(self, job_id: str, after: int = 0) -> Iterator[Document]:
        """The job's events numbered above `after` as {"seq", "at", "type", "data"}, live, until
        its last one. A lost connection is made again and goes on where it broke; ApiUnreachable
        when for two minutes no stream can be opened, however long the last one was silent before.
        """
        pause = _FIRST_PAUSE
        lost_at: float | None = None
        while True:
            try:
                with self._stream(job_id, after) as events:
                    lost_at = None
                    for event in events:
                        after = event["seq"]
                        pause = _FIRST_PAUSE
                        yield event
                if self._is_complete(job_id, after):
                    return
            except (httpx.TransportError, ApiUnreachable, ApiProblem) as error:
                if isinstance(error, ApiProblem) and error.status < 500:
                    raise
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                if now - lost_at > _PATIENCE_SECONDS:
                    raise ApiUnreachable(f"the event stream broke: {error}") from error
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def wait_for_job(self, job_id: str, on_event: Callable[[Document], None]) -> Document:
        """Hand over every event of the job; returns the ended job with its steps."""
        for event in self.events(job_id):
            on_event(event)
        return self.get(f"/v1/jobs/{job_id}")

    def _is_complete(self, job_id: str, after: int) -> bool:
        """Has the job ended, and is there no event above `after`? A proxy may cut a stream."""
        path = f"/v1/jobs/{job_id}/events"
        response = self._send(
            "GET", path, params={"after": after}, headers={"Accept": "application/json"}
        )
        page = _document(response)
        return bool(page["is_complete"]) and not page["items"]

    @contextmanager
    def _stream(self, job_id: str, after: int) -> Iterator[Iterator[Document]]:
        """An open stream of the events above `after`; entered when the API has answered well."""
        with self._http.stream(
            "GET",
            f"/v1/jobs/{job_id}/events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)},
            timeout=httpx.Timeout(ANSWER_SECONDS, read=_SILENCE_SECONDS),
        ) as response:
            if not response.is_success:
                response.read()
                _document(response)
            yield server_sent_events(response.iter_lines())

    def _request(
        self, method: str, path: str, *, idempotency_key: str | None = None, **options: Any
    ) -> Document:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _document(self._send(method, path, headers=headers, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ApiUnreachable(
                f"{self._http.base_url} does not answer: {error}",
                hint="Start the service with: managed serve",
            ) from error


def server_sent_events(lines: Iterator[str]) -> Iterator[Document]:
    """The JSON documents in the `data` of a stream's events; comments and unended ones left out."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield json.loads("\n".join(data))
            data = []
        elif line.startswith("data:"):
            data.append(line[len("data:") :].removeprefix(" "))


def _document(response: httpx.Response) -> Document:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"title": "The answer is no JSON object", "detail": response.text[:500]}
        raise ApiProblem(response.status_code, document)
    if not response.is_success:
        raise ApiProblem(response.status_code, document)
    return document
