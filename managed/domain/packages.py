"""What a patch run did: packages before and after, what waits, and whether a reboot is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from managed.domain.errors import EvidenceMissing, Json

Versions = Mapping[str, str]
"""Package name (with ":architecture" where several are possible) to version."""


@dataclass(frozen=True)
class PackageChange:
    """`before` is empty for a new package, `after` for a removed one."""

    name: str
    before: str
    after: str

    def as_json(self) -> dict[str, Json]:
        return {"name": self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class PendingUpdate:
    name: str
    before: str
    after: str
    security: bool


@dataclass(frozen=True)
class PatchReport:
    """The evidence that apply_updates.py left. `problem` is empty when all went well."""

    problem: str
    lists_updated_at: str
    pending: tuple[PendingUpdate, ...]
    changes: tuple[PackageChange, ...]
    kept_back: tuple[str, ...]
    warnings: tuple[str, ...]
    reboot_reasons: tuple[str, ...]

    @property
    def reboot_needed(self) -> bool:
        return bool(self.reboot_reasons)

    def as_json(self) -> dict[str, Json]:
        return {
            "problem": self.problem,
            "lists_updated_at": self.lists_updated_at,
            "security_updates": sum(update.security for update in self.pending),
            "updates": len(self.pending),
            "changes": [change.as_json() for change in self.changes],
            "kept_back": list(self.kept_back),
            "reboot_reasons": list(self.reboot_reasons),
        }


def package_changes(before: Versions, after: Versions) -> tuple[PackageChange, ...]:
    """Every package whose version differs, sorted by name."""
    return tuple(
        PackageChange(name, before.get(name, ""), after.get(name, ""))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


_PARTS: Final = ("lists", "pending", "packages_before", "packages_after", "kept_back", "reboot")


def patch_report(document: Mapping[str, Json]) -> PatchReport:
    """Read apply_updates.py's result.json.

    Raises EvidenceMissing when a run that calls itself good lacks a part of its evidence, or when
    updates were pending and none of them shows in the packages.
    """
    problem = _problem(document)
    missing = [part for part in _PARTS if part not in document]
    lists = _mapping(document.get("lists"))
    if not problem and (missing or not lists.get("updated_at")):
        raise EvidenceMissing("the patch run left an incomplete record", missing=list(missing))
    changes = package_changes(
        _versions(document.get("packages_before")), _versions(document.get("packages_after"))
    )
    report = PatchReport(
        problem=problem,
        lists_updated_at=str(lists.get("updated_at") or ""),
        pending=tuple(_pending_update(item) for item in _list(document.get("pending"))),
        changes=changes,
        kept_back=tuple(str(name) for name in _list(document.get("kept_back"))),
        warnings=tuple(str(text) for text in _list(document.get("warnings"))),
        reboot_reasons=tuple(
            str(reason) for reason in _list(_mapping(document.get("reboot")).get("reasons"))
        ),
    )
    if not problem and report.pending and not changes:
        raise EvidenceMissing(
            "updates were pending, but no package changed", updates=len(report.pending)
        )
    return report


def _problem(document: Mapping[str, Json]) -> str:
    if document.get("ok") is True:
        return ""
    return str(_mapping(document.get("error")).get("detail") or "the patch run failed")


def _pending_update(item: Json) -> PendingUpdate:
    fields = _mapping(item)
    return PendingUpdate(
        name=str(fields.get("name")),
        before=str(fields.get("before") or ""),
        after=str(fields.get("after") or ""),
        security=bool(fields.get("security")),
    )


def _versions(value: Json) -> dict[str, str]:
    return {name: str(version) for name, version in _mapping(value).items()}


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
