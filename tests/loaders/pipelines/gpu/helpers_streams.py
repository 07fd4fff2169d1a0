"""A model of a GPU's streams: nothing is computed, but every access is ordered by vector clocks.

Work queued on a stream comes after what was queued on it before, after the events that it waits
for, and after what the host has seen to be done. Nothing else is known: whether an event has passed
is chance. An access that is not ordered after those that it must follow is a race; they are listed,
because much of what is checked here happens in finalizers, which cannot raise.
"""

from __future__ import annotations

import itertools
import random
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

HOST = 0  # as an actor; streams are the others
_STEP = 1 << 20  # between the addresses of allocations
Clock = list[int]  # by actor: how much of its work has come before


class Region:
    """Memory that is read and written as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.write: tuple[int, int] = (HOST, 0)  # the last one: whose, and when
        self.reads: dict[int, int] = {}  # since then: when, by actor
        self.lost = False  # given back to whoever lent it


class Gpu:
    """Streams, events and memory of a device and of the pinned host memory beside it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.luck = self.random.choice((0.0, 0.2, 0.8))  # of finding an event passed
        self.host: Clock = [0] * 8
        self._actors = itertools.count(1)
        self.default = Stream(self)
        self.current = self.default
        self.torch = Torch(self)
        self.races: list[str] = []
        self._pinned: list[torch.Tensor] = []  # never freed, so that addresses stand for memory
        self._regions: dict[int, Region] = {}  # by the address of the first byte
        self._addresses = itertools.count(_STEP, _STEP)
        self._free: dict[tuple[Stream, int], list[int]] = defaultdict(list)
        self._pending: list[tuple[list[Event], Stream, int, int]] = []
        self.allocated = 0

    # ------------------------------------------------------------------------------------- accesses

    def kernel(self, reads: list[int], writes: list[int]) -> None:
        """Queue work on the current stream, by the addresses that it reads and writes."""
        stream = self.current
        clock = stream.begin()
        for address in reads:
            self._read(stream.actor, clock, address)
        for address in writes:
            self._write(stream.actor, clock, address)

    def host_writes(self, address: int, name: str = "pinned memory") -> None:
        if address not in self._regions:
            self._regions[address] = Region(name)
        self.host[HOST] += 1
        self._write(HOST, self.host, address)

    def host_frees(self, address: int) -> None:
        self.host_writes(address)  # by whoever gets it next
        del self._regions[address]

    def _read(self, actor: int, clock: Clock, address: int) -> None:
        region = self.region(address)
        writer, when = region.write
        if clock[writer] < when:
            self.races.append(f"{region.name} is read before it is written")
        region.reads[actor] = clock[actor]

    def _write(self, actor: int, clock: Clock, address: int) -> None:
        region = self.region(address)
        writer, when = region.write
        if clock[writer] < when or any(clock[who] < at for who, at in region.reads.items()):
            self.races.append(f"{region.name} is overwritten while it is in use")
        region.write, region.reads = (actor, clock[actor]), {}

    def region(self, address: int) -> Region:
        """The region that begins here, or else the allocation that this address is in."""
        region = self._regions.get(address) or self._regions.get(address & -_STEP)
        if region is None:
            region = self._regions[address] = Region("memory that nobody allocated")
            region.lost = True
        if region.lost:
            self.races.append(f"{region.name} is used after it was given back")
        return region

    # --------------------------------------------------------------------------------------- memory

    def new(self, name: str) -> int:
        """The address of new memory."""
        address = next(self._addresses)
        self._regions[address] = Region(name)
        return address

    def part(self, address: int, name: str) -> None:
        """Make known that a part of other memory begins here."""
        self._regions.setdefault(address, Region(name))

    def allocate(self, size: int, name: str) -> Tensor:
        """Allocate as torch does: memory freed on a stream is used again on it, without waiting."""
        for entry in self._pending[:]:
            events, stream, size_freed, address = entry
            if all(event.query() for event in events):
                self._pending.remove(entry)
                self._free[stream, size_freed].append(address)
        free = self._free[self.current, size]
        if free:
            address = free.pop(self.random.randrange(len(free)))
        else:
            address = self.new(name)
            self.allocated += 1
        return Tensor(Storage(self, address, size, name), 0, size)

    def free(self, storage: Storage) -> None:
        events = [stream.record_event() for stream in storage.streams]
        if events:
            self._pending.append((events, storage.stream, storage.size, storage.address))
        else:
            self._free[storage.stream, storage.size].append(storage.address)

    def end(self) -> None:
        """Break the cycles of references."""
        del self.torch, self.default, self.current
        self._regions.clear()
        self._free.clear()
        self._pending.clear()

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


class Stream:
    def __init__(self, gpu: Gpu, priority: int = 0) -> None:
        self.gpu, self.actor, self.priority = gpu, next(gpu._actors), priority
        self.clock: Clock = [0] * 8

    def begin(self) -> Clock:
        """The clock of work that is queued now."""
        _join(self.clock, self.gpu.host)
        self.clock[self.actor] += 1
        return self.clock

    def record_event(self, event: Event | None = None) -> Event:
        event = Event(self.gpu) if event is None else event
        event.clock = self.clock.copy()
        return event

    def wait_event(self, event: Event) -> None:
        _join(self.clock, event.clock)

    def synchronize(self) -> None:
        _join(self.gpu.host, self.clock)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self.clock = gpu, [0] * 8

    def record(self, stream: Stream | None = None) -> None:
        (stream or self._gpu.current).record_event(self)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self._gpu.current).wait_event(self)

    def query(self) -> bool:
        """True if it has passed, which is chance until the host has seen it."""
        host = self._gpu.host
        if all(map(int.__le__, self.clock, host)):
            return True
        if self._gpu.random.random() >= self._gpu.luck:
            return False
        _join(host, self.clock)
        return True

    def synchronize(self) -> None:
        _join(self._gpu.host, self.clock)

    def elapsed_time(self, end: Event) -> float:
        return 1.0


