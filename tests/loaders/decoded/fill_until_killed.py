"""Fill the store of a folder from two threads, until there is nothing left to do."""

from __future__ import annotations

import random
import sys
import threading

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.sources import open_source


def main(data: str, cache: str) -> None:
    source = open_source(data)
    store = open_store(cache, source)
    assert store is not None

    def fill() -> None:
        for id in random.sample(range(len(source)), len(source)):
            if store.image(id) is None:
                encoded, stamp = store.read(id)
                store.offer(id, decode(encoded), stamp)

    print("ready", flush=True)
    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
