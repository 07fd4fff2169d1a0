"""Memory that streams share, in ten thousand random orders of what the host and a GPU do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs Triton")

import helpers_stream_schedules as schedules
import helpers_streams
from helpers_streams import Gpu, Stream

from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, DecodedBatch
from patchmill.loaders.pipelines.dali.feeder import AHEAD
from patchmill.loaders.pipelines.gpu.arena import Arena
from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache
from patchmill.loaders.pipelines.gpu.side_stream import MOST_QUEUED, QueuedWork, SideStream
from patchmill.loaders.pipelines.memory import DeviceBlockPool

SCHEDULES = 10_000


def test_no_schedule_has_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, pinned memory, DALI's images, cached images and the user's reads of a batch."""
    schedules.prepare(monkeypatch)
    taken = made = most_lent = most_kept = 0
    for seed in schedules.seeds(SCHEDULES):
        schedule = schedules.Schedule(seed)
        assert not schedule.races, f"seed {seed}"
        taken += schedule.taken
        made += schedule.made
        most_lent = max(most_lent, schedule.dali.most_lent)
        most_kept = max(most_kept, schedule.most_kept)
    assert made > taken > SCHEDULES / 2
    assert most_kept == MOST_QUEUED
    assert most_lent == AHEAD + MOST_QUEUED  # decoded batches on the GPU, at any time


Patch = pytest.MonkeyPatch


def blocks_are_lent_without_a_wait(patch: Patch) -> None:
    pop = DeviceBlockPool._pop
    patch.setattr(DeviceBlockPool, "_pop", lambda pool: (got := pop(pool)) and (got[0], []))


def blocks_wait_for_the_current_stream_only(patch: Patch) -> None:
    patch.setattr(DeviceBlockPool, "record_reader", lambda *_: None)


def blocks_are_freed_to_torch_without_their_readers(patch: Patch) -> None:
    ignore_streams_of("a block of the device", patch)


def labels_are_freed_to_torch_without_their_readers(patch: Patch) -> None:
    ignore_streams_of("a table of labels", patch)


def ignore_streams_of(name: str, patch: Patch) -> None:
    record = helpers_streams.Tensor.record_stream

    def record_stream(tensor: Any, stream: Stream) -> None:
        if tensor._memory.name != name:
            record(tensor, stream)

    patch.setattr(helpers_streams.Tensor, "record_stream", record_stream)


def users_do_not_wait_for_the_rendering(patch: Patch) -> None:
    patch.setattr(QueuedWork, "event", property(lambda work: work._marks[-2]))


def work_counts_as_done_at_once(patch: Patch) -> None:
    patch.setattr(QueuedWork, "is_done", lambda work: True)


def dali_gets_its_memory_back_at_once(patch: Patch) -> None:
    keep_only(lambda each: each.encoded if isinstance(each, DecodedBatch) else each, patch)


def pinned_memory_is_reused_at_once(patch: Patch) -> None:
    keep_only(lambda each: None if isinstance(each, Arena) else each, patch)


def keep_only(part: Callable[[Any], Any], patch: Patch) -> None:
    keep = QueuedWork.keep_alive
    patch.setattr(QueuedWork, "keep_alive", lambda work, *objects: keep(work, *map(part, objects)))


def encoded_images_go_when_they_are_taken(patch: Patch) -> None:
    take = BatchDecoder.take
    patch.setattr(
        BatchDecoder,
        "take",
        lambda decoder, stream: replace(take(decoder, stream), encoded=()),
    )


def images_are_taken_for_another_stream(patch: Patch) -> None:
    take = BatchDecoder.take
    patch.setattr(BatchDecoder, "take", lambda decoder, stream: take(decoder, Stream(stream.gpu)))


def images_are_cached_on_another_stream(patch: Patch) -> None:
    add = DeviceCache.add

    def elsewhere(cache: DeviceCache, *arguments: Any) -> None:
        gpu: Gpu = schedules.device_cache.torch.cuda._gpu  # type: ignore[attr-defined]
        with gpu.on(Stream(gpu)):
            add(cache, *arguments)

    patch.setattr(DeviceCache, "add", elsewhere)


def work_is_queued_on_the_user_s_stream(patch: Patch) -> None:
    queue = SideStream.queue

    @contextmanager
    def queue_there(side: Any, items: int) -> Iterator[QueuedWork]:
        gpu = side.stream.gpu
        outside = gpu.current
        with queue(side, items) as work, gpu.on(outside):
            yield work

    patch.setattr(SideStream, "queue", queue_there)


@pytest.mark.parametrize(
    ("broken", "race"),
    [
        (blocks_are_lent_without_a_wait, "a block of the device is overwritten"),
        (blocks_wait_for_the_current_stream_only, "a block of the device is overwritten"),
        (blocks_are_freed_to_torch_without_their_readers, "a block of the device is overwritten"),
        (labels_are_freed_to_torch_without_their_readers, "a table of labels is overwritten"),
        (users_do_not_wait_for_the_rendering, "a block of the device is read before it is written"),
        (work_counts_as_done_at_once, "overwritten"),
        (dali_gets_its_memory_back_at_once, "DALI's memory is"),
        (pinned_memory_is_reused_at_once, "pinned memory is overwritten"),
        (encoded_images_go_when_they_are_taken, "an encoded image is overwritten"),
        (images_are_taken_for_another_stream, "DALI's memory is read before it is written"),
        (images_are_cached_on_another_stream, "is read before it is written"),
        (work_is_queued_on_the_user_s_stream, "before it is written"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_missing_wait_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[Patch], None], race: str
) -> None:
    """The model sees what it is there for, within a part of its schedules."""
    schedules.prepare(monkeypatch)
    broken(monkeypatch)
    races = (schedules.Schedule(seed).races for seed in schedules.seeds(SCHEDULES // 10))
    assert any(race in found for each in races for found in each)