def _join(clock: Clock, other: Clock) -> None:
    for actor, when in enumerate(other):
        if when > clock[actor]:
            clock[actor] = when


class Storage:
    """Memory of torch's allocator, which gets it back when no tensor uses it."""

    def __init__(self, gpu: Gpu, address: int, size: int, name: str) -> None:
        self.gpu, self.address, self.size, self.name = gpu, address, size, name
        self.stream = gpu.current
        self.streams: set[Stream] = set()

    def __del__(self) -> None:
        self.gpu.free(self)


class Tensor:
    """A flat tensor on the device, of which only the place is known."""

    def __init__(self, memory: Storage | Any, first: int, length: int) -> None:
        self._memory, self._first, self.shape = memory, first, (length,)

    def data_ptr(self) -> int:
        return self._memory.address + self._first

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(len(self))
        return Tensor(self._memory, self._first + start, stop - start)

    def view(self, dtype: torch.dtype) -> Tensor:
        return Tensor(self._memory, self._first, len(self) // dtype.itemsize)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> None:
        gpu = self._memory.gpu
        address = source.data_ptr()
        pinned = address in gpu._regions
        gpu.kernel([address] if pinned else [], [self.data_ptr()])
        if not non_blocking:
            gpu.current.synchronize()

    def record_stream(self, stream: Stream) -> None:
        self._memory.streams.add(stream)


class Borrowed:
    """Memory of another object's, which tensors keep alive."""

    def __init__(self, gpu: Gpu, owner: Any) -> None:
        self.gpu, self._owner = gpu, owner
        self.address = owner.__cuda_array_interface__["data"][0]


class Torch:
    """Stand-in for the module `torch` in the code that is checked."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.cuda = _Cuda(gpu)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, size: int, dtype: Any, device: Any = None, pin_memory: bool = False) -> Any:
        if device is None:
            memory = torch.empty(size, dtype=dtype)
            self._gpu._pinned.append(memory)
            return memory
        return self._gpu.allocate(size, "a block of the device")

    def empty_like(self, memory: torch.Tensor, device: Any) -> Tensor:
        return self._gpu.allocate(memory.nbytes, "an uploaded block")

    def as_tensor(self, loan: Any, device: Any) -> Tensor:
        return Tensor(Borrowed(self._gpu, loan), 0, loan.__cuda_array_interface__["shape"][0])


class _Cuda:
    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def Stream(self, device: Any = None, priority: int = 0) -> Stream:
        return Stream(self._gpu, priority)

    def Event(self, enable_timing: bool = False) -> Event:
        return Event(self._gpu)

    def current_stream(self, device: Any = None) -> Stream:
        return self._gpu.current

    def stream(self, stream: Stream) -> Any:
        return self._gpu.on(stream)

    def device(self, device: Any) -> Any:
        return self._gpu.on(self._gpu.current)


class Dali:
    """DALI's pipeline, behind BatchDecoder: a stream, and a pool of memory in its order."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._stream = gpu, Stream(gpu)
        self._free: list[int] = []
        self._fed: list[Any] = []
        self._runs: list[tuple[TensorList, Event]] = []
        self.lent = self.most_lent = 0

    def feed_input(self, name: str, encoded: list[Any]) -> None:
        self._fed = encoded

    def schedule_run(self) -> None:
        gpu, free = self._gpu, self._free
        free.sort(key=lambda _: gpu.random.random())
        places = [free.pop() if free else gpu.new("DALI's memory") for _ in self._fed]
        for place in places:
            gpu._regions[place].lost = False
        self.lent += 1
        self.most_lent = max(self.most_lent, self.lent)
        with gpu.on(self._stream):
            gpu.kernel([one.ctypes.data for one in self._fed], places)
        shapes = [(one[0], one[1]) for one in self._fed]
        self._runs.append((TensorList(self, places, shapes), self._stream.record_event()))

    def outputs(self, cuda_stream: Stream | None) -> tuple[TensorList]:
        tensors, done = self._runs.pop(0)
        (done.synchronize if cuda_stream is None else lambda: cuda_stream.wait_event(done))()
        return (tensors,)

    def end(self) -> None:
        """Let go of what was not taken, which else keeps itself alive."""
        self._runs.clear()

    def give_back(self, places: list[int]) -> None:
        self.lent -= 1
        for place in places:
            self._gpu._regions[place].lost = True
        self._free += places


class TensorList:
    def __init__(self, dali: Dali, places: list[int], shapes: list[tuple[int, int]]) -> None:
        self._places, self._shapes = places, shapes
        weakref.finalize(self, dali.give_back, places).atexit = False

    def shape(self) -> list[tuple[int, int, int]]:
        return [(int(height), int(width), 3) for height, width in self._shapes]

    def data_ptr(self) -> int:
        raise RuntimeError("the images lie apart")

    def __getitem__(self, index: int) -> Any:
        return _Place(self._places[index])


class _Place:
    def __init__(self, address: int) -> None:
        self.data_ptr: Callable[[], int] = lambda: address


def encoded_image(gpu: Gpu, height: int, width: int) -> np.ndarray:
    """A JPEG that begins with its height and width; its memory is overwritten once it is gone."""
    data = np.array([height, width], np.uint8)
    gpu.host_writes(data.ctypes.data, "an encoded image")
    weakref.finalize(data, gpu.host_frees, data.ctypes.data).atexit = False
    return data
