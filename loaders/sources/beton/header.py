"""Opens a .beton, checks its structure and maps its tables; MillError where anything is wrong."""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.beton import layout


@dataclass(frozen=True, eq=False)
class BetonTables:
    """The memory-mapped tables of a file; no sample data has been read."""

    name: str
    memory: mmap.mmap
    header: np.void
    fields: dict[str, int]  # name to type, in order
    table: np.ndarray
    allocations: np.ndarray

    def column(self, field: str) -> np.ndarray:
        return self.table[f"f{list(self.fields).index(field)}"]

    def choose(self, role: str, wanted: str | None, *kinds: int) -> str | None:
        """The field `wanted`, else the one named like its role, else the only one that fits."""
        fitting = [field for field, kind in self.fields.items() if kind in kinds]
        if wanted is not None and wanted not in fitting:
            raise MillError(
                f"{self.name} has no field {wanted!r} that could be the {role}: "
                f"{', '.join(fitting) or 'none of its fields'} could"
            )
        if wanted is None and role not in fitting and len(fitting) > 1:
            raise MillError(
                f"{self.name} has several fields that could be the {role} ({', '.join(fitting)}): "
                f"say which, as in Beton({self.name!r}, {role}={fitting[0]!r})"
            )
        return wanted or (role if role in fitting else next(iter(fitting), None))

    def annex(self, image: str) -> tuple[np.ndarray | None, list[str]]:
        """CRC-32 of each image and class names; (None, []) for files of FFCV's own writer."""
        at = layout.HEADER.itemsize + list(self.fields).index(image) * layout.FIELD.itemsize
        arguments = np.frombuffer(self.memory, layout.FIELD, 1, at)[0]["arguments"]
        annex = arguments[: layout.ANNEX.itemsize].view(layout.ANNEX)[0]
        if annex["magic"] != layout.ANNEX_MAGIC:
            return None, []
        try:
            start, count = int(annex["start"]), len(self.table)
            sums = np.frombuffer(self.memory, layout.CHECKSUM, count, start)
            names = start + sums.nbytes
            return sums, json.loads(self.memory[names : names + int(annex["json_bytes"])])
        except (ValueError, OverflowError):
            raise MillError(
                f"{self.name} is damaged: its checksums are not where they should be"
            ) from None


def open_file(name: str, path: str) -> int:
    """Open the file for reading; return its descriptor."""
    try:
        if os.path.isdir(path):
            raise MillError(f"{name!r} is a folder, not a .beton file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MillError(f"there is no file {name!r}: check the path") from None
    except OSError as error:
        raise MillError(f"cannot read {name}: {error.strerror or error}") from None


def parse(name: str, file: int) -> BetonTables:
    """Map the file and check that its tables lie inside it."""
    if os.fstat(file).st_size < layout.HEADER.itemsize:
        raise MillError(f"{name} is too short for a .beton file: write it again")
    memory = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    header = np.frombuffer(memory, layout.HEADER, 1)[0]
    _check_header(name, header, len(memory))
    fields = _fields(name, memory, int(header["fields"]))
    table = _table(name, memory, header, fields)
    return BetonTables(name, memory, header, fields, table, _allocations(name, memory, header))


def _check_header(name: str, header: np.void, size: int) -> None:
    if header["version"] != layout.VERSION:
        raise MillError(
            f"{name} is not a .beton file of version {layout.VERSION} (it begins with the number "
            f"{header['version']}): write it with ffcv 1.x or patchmill"
        )
    if not header["allocations"]:
        raise MillError(f"{name} was not written to its end: write it again")
    if header["allocations"] > size:
        raise MillError(
            f"{name} is truncated: it has {size} bytes and ought to have more than "
            f"{header['allocations']}; copy or write it again"
        )


def _fields(name: str, memory: mmap.mmap, count: int) -> dict[str, int]:
    if layout.HEADER.itemsize + count * layout.FIELD.itemsize > len(memory):
        raise MillError(f"{name} is damaged: there is no room for its {count} fields")
    fields = {}
    for field in np.frombuffer(memory, layout.FIELD, count, layout.HEADER.itemsize):
        title = field["name"].tobytes().split(b"\0")[0].decode("ascii", "replace")
        if int(field["type"]) not in layout.FIELD_TYPES:
            raise MillError(
                f"{name} has a field {title!r} of a custom type, which only the code that wrote it "
                "can read: write it without that field"
            )
        fields[title] = int(field["type"])
    if len(fields) < count:
        raise MillError(f"{name} is damaged: two of its fields have the same name")
    return fields


def _table(name: str, memory: mmap.mmap, header: np.void, fields: dict[str, int]) -> np.ndarray:
    dtype, count = layout.table_dtype(list(fields.values())), int(header["samples"])
    start = layout.HEADER.itemsize + len(fields) * layout.FIELD.itemsize
    if start + count * dtype.itemsize > header["allocations"]:
        raise MillError(f"{name} is damaged: there is no room for its {count} samples")
    return np.frombuffer(memory, dtype, count, start)


def _allocations(name: str, memory: mmap.mmap, header: np.void) -> np.ndarray:
    size = len(memory) - int(header["allocations"])
    count = size // layout.ALLOCATION.itemsize
    if size % layout.ALLOCATION.itemsize or count < header["samples"]:
        raise MillError(
            f"{name} is truncated: it ends inside its allocation table; copy or write it again"
        )
    return np.frombuffer(memory, layout.ALLOCATION, count, int(header["allocations"]))
