"""Tars in a tar, as ImageNet is distributed: `ILSVRC2012_img_train.tar` has one for each class.

Members of the inner tars have absolute offsets and are read like any other; an inner tar counts as
a folder of the outer one. Only tars that hold no images themselves are searched for inner tars.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from patchmill.loaders.common.progress import track
from patchmill.loaders.sources.shards import tar
from patchmill.loaders.sources.shards.tar import FileReader, Member, TarError

ENDING = b".tar"


def is_tar(name: bytes) -> bool:
    base = name.rpartition(b"/")[2]
    return base.endswith(ENDING) and not base.startswith(b".")


def members(outer: FileReader, tars: Sequence[Member]) -> Iterator[tuple[FileReader, Member]]:
    """Members of the inner tars, `n01440764/1.jpg` in `n01440764.tar`, each with its reader."""
    with track("listing the tars in a tar", len(tars)) as advance:
        for inner in tars:
            reader = outer.inside(inner.offset, inner.size)
            folder = inner.name.removesuffix(ENDING)
            try:
                for member in tar.members(reader):
                    yield reader, member._replace(name=folder + b"/" + member.name)
            except TarError as error:
                raise TarError(f"holds {os.fsdecode(inner.name)!r}, which {error}") from None
            advance(1)
