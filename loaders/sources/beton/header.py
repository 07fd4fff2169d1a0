"""Open a .beton, check its structure and read its tables; MillError if anything is wrong."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.beton import layout
from patchmill.loaders.sources.shards import tar


@dataclass(frozen=True, eq=False)
class BetonTables:
    """The tables of a file; no sample data has been read."""

    name: str
    file: int  # open for reading
    size: int  # bytes
    header: np.void
    fields: dict[str, int]  # name to type, in order
    table: np.ndarray
    allocations: np.ndarray

    def column(self, field: str) -> np.ndarray:
        return self.table[f"f{list(self.fields).index(field)}"]

    def choose(self, role: str, wanted: str | None, *kinds: int) -> str | None:
        """The field `wanted`, or else the one named like its role, or else the only candidate."""
        fitting = [field for field, kind in self.fields.items() if kind in kinds]
        if wanted is not None and wanted not in fitting:
            raise MillError(
                f"{self.name} has no field {wanted!r} that could be the {role}: "
                f"{', '.join(fitting) or 'none of its fields'} could"
            )
        if wanted is None and role not in fitting and len(fitting) > 1:
            raise MillError(
                f"{self.name} has several fields that could be the {role} ({', '.join(fitting)}): "
                f"choose one, as in Beton({self.name!r}, {role}={fitting[0]!r})"
            )
        return wanted or (role if role in fitting else next(iter(fitting), None))

    def annex(self, image: str) -> tuple[np.ndarray | None, list[str]]:
        """CRC-32 of each image and class names; (None, []) for files of FFCV's own writer."""
        at = layout.HEADER.itemsize + list(self.fields).index(image) * layout.FIELD.itemsize
        arguments = self.table_at(layout.FIELD, 1, at)[0]["arguments"]
        annex = arguments[: layout.ANNEX.itemsize].view(layout.ANNEX)[0]
        if annex["magic"] != layout.ANNEX_MAGIC:
            return None, []
        try:
            start, count = int(annex["start"]), len(self.table)
            sums = self.table_at(layout.CHECKSUM, count, start)
            names = json.loads(self.bytes_at(start + sums.nbytes, int(annex["json_bytes"])))
            if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                raise ValueError
            return sums, names
        except (ValueError, RecursionError):
            raise MillError(
                f"{self.name} is damaged: its checksums are not where they should be"
            ) from None

    def table_at(self, dtype: np.dtype, count: int, start: int) -> np.ndarray:
        return _table_at(self.file, self.size, dtype, count, start)

    def bytes_at(self, start: int, count: int) -> bytes:
        """Bytes of the file; ValueError beyond its end."""
        return _bytes_at(self.file, self.size, start, count)


def open_file(name: str, path: str) -> int:
    """Open the file for reading; return its descriptor."""
    try:
        if os.path.isdir(path):
            raise MillError(f"{name!r} is a folder, not a .beton file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise MillError(f"there is no file {name!r}: check the path") from None
    except OSError as error:
        raise MillError(f"cannot read {name}: {error.strerror or error}") from None


def parse(name: str, file: int) -> BetonTables:
    """Read the tables, and check that they lie inside the file."""
    status = os.fstat(file)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        raise MillError(f"{name!r} is not a regular file")
    if size < layout.HEADER.itemsize:
        raise MillError(f"{name} is too short for a .beton file: write it again")
    try:
        header = _table_at(file, size, layout.HEADER, 1, 0)[0]
        _check_header(name, header, size)
        fields = _fields(name, file, size, int(header["fields"]))
        table = _table(name, file, size, header, fields)
        return BetonTables(
            name, file, size, header, fields, table, _allocations(name, file, size, header)
        )
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it was truncated"
        raise MillError(f"cannot read {name}: {problem}") from None


def _table_at(file: int, size: int, dtype: np.dtype, count: int, start: int) -> np.ndarray:
    return np.frombuffer(_bytes_at(file, size, start, count * dtype.itemsize), dtype)


def _bytes_at(file: int, size: int, start: int, count: int) -> bytes:
    if not 0 <= start <= size or not 0 <= count <= size - start:
        raise ValueError("outside the file")
    data = tar.read_at(file, count, start) if count else b""
    if len(data) < count:
        raise ValueError("the file was truncated")
    return data


def _check_header(name: str, header: np.void, size: int) -> None:
    if header["version"] != layout.VERSION:
        raise MillError(
            f"{name} is not a .beton file of version {layout.VERSION} (it begins with the number "
            f"{header['version']}): write it with ffcv 1.x or patchmill"
        )
    if not header["allocations"]:
        raise MillError(f"{name} was not written completely: write it again")
    if header["allocations"] > size:
        raise MillError(
            f"{name} is truncated: it has {size} bytes and should have more than "
            f"{header['allocations']}; copy or write it again"
        )


def _fields(name: str, file: int, size: int, count: int) -> dict[str, int]:
    if layout.HEADER.itemsize + count * layout.FIELD.itemsize > size:
        raise MillError(f"{name} is damaged: its {count} fields do not fit into it")
    fields = {}
    for field in _table_at(file, size, layout.FIELD, count, layout.HEADER.itemsize):
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


def _table(name: str, file: int, size: int, header: np.void, fields: dict[str, int]) -> np.ndarray:
    dtype, count = layout.table_dtype(list(fields.values())), int(header["samples"])
    start = layout.HEADER.itemsize + len(fields) * layout.FIELD.itemsize
    if start + count * dtype.itemsize > header["allocations"]:
        raise MillError(f"{name} is damaged: its {count} samples do not fit into it")
    return _table_at(file, size, dtype, count, start)


def _allocations(name: str, file: int, size: int, header: np.void) -> np.ndarray:
    start = int(header["allocations"])
    count, rest = divmod(size - start, layout.ALLOCATION.itemsize)
    if rest or count < header["samples"]:
        raise MillError(
            f"{name} is truncated: it ends inside its allocation table; copy or write it again"
        )
    return _table_at(file, size, layout.ALLOCATION, count, start)
