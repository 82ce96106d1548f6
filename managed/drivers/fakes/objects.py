"""An ObjectStore in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from managed.domain.errors import NotFound


@dataclass
class FakeObjectStore:
    content: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, content: bytes) -> None:
        self.content[key] = content

    def get(self, key: str) -> bytes:
        try:
            return self.content[key]
        except KeyError:
            raise NotFound(f"there is no object {key!r} in the bucket", key=key) from None

    def exists(self, key: str) -> bool:
        return key in self.content

    def delete(self, key: str) -> None:
        self.content.pop(key, None)

    def move(self, key: str, new_key: str) -> None:
        content = self.get(key)
        del self.content[key]
        self.content[new_key] = content

    def keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self.content if key.startswith(prefix))

    def sizes(self, prefix: str) -> Mapping[str, int]:
        return {key: len(self.content[key]) for key in self.keys(prefix)}
