"""What ids of the API are called, for people who read a list."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from managed.client import ApiProblem, ManagedClient

DELETED: Final = "(deleted)"
# Up to here one question for each id is fewer, or not many more, than reading the whole list.
_MOST_QUESTIONS: Final = 50
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Names:
    """Each is looked up once. What the caller may not look up keeps its id."""

    def __init__(self, service: ManagedClient) -> None:
        self._service = service
        self._known: dict[tuple[str, str], str] = {}
        self._read_whole: set[str] = set()

    def learn(self, kind: str, ids: Iterable[str | None]) -> None:
        """Before many of a kind ("servers", say) are named: reads its whole list where that takes
        fewer questions.
        """
        wanted = {one for one in ids if one is not None}
        if len(wanted) > _MOST_QUESTIONS:
            for one in self._service.items(f"/v1/{kind}", limit=200):
                self._known[kind, one["id"]] = one["name"]
            self._read_whole.add(kind)

    def servers(self, server_ids: Iterable[str | None]) -> dict[str | None, str]:
        """The names of all these; a deleted server has none any more. None is no server."""
        wanted = set(server_ids)
        self.learn("servers", wanted)
        return {one: self.server(one) for one in wanted}

    def server(self, server_id: str | None) -> str:
        return self._name("servers", server_id, DELETED)

    def customer(self, customer_id: str | None) -> str:
        return self._name("customers", customer_id)

    def plan(self, plan_id: str | None) -> str:
        return self._name("plans", plan_id)

    def node(self, node_id: str | None) -> str:
        return self._name("nodes", node_id)

    def owner(self, owner: str, owner_id: str) -> str:
        """Of a window: with the kind of owner, since two kinds may share a name."""
        return f"{owner} {self._name(f'{owner}s', owner_id)}"

    def subject(self, one_id: str) -> str:
        """Of an entry in the audit log, whatever kind of thing it is."""
        if _UUID.fullmatch(one_id):
            for kind in ("servers", "users", "customers", "plans"):
                name = self._name(kind, one_id)
                if name != one_id:
                    return name
        return one_id

    def _name(self, kind: str, one_id: str | None, missing: str | None = None) -> str:
        if one_id is None:
            return ""
        if (kind, one_id) not in self._known:
            self._known[kind, one_id] = self._asked(kind, one_id, missing)
        return self._known[kind, one_id]

    def _asked(self, kind: str, one_id: str, missing: str | None) -> str:
        if kind in self._read_whole:
            return missing or one_id
        try:
            return str(self._service.get(f"/v1/{kind}/{one_id}")["name"])
        except ApiProblem as error:
            if error.status == 404 and missing is not None:
                return missing
            if error.status in (403, 404):
                return one_id
            raise
