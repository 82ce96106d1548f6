"""Disk layouts as JSON, both ways, and the rules for layouts that come from elsewhere.

A recorded layout comes from a customer's server and later steers programs that run as root in a
rescue session: nothing in it is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

from managed.domain.disk_layouts import (
    EXTENDED_TYPES,
    DiskLayout,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionTable,
)
from managed.domain.errors import InvalidInput
from managed.domain.swap_files import SwapFile, is_swap_path

LAYOUT_VERSION: Final = 1
MAXIMUM_PARTITIONS: Final = 128
MAXIMUM_SWAP_FILES: Final = 32
SECTOR: Final = 512
IDENTIFIER_PATTERN: Final = re.compile(r"(0x)?[0-9A-Fa-f-]{0,40}")
WORD_PATTERN: Final = re.compile(r"[A-Za-z0-9_]{1,40}")
NAME_PATTERN: Final = re.compile(r"[^\x00-\x1f\x7f\"\\]{0,72}")
OPTIONS_PATTERN: Final = re.compile(r"[A-Za-z0-9_=.,:+/-]*")
MOUNT_POINT_PATTERN: Final = re.compile(r"/|(/[A-Za-z0-9_@][A-Za-z0-9_@.+-]*)+")


def layout_as_json(layout: DiskLayout) -> dict[str, Any]:
    """Plain JSON values that `parsed_layout` reads back."""
    return {
        "version": LAYOUT_VERSION,
        "table": layout.table.value,
        "disk_size": layout.disk_size,
        "disk_uuid": layout.disk_uuid,
        "bios": layout.bios,
        "efi": layout.efi,
        "unsupported": list(layout.unsupported),
        "partitions": [_partition_as_json(p) for p in layout.partitions],
        "swap_files": [asdict(file) for file in layout.swap_files],
    }


def _partition_as_json(partition: Partition) -> dict[str, Any]:
    files = partition.filesystem
    return {
        "number": partition.number,
        "start": partition.start,
        "size": partition.size,
        "type": partition.type,
        "uuid": partition.uuid,
        "name": partition.name,
        "attributes": partition.attributes,
        "bootable": partition.bootable,
        "filesystem": None
        if files is None
        else {
            "kind": files.kind.value,
            "uuid": files.uuid,
            "label": files.label,
            "mount_point": files.mount_point,
            "mount_options": files.mount_options,
            "features": list(files.features),
        },
    }


def parsed_layout(document: Mapping[str, Any]) -> DiskLayout:
    """The layout of a JSON document; InvalidInput says what is wrong with it."""
    try:
        layout = _layout_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"This is not a disk layout: {error!r}", field="layout") from error
    for problem in layout_problems(layout):
        raise InvalidInput(f"This disk layout can't be used: {problem}", field="layout")
    return layout


def layout_problems(layout: DiskLayout) -> Iterator[str]:
    """What contradicts itself or looks hostile, one sentence each."""
    if not IDENTIFIER_PATTERN.fullmatch(layout.disk_uuid):
        yield f"the disk's identifier is {layout.disk_uuid!r}"
    if len(layout.partitions) > MAXIMUM_PARTITIONS:
        yield f"it has {len(layout.partitions)} partitions"
    numbers = [p.number for p in layout.partitions]
    if len(set(numbers)) != len(numbers):
        yield "a partition number occurs twice"
    for partition in layout.partitions:
        yield from _partition_problems(partition, layout)
    yield from _overlap_problems(layout)
    points = [p.filesystem.mount_point for p in layout.mounted if p.filesystem]
    if len(set(points)) != len(points):
        yield "a mount point occurs twice"
    if "/" not in points and not layout.unsupported:
        yield "nothing is mounted at /"
    yield from _swap_file_problems(layout)


def _swap_file_problems(layout: DiskLayout) -> Iterator[str]:
    paths = [file.path for file in layout.swap_files]
    if len(paths) > MAXIMUM_SWAP_FILES or len(set(paths)) != len(paths):
        yield "it has too many swap files, or one twice"
    if sum(file.size for file in layout.swap_files) > layout.disk_size:
        yield "its swap files are larger than the disk"
    for file in layout.swap_files:
        if not is_swap_path(file.path):
            yield f"it has a swap file at {file.path!r}"
        if file.size <= 0:
            yield f"{file.path!r} has {file.size} bytes"
        if not IDENTIFIER_PATTERN.fullmatch(file.uuid):
            yield f"the UUID of {file.path!r} is {file.uuid!r}"
        if not NAME_PATTERN.fullmatch(file.label) or file.label.startswith("-"):
            yield f"the label of {file.path!r} is {file.label!r}"


def _partition_problems(partition: Partition, layout: DiskLayout) -> Iterator[str]:
    name = f"partition {partition.number}"
    if not 1 <= partition.number <= MAXIMUM_PARTITIONS:
        yield f"{name} has an impossible number"
    if partition.start <= 0 or partition.size <= 0 or partition.end > layout.disk_size:
        yield f"{name} does not lie on the disk"
    if partition.start % SECTOR or partition.size % SECTOR:
        yield f"{name} does not begin and end with a sector"
    if not partition.type or not IDENTIFIER_PATTERN.fullmatch(partition.type):
        yield f"{name} has the type {partition.type!r}"
    if not IDENTIFIER_PATTERN.fullmatch(partition.uuid):
        yield f"{name} has the identifier {partition.uuid!r}"
    if not NAME_PATTERN.fullmatch(partition.name):
        yield f"{name} is named {partition.name!r}"
    if not 0 <= partition.attributes < 1 << 64:
        yield f"{name} has the attributes {partition.attributes}"
    if partition.filesystem is not None:
        yield from (f"{name}: {problem}" for problem in _filesystem_problems(partition.filesystem))


def _filesystem_problems(files: Filesystem) -> Iterator[str]:
    if not files.uuid or not IDENTIFIER_PATTERN.fullmatch(files.uuid):
        yield f"its filesystem's UUID is {files.uuid!r}"
    if not NAME_PATTERN.fullmatch(files.label) or files.label.startswith("-"):
        yield f"its label is {files.label!r}"
    if files.mount_point and not MOUNT_POINT_PATTERN.fullmatch(files.mount_point):
        yield f"its mount point is {files.mount_point!r}"
    if files.mount_point and files.kind is FilesystemKind.SWAP:
        yield "swap can't be mounted"
    if not OPTIONS_PATTERN.fullmatch(files.mount_options):
        yield f"its mount options are {files.mount_options!r}"
    if not all(WORD_PATTERN.fullmatch(feature) for feature in files.features):
        yield "its features can't be read"


def _overlap_problems(layout: DiskLayout) -> Iterator[str]:
    """Partitions that share sectors; logical ones lie inside their extended one and may."""
    plain = [p for p in layout.partitions if not is_extended(p, layout.table)]
    ordered = sorted(plain, key=lambda p: p.start)
    for earlier, later in pairwise(ordered):
        if later.start < earlier.end:
            yield f"partitions {earlier.number} and {later.number} overlap"


def is_extended(partition: Partition, table: PartitionTable) -> bool:
    """Whether this is a DOS extended partition, which only holds others."""
    plain_type = partition.type.lower().removeprefix("0x").lstrip("0")
    return table is PartitionTable.DOS and plain_type in EXTENDED_TYPES


def _layout_of(document: Mapping[str, Any]) -> DiskLayout:
    if document["version"] != LAYOUT_VERSION:
        raise ValueError(f"layout version {document['version']!r} is unknown here")
    return DiskLayout(
        table=PartitionTable(document["table"]),
        disk_size=int(document["disk_size"]),
        disk_uuid=str(document["disk_uuid"]),
        partitions=tuple(_partition_of(p) for p in document["partitions"]),
        bios=bool(document["bios"]),
        efi=bool(document["efi"]),
        unsupported=tuple(str(u) for u in document.get("unsupported", ())),
        swap_files=tuple(_swap_file_of(file) for file in document.get("swap_files", ())),
    )


def _swap_file_of(document: Mapping[str, Any]) -> SwapFile:
    return SwapFile(
        path=str(document["path"]),
        size=int(document["size"]),
        uuid=str(document.get("uuid", "")),
        label=str(document.get("label", "")),
    )


def _partition_of(document: Mapping[str, Any]) -> Partition:
    files = document["filesystem"]
    return Partition(
        number=int(document["number"]),
        start=int(document["start"]),
        size=int(document["size"]),
        type=str(document["type"]),
        uuid=str(document.get("uuid", "")),
        name=str(document.get("name", "")),
        attributes=int(document.get("attributes", 0)),
        bootable=bool(document.get("bootable", False)),
        filesystem=None if files is None else _filesystem_of(files),
    )


def _filesystem_of(document: Mapping[str, Any]) -> Filesystem:
    return Filesystem(
        kind=FilesystemKind(document["kind"]),
        uuid=str(document["uuid"]),
        label=str(document.get("label", "")),
        mount_point=str(document.get("mount_point", "")),
        mount_options=str(document.get("mount_options", "")),
        features=tuple(str(f) for f in document.get("features", ())),
    )
