"""Small sources of noise, and stores that are opened as different processes would open them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded import opening, spec
from patchmill.loaders.decoded.store import Store
from patchmill.loaders.sources.numbered import NumberedSource


class Noise(NumberedSource):
    """Images of noise as PPMs; `versions` sets the noise that each of them shows."""

    def __init__(self, count: int, stamped: bool = True) -> None:
        self.name, self.fingerprint, self.labels = "noise", f"noise-{count}", None
        self.versions, self.stamped, self.classes = [1] * count, stamped, list[str]()

    def __len__(self) -> int:
        return len(self.versions)

    def read(self, index: int) -> bytes:
        rng = np.random.default_rng((index, self.versions[index]))
        height, width = 20 + 7 * index % 40, 10 + 11 * index % 60
        return b"P6 %d %d 255\n" % (width, height) + rng.bytes(height * width * 3)

    def stamp(self, index: int) -> int | None:
        return self.versions[index] if self.stamped else None

    def where(self, index: int) -> str:
        return f"noise {index}"


def as_another_process(folder: Path, source: NumberedSource, size: str = "10MB") -> Store:
    """A separate store, while `open_store` would share one within this process."""
    wanted = spec.parse(f"disk:{folder}:{size}")
    folder.mkdir(exist_ok=True)
    path = folder / f"{opening.store_key(source)}{opening.SUFFIX}"  # type: ignore[arg-type]
    return opening._open(path, source, wanted)  # type: ignore[arg-type]


def fill(store: Store, ids: range | list[int]) -> None:
    """Process these samples as a loader does."""
    for id in ids:
        if store.image(id) is None:
            data, stamp = store.read(id)
            store.offer(id, decode(data), stamp)


def held(store: Store, source: NumberedSource) -> list[int]:
    """The samples in a store, each of which must equal a fresh decode."""
    images = {id: store.image(id) for id in range(len(source))}
    there = {id: image for id, image in images.items() if image is not None}
    for id, image in there.items():
        np.testing.assert_array_equal(image, decode(source.read(id)))
    return list(there)


def only_file(folder: Path) -> Path:
    (path,) = folder.glob(f"*{opening.SUFFIX}")
    return path
