"""What decisions on requests may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from api.moments import Moment
from api.planning_requests import Reason
from api.requests import Name, Request
from managed.domain.named_paths import MOST_PATHS
from managed.domain.requests import Action, ActionKind, checked_action


class WantedAction(Request):
    """The action to be carried out: `paths` for a restore of files, `as_of` for restores."""

    kind: ActionKind
    paths: list[Annotated[str, StringConstraints(max_length=4096)]] = Field(
        default_factory=list, max_length=MOST_PATHS, examples=[["/var/www/shop"]]
    )
    as_of: Moment | None = Field(None, description="The newest backup not after this.")

    def action(self) -> Action:
        """The action; InvalidInput when it cannot be carried out."""
        return checked_action(self.kind, self.paths, self.as_of)


class Approval(Request):
    """Without `action` what was proposed is done, without `server` on the server that was meant."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "action": {
                        "kind": "restore-server",
                        "as_of": "2026-11-23T17:00:00Z",
                    }
                }
            ]
        }
    )
    action: WantedAction | None = None
    server: Annotated[
        Name | None, Field(description="A server's id or name, one of the sender's own.")
    ] = None


class Refusal(Request):
    """`reason` is what the sender reads, unless `answer` is false: then nothing is sent, because
    somebody has answered in the helpdesk, say.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "Your plan has no backups.", "answer": True}]}
    )
    reason: Reason
    answer: bool = True
