"""Answers by Zammad's REST API (docs.zammad.org, "Articles"), with an agent's access token."""

from __future__ import annotations

from typing import Any, Final

import httpx

from managed.domain.errors import HelpdeskRefused, HelpdeskUnavailable, InvalidInput
from managed.domain.replies import Reply, reference_line
from managed.domain.secrets import Secret

_TIMEOUT_SECONDS: Final = 5.0
_WHO_MAY: Final = (
    "Check MANAGED_ZAMMAD_TOKEN: an access token with the permission ticket.agent, of a user who"
    " may change tickets of that group."
)


class ZammadHelpdesk:
    def __init__(self, url: str, token: Secret, timeout: float = _TIMEOUT_SECONDS) -> None:
        """`url` is where Zammad is, such as https://support.example.org; InvalidInput for none."""
        if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
            raise InvalidInput(
                f"{url!r} is not the address of a Zammad",
                hint="Set MANAGED_ZAMMAD_URL to an address such as https://support.example.org.",
            )
        self._token = token
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def find_reply(self, reply: Reply) -> str | None:
        articles = self._request("GET", f"/api/v1/ticket_articles/by_ticket/{reply.ticket_id}")
        if not isinstance(articles, list):
            raise HelpdeskUnavailable("the helpdesk answered with no list of articles")
        line = reference_line(reply.reference)
        # A customer who answers quotes what he answers to.
        ours = (a for a in articles if isinstance(a, dict) and a.get("sender") != "Customer")
        return next((str(a.get("id")) for a in ours if line in str(a.get("body"))), None)

    def send(self, reply: Reply) -> str:
        article = {
            "ticket_id": reply.ticket_id,
            "subject": reply.subject,
            "body": reply.body,
            "content_type": "text/plain",
            "internal": False,
            **({"type": "email", "to": reply.to} if reply.to else {"type": "note"}),
        }
        made = self._request("POST", "/api/v1/ticket_articles", json=article)
        if not isinstance(made, dict) or not isinstance(made.get("id"), int):
            raise HelpdeskUnavailable("the helpdesk answered with no article")
        return str(made["id"])

    def _request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Token token={self._token.reveal()}"}
        try:
            answer = self._http.request(method, path, headers=headers, **options)
        except httpx.HTTPError as error:
            raise HelpdeskUnavailable(
                f"the helpdesk does not answer: {type(error).__name__}"
            ) from error
        status = answer.status_code
        if status in (401, 403):
            raise HelpdeskUnavailable(f"the helpdesk answers {status}", hint=_WHO_MAY)
        if status in (404, 422):
            raise HelpdeskRefused(f"the helpdesk answers {status}: {_reason(answer)}")
        if not answer.is_success:
            raise HelpdeskUnavailable(f"the helpdesk answers {status}")
        try:
            return answer.json()
        except ValueError as error:
            raise HelpdeskUnavailable("the helpdesk answered with no JSON document") from error


def _reason(answer: httpx.Response) -> str:
    """What Zammad gives as `error`."""
    try:
        document = answer.json()
    except ValueError:
        return "no reason given"
    reason = document.get("error") if isinstance(document, dict) else None
    return str(reason or "no reason given")[:300]
