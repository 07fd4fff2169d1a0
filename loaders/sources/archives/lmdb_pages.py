"""Check the pages of an LMDB database before the library maps them, which trusts every byte.

If pages contradict each other, LMDB crashes the process or reads beyond its map. Everything that a
lookup of a key can touch is read here: the tree of the main database, without the values.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_DATABASE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, 3 counts of pages, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # size or page (low, high), flags or page, bytes of the key
_BRANCH, _LEAF, _META_PAGE = 1, 2, 8  # flags of a page
_KINDS = 0x6F  # the flags that give the kind of a page
_BIG, _SUB_DATABASE, _DUPLICATES = 1, 2, 4  # flags of a node
_MAGIC, _VERSIONS, _NO_PAGE = 0xBEEFC0DE, (1, 999), 2**64 - 1
_MOST_DEPTH = 32


class Damaged(Exception):
    """A database that LMDB must not read; the message gives the reason."""


class _Database(NamedTuple):
    page_bytes: int
    pages: int
    root: int
    depth: int


def check_start(file: int) -> None:
    """Raise Damaged if the library could not open the database, or OSError."""
    _newest(file)


def check(file: int) -> None:
    """Raise Damaged if a lookup could meet invalid pages, or OSError.

    A truncated database is left to the caller, who compares its size.
    """
    database = _newest(file)
    if os.fstat(file).st_size < database.pages * database.page_bytes:
        return
    seen = bytearray(database.pages)
    level = [] if database.root == _NO_PAGE else [database.root]
    for depth in range(database.depth):
        pages, level, is_leaf = level, [], depth == database.depth - 1
        for page in pages:
            level += _children(file, database, page, is_leaf, seen)
    if level:
        raise Damaged("its tree has more levels than it claims")


def _newest(file: int) -> _Database:
    """The main database, as described by the newer of the first two pages."""
    first = _meta(file, 0, 4096)
    if first is None:
        raise Damaged("it does not begin like a database")
    page_bytes = first[0].page_bytes
    second = _meta(file, page_bytes, page_bytes)
    if second is None or second[0].page_bytes != page_bytes:
        raise Damaged("its second page does not belong to a database")
    return max(first, second, key=lambda found: found[1])[0]


def _meta(file: int, at: int, size: int) -> tuple[_Database, int] | None:
    """The database that one of the first two pages describes, and its transaction number."""
    data = os.pread(file, min(size, 4096), at)
    start = _PAGE.size
    if len(data) < start + _META.size + 2 * _DATABASE.size + _TAIL.size:
        return None
    _, _, flags, _, _ = _PAGE.unpack_from(data)
    magic, version, _, _ = _META.unpack_from(data, start)
    start += _META.size
    page_bytes = _DATABASE.unpack_from(data, start)[0]
    _, kind, depth, _, _, _, _, root = _DATABASE.unpack_from(data, start + _DATABASE.size)
    last, transaction = _TAIL.unpack_from(data, start + 2 * _DATABASE.size)
    if not flags & _META_PAGE or magic != _MAGIC:
        return None
    if version not in _VERSIONS:
        raise Damaged(f"it has version {version} of LMDB's format, which is not supported")
    if page_bytes & (page_bytes - 1) or not 512 <= page_bytes <= 65536:
        raise Damaged(f"its pages cannot have {page_bytes:,} bytes")
    if kind:
        raise Damaged("its keys are of a kind that image names cannot have")
    if depth > _MOST_DEPTH or not 1 <= last < 1 << 47:
        raise Damaged("it cannot have that many pages or levels")
    return _Database(page_bytes, last + 1, root, depth), transaction


def _children(
    file: int, database: _Database, number: int, is_leaf: bool, seen: bytearray
) -> list[int]:
    """Numbers of the pages below a page; none below a leaf."""
    if not 2 <= number < database.pages or seen[number]:
        raise Damaged(f"a page {number} cannot be in its tree")
    seen[number] = 1
    data = os.pread(file, database.page_bytes, number * database.page_bytes)
    if len(data) < database.page_bytes:
        raise Damaged("it is cut off")
    own, _, flags, lower, upper = _PAGE.unpack_from(data)
    count, odd = divmod(lower - _PAGE.size, 2)
    wanted = _LEAF if is_leaf else _BRANCH
    if own != number or flags & _KINDS != wanted or odd or not lower <= upper <= len(data):
        raise Damaged(f"its page {number} does not belong to its tree")
    if count < (1 if is_leaf else 2):
        raise Damaged(f"its page {number} is empty")
    children = []
    for at in struct.unpack_from(f"<{count}H", data, _PAGE.size):
        if at < upper or at + _NODE.size > len(data):
            raise Damaged(f"an entry of its page {number} lies outside")
        low, high, more, key_bytes = _NODE.unpack_from(data, at)
        end = at + _NODE.size + key_bytes
        if is_leaf:
            end = _end_of_value(database, data, end, low | high << 16, more)
        else:
            children.append(low | high << 16 | more << 32)
        if end > len(data):
            raise Damaged(f"an entry of its page {number} lies outside")
    return children


def _end_of_value(database: _Database, data: bytes, start: int, size: int, flags: int) -> int:
    """The end of an entry in its page; Damaged if its value extends beyond all pages."""
    if flags & ~_BIG & ~_SUB_DATABASE or flags & _DUPLICATES:
        raise Damaged("it has an entry of an unknown kind")
    if not flags & _BIG:
        return start + size
    if start + 8 > len(data):
        raise Damaged("an entry lies outside its page")
    first = int.from_bytes(data[start : start + 8], "little")
    pages = -(-(_PAGE.size + size) // database.page_bytes)
    if not 2 <= first <= database.pages - pages:
        raise Damaged("a value lies outside")
    return start + 8
