"""What an iterator gives, read some way ahead in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

_PATIENCE_S = 1.0  # with a thread that waits for the network


class _Over(NamedTuple):
    error: BaseException | None


def read_ahead(items: Generator[Item], most: int) -> Iterator[Item]:
    """The items, of which at most `most` are waiting; closing this closes `items` too."""
    ready: SimpleQueue[Item | _Over] = SimpleQueue()
    room, left = threading.Semaphore(most), threading.Event()

    def fill() -> None:
        error = None
        try:
            for item in items:
                room.acquire()
                if left.is_set():
                    return
                ready.put(item)
        except BaseException as caught:
            error = caught
        finally:
            items.close()
            ready.put(_Over(error))

    thread = threading.Thread(target=fill, name="patchmill-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Over):
            room.release()
            yield item
        if item.error:
            raise item.error
    finally:
        left.set()
        room.release()
        thread.join(_PATIENCE_S)
