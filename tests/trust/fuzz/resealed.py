"""Changes below the checksums: contents as an attacker would write them, checksums updated."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.decoded import records
from patchmill.loaders.files import columns
from patchmill.training.runtime import checkpoint_file
from trust.fuzz.mutations import mutate
from trust.fuzz.sentences import with_odd_value

_START = struct.Struct("<8sII")  # of a column file or a store: magic, length and CRC-32 of JSON
_ALIGN = 64
_NUMBERS = (0, 1, 2, 3, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_TYPES = ("<u1", "<i8", "<u8", "<f4", "<u2", "|b1")


def columns_file(data: bytes, draw: random.Random, kind: str, scratch: Path) -> bytes:
    """Change a column, the metadata or the header of a column file of this kind."""
    if draw.random() < 0.2:
        return _with_header(data, draw)
    scratch.write_bytes(data)
    found = columns.read(scratch, kind)
    content, meta = dict(found.columns), found.meta
    if draw.random() < 0.4:
        meta = with_odd_value(meta, draw)
    for _ in range(draw.choice((0, 1, 1, 2)) if meta is not found.meta else 1):
        _change_column(content, draw)
    columns.write(scratch, kind, content, meta)
    changed = scratch.read_bytes()
    scratch.unlink()
    return changed


def _with_header(data: bytes, draw: random.Random) -> bytes:
    magic, length, _ = _START.unpack_from(data)
    body = data[-(-(_START.size + length) // _ALIGN) * _ALIGN :]
    header = json.loads(data[_START.size : _START.size + length])
    if draw.random() < 0.5:
        text = json.dumps(with_odd_value(header, draw)).encode()
    else:
        text = mutate(json.dumps(header).encode(), draw)
    head = _START.pack(magic, len(text), zlib.crc32(text)) + text
    return head + bytes(-len(head) % _ALIGN) + body


def _change_column(content: dict[str, Any], draw: random.Random) -> None:
    if not content:
        return
    name = draw.choice(sorted(content))
    column = np.array(content[name])
    how = draw.randrange(8)
    if how == 0:
        del content[name]
        return
    if how == 1:
        other = draw.choice(sorted(content))
        content[name], content[other] = content[other], column
        return
    if how == 2:
        column = np.resize(column, draw.choice((0, 1, len(column) + 1, max(len(column) - 1, 0))))
    elif how == 3:
        column = column.astype(draw.choice(_TYPES))
    elif how == 4:
        column = column.reshape((1, *column.shape))
    elif how == 5 and column.size:
        changed = mutate(column.tobytes(), draw)[: column.nbytes].ljust(column.nbytes, b"\0")
        column = np.frombuffer(changed, column.dtype)
    elif column.size:
        number = draw.choice(_NUMBERS).to_bytes(8, "little")[: column.itemsize]
        value = np.frombuffer(number.ljust(column.itemsize, b"\0"), column.dtype)[0]
        column.reshape(-1)[draw.randrange(column.size)] = value
    content[name] = column


def tar(data: bytes) -> bytes:
    """Update the checksums in all blocks that look like tar headers."""
    changed = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            changed[at + 148 : at + 156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)


def png(data: bytes) -> bytes:
    """Update the checksums of all chunks of a PNG."""
    changed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        changed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


def checkpoint(data: bytes, draw: random.Random) -> bytes:
    """Change bytes of a checkpoint's archive, or of a member in it."""
    if draw.random() < 0.5:
        body = mutate(data[: -checkpoint_file.COMMENT - 2], draw)
    else:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
            chosen = draw.choice(old.namelist()) if draw.random() < 0.4 else "archive/data.pkl"
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, mutate(content, draw) if name == chosen else content)
        body = stream.getvalue()[:-2]
    checksum = zlib.crc32(checkpoint_file.NO_COMMENT, zlib.crc32(body))
    mark = checkpoint_file.MARK + b"%08x" % checksum
    return body + len(mark).to_bytes(2, "little") + mark


def store(data: bytes, draw: random.Random, count: int) -> bytes:
    """Change a record, or the header, of a store of decoded images."""
    if draw.random() < 0.2:
        page = records.read_header(data[: records.PAGE])
        text = json.dumps(with_odd_value(page, draw))[: records.PROBE_AT - _START.size].encode()
        head = _START.pack(records.MAGIC, len(text), zlib.crc32(text)) + text
        return head.ljust(records.PAGE, b"\0") + data[records.PAGE :]
    changed = bytearray(data)
    found = np.frombuffer(changed, records.RECORD, count, records.PAGE)
    id = draw.randrange(count)
    for _ in range(draw.choice((1, 2, 2, 4))):
        name = draw.choice(("offset", "height", "width", "checksum"))
        width = records.RECORD[name].itemsize
        number = draw.choice((*_NUMBERS, draw.getrandbits(31))) % (1 << 8 * width)
        value = np.frombuffer(number.to_bytes(width, "little"), records.RECORD[name])[0]
        found[name][id] = value
        if name != "checksum":
            _fit_checksum(found, id, changed)
        found["check"] = records.checks(found, np.arange(count))
    return bytes(changed)


def _fit_checksum(found: np.ndarray, id: int, data: bytearray) -> None:
    """Write the checksum of the bytes that a record claims are pixels, as far as they exist."""
    start, height, width = (int(found[name][id]) for name in ("offset", "height", "width"))
    pixels = np.frombuffer(data, np.uint8)[records.pixels_at(len(found)) :]
    if start >= 0:
        found["checksum"][id] = records.checksum(pixels[start : start + height * width * 3])
