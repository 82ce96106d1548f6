"""What a patch run has proven by the record that it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from managed.domain.documents import list_in, mapping_in
from managed.domain.errors import EvidenceMissing, Json

_LISTS: Final = ("pending", "kept_back", "warnings")
_OBJECTS: Final = ("lists", "packages_before", "packages_after", "reboot")


@dataclass(frozen=True)
class PatchReport:
    """What follows from a run that ended well: what people are to know, and why to reboot."""

    warnings: tuple[str, ...]
    reboot_reasons: tuple[str, ...]


def patch_report(document: Mapping[str, Json]) -> PatchReport:
    """Read apply_updates.py's result.json.

    Raises EvidenceMissing when the run does not call itself good, when a part of its evidence is
    missing (when the package lists were fetched is one), or when updates were pending and the
    packages are the same as before.
    """
    missing = [name for name in _LISTS if not isinstance(document.get(name), list)]
    missing += [name for name in _OBJECTS if not isinstance(document.get(name), dict)]
    if not mapping_in(document, "lists").get("updated_at"):
        missing.append("lists.updated_at")
    if not isinstance(mapping_in(document, "reboot").get("reasons"), list):
        missing.append("reboot.reasons")
    if missing or document.get("ok") is not True:
        raise EvidenceMissing(
            "the patch run left no complete record of a good end", missing=list[Json](missing)
        )
    if document["pending"] and document["packages_before"] == document["packages_after"]:
        raise EvidenceMissing(
            "updates were pending, but no package changed",
            pending=len(list_in(document, "pending")),
        )
    return PatchReport(
        warnings=_texts(list_in(document, "warnings")),
        reboot_reasons=_texts(list_in(mapping_in(document, "reboot"), "reasons")),
    )


def _texts(values: list[Json]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
