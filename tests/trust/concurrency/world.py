"""The real crew, line and memory in one schedule, with batches of numbered samples and a consumer.

Workers write a sample's number into the batch's block, so that the user sees what was lost,
repeated or overwritten. `broken` lists what they saw; it is deterministic.
"""

from __future__ import annotations

import gc
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import chunks, crew, feeder_jobs, memory, shift
from patchmill.loaders.pipelines import job as jobs
from patchmill.loaders.pipelines.dali import feeder as dali
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu.arena import ArenaJob
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.stats import Counters
from trust.concurrency.scheduler import Scheduler, replaced

LINES = ("none", "line", "dali")  # stage between the workers and the user
ENDS = ("last", "leave", "close", "interrupt", "error", "collected")  # of an iteration
FILES = [module.__file__ for module in (crew, feeder_jobs, jobs, memory, shift)]
SAMPLES = 3  # in a batch


@dataclass(frozen=True)
class Plan:
    """An iteration and its end, for any thread order."""

    line: str
    end: str
    batches: int
    workers: int
    ahead: int
    kept: int  # batches that the user keeps at a time
    staff: tuple[int, ...]  # number of workers after each batch the user takes
    at: int  # batch, sample or operation at which the iteration ends
    late: bool  # on a GPU, a sample of each batch exceeds its pixel budget

    @staticmethod
    def draw(rng: random.Random) -> Plan:
        batches = rng.randint(2, 4)
        return Plan(
            rng.choice(LINES),
            rng.choice(ENDS),
            batches,
            rng.randint(1, 3),
            rng.randint(1, 2),
            rng.randint(0, 2),
            tuple(rng.randint(1, 3) for _ in range(batches)) if rng.random() < 0.4 else (),
            rng.randrange(batches),
            rng.random() < 0.3,
        )


class Failed(Exception):
    """Error of a sample."""


class World:
    def __init__(self, plan: Plan, scheduler: Scheduler) -> None:
        self.plan, self.scheduler, self.broken = plan, scheduler, list[str]()
        self.lost = self.repeated = 0
        self.made: Counter[int] = Counter()
        self._taken, self._reloaded = 0, Counter[int]()
        self._errors: list[BaseException] = []
        self._pool = memory.BlockPool(SAMPLES, torch.int64)
        self._crew: Any = None
        self._last: Any = None  # the only reference to a crew to be garbage-collected

    def run(self) -> None:
        """Run the schedule; raise Stuck if it does not end."""
        threading, time = self.scheduler.threading(), self.scheduler.time()
        queue = self.scheduler.queue_class()
        nobody = SimpleNamespace(register=lambda _: None, unregister=lambda _: None)
        quiet = SimpleNamespace(warning=lambda *_: None)
        with replaced(
            *((module, "SimpleQueue", queue) for module in (crew, feeder_jobs, jobs, shift)),
            *((module, "threading", threading) for module in (crew, jobs, shift)),
            *((module, "time", time) for module in (crew, shift, dali)),
            (crew, "atexit", nobody),
            (crew, "log", quiet),
            (chunks, "cut", lambda size, *_: [range(i, i + 1) for i in range(size)]),
            (dali, "BatchDecoder", lambda *_, **__: Decoder(self)),
            (dali, "Gatherer", lambda *_: None),
            (dali.decoder, "find_undecodable", lambda *_: [0]),
        ):
            collects = gc.isenabled()
            gc.disable()  # else collections would happen at other points in a repeated schedule
            try:
                self.scheduler.run(self._use)
            finally:
                self._crew = None
                if collects:
                    gc.enable()
        self._judge()

    # ------------------------------------------------------------------------------------ the user

    def _use(self) -> None:
        plan, end = self.plan, self.plan.end
        self._crew = made = self._start()
        if end == "close":
            closer = self.scheduler.thread_class()(self._close, name="closer")
            closer.start()
        kept: deque[tuple[int, Any]] = deque()
        try:
            if end == "interrupt":
                self._interrupt_at(2 + 7 * plan.at)
            while (batch := made.next()) is not None:
                number = int(batch.ids[0]) // SAMPLES
                self._expect(number == self._taken, f"batch {number} comes as {self._taken}")
                self._taken += 1
                kept.append((number, batch.flat))
                del batch
                for held in kept:
                    self._expect_contents(*held)
                if len(kept) > plan.kept:
                    self._expect_contents(*kept.popleft())
                if end == "leave" and number == plan.at:
                    break
                if end == "collected" and number == plan.at:
                    self._crew, self._last = None, made
                    del made
                    break
                if plan.staff:
                    made.set_workers([self._worker() for _ in range(plan.staff[number])])
                made.check()
        except (Failed, MillError, KeyboardInterrupt) as error:
            self._errors.append(error)
        finally:
            for held in kept:
                self._expect_contents(*held)
            if end != "collected":
                made.dismiss()
        for _ in range(9 * plan.at):  # if no thread of the crew drops its last reference first
            self.scheduler.point()
        self._last = None

    def _close(self) -> None:
        for _ in range(5 * self.plan.at):
            self.scheduler.point()
        self._crew.dismiss()

    def _interrupt_at(self, operation: int) -> None:
        root = self.scheduler.current
        countdown = [operation]

        def inject() -> None:
            while countdown[0] and root is not None and not root.done:
                countdown[0] -= 1
                self.scheduler.point()
            if root is not None and not root.done and not self.interrupted_late():
                root.injected = KeyboardInterrupt()

        self.scheduler.thread_class()(inject, name="ctrl-c").start()

    def interrupted_late(self) -> bool:
        """True if the user has already reached the end, with nothing left to interrupt."""
        return self._crew is None or bool(self._crew._ended) or self._taken == self.plan.batches

    # ----------------------------------------------------------------------------------- the crew

    def _start(self) -> Any:
        plan = self.plan
        feeder = {"none": None, "line": self._feed, "dali": self._feed_dali}[plan.line]
        workers = [self._worker() for _ in range(plan.workers)]
        in_decoder = dali.AHEAD if plan.line == "dali" else 0
        return crew.Crew(
            workers,
            self._step(),
            self._jobs(),
            plan.ahead,
            hand_over,
            feeder,
            in_decoder=in_decoder,
        )

    def _worker(self) -> Any:
        return Gatherer()

    def _jobs(self) -> Iterator[Any]:
        for number in range(self.plan.batches):
            ids = np.arange(SAMPLES * number, SAMPLES * (number + 1))
            if self.plan.line == "dali":
                arena: Any = None
                job: Any = dali.DaliJob(0, ids, 1, arena, jobs.Countdown(SAMPLES))
            else:
                job = jobs.Job(0, ids, 1, jobs.Countdown(SAMPLES))
                if self.plan.line == "line":
                    job = self._arena_job(0, ids)
            job.flat = self._pool.acquire()
            job.flat.fill_(-1)
            yield job

    def _arena_job(self, epoch: int, ids: np.ndarray) -> Any:
        arena: Any = None
        job = ArenaJob(epoch, ids, 1, arena)
        job.locations[:] = 0
        job.ready = jobs.Countdown(1)
        return job

    def _step(self) -> Callable[..., None]:
        def step(worker: Any, job: Any, slots: range) -> None:
            for slot in job.until_cancelled(slots):
                id = int(job.requested[slot])
                self.scheduler.point()
                if self.plan.late and self.plan.line == "line" and slot == 0:
                    job.postpone([slot])
                    continue
                self.made[id] += 1
                if self.plan.end == "error" and id == SAMPLES * self.plan.at + 1:
                    raise Failed(f"sample {id}")
                self._last = None
                if self.plan.line == "dali":
                    job.encoded[slot], job.shapes[slot] = np.zeros(1, np.uint8), 1
                else:
                    job.flat[slot] = id

        return step

    def _feed(self, feeder_jobs: FeederJobs, tasks: Any) -> None:
        """Feed like the GPU pipelines."""
        from patchmill.loaders.pipelines.gpu.pipeline import GpuThreadsPipeline

        def load(worker: Any, job: Any, slots: range) -> None:
            for id in job.requested[slots.start : slots.stop].tolist():
                self.scheduler.point()
                self._reloaded[id] += 1

        def render(job: Any, slots: np.ndarray, sub_batch: Any, *_: Any) -> None:
            self.made.update(id for id in job.requested[slots].tolist() if not self.made[id])
            job.flat[torch.from_numpy(slots)] = torch.from_numpy(sub_batch.requested)

        def done(*_: object) -> None:
            pass

        views = SimpleNamespace(render=done, synchronize=done, finish=done, render_sub_batch=render)
        pipeline: Any = SimpleNamespace(_views=views, _load=load, _job=self._arena_job)
        for name in ("_render_in_sub_batches", "_tasks_of"):
            method = getattr(GpuThreadsPipeline, name)
            setattr(pipeline, name, MethodType(method, pipeline))
        GpuThreadsPipeline._feed(pipeline, feeder_jobs, tasks)

    def _feed_dali(self, feeder_jobs: FeederJobs, tasks: Any) -> None:
        config: Any = SimpleNamespace(max_batch=1, device=torch.device("cpu"), workers=1)
        feeder = dali.DaliFeeder(config, Counters(("decode",)), 0.0, self._render, None)
        feeder.load = self._reload  # type: ignore[method-assign]
        feeder.run(feeder_jobs, tasks)

    def _reload(self, worker: Any, job: Any, slots: range) -> None:
        for slot in job.until_cancelled(slots):
            self.scheduler.point()
            self._reloaded[int(job.requested[slot])] += 1
            job.encoded[slot], job.locations[slot] = None, 0

    def _render(self, job: Any, decoded: Any, tasks: Any) -> None:
        def render(worker: Any, job: Any, slots: range) -> None:
            for slot in job.until_cancelled(slots):
                job.flat[slot] = job.requested[slot]

        for slots in job.chunks:
            tasks.put((job.ready, render, job, slots))

    # --------------------------------------------------------------------------------- judgement

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.broken.append(otherwise)

    def _expect_contents(self, number: int, flat: torch.Tensor) -> None:
        wanted = list(range(SAMPLES * number, SAMPLES * (number + 1)))
        found = flat.tolist()
        self._expect(found == wanted, f"batch {number} holds {found}")

    def _judge(self) -> None:
        plan = self.plan
        wanted = (
            plan.batches if plan.end == "last" else plan.at + (plan.end in ("leave", "collected"))
        )
        ids = range(SAMPLES * self._taken)
        self.lost = sum(not self.made[id] for id in ids)
        counts = (*self.made.values(), *self._reloaded.values())
        self.repeated = sum(count > 1 for count in counts)
        self._expect(not self.lost, "a batch was handed over without a sample")
        self._expect(not self.repeated, "a sample was made twice")
        kinds = [type(error) for error in self._errors]
        if plan.end in ("last", "leave", "collected"):
            self._expect(self._taken == wanted, f"{self._taken} batches instead of {wanted}")
            self._expect(not kinds, f"raised {self._errors}")
        elif plan.end == "error":
            self._expect(kinds == [Failed], f"raised {self._errors}, not the sample's error")
            self._expect(self._taken == wanted, f"the error came after {self._taken} batches")
        else:
            whole = self._taken == plan.batches
            kind = MillError if plan.end == "close" else KeyboardInterrupt
            self._expect(kinds == [kind] or whole, f"raised {self._errors}")


class Gatherer:
    """A worker that runs tasks like any other."""

    run, busy = Worker.run, False

    def __init__(self) -> None:
        self.counters = Counters(("plan",))


class Decoder:
    """Stand-in for DALI's decoder: at most AHEAD batches in flight, some of which it rejects."""

    def __init__(self, world: World) -> None:
        self._world, self._held, self._submitted = world, deque[bool](), 0

    def submit(self, encoded: Any) -> None:
        self._world.scheduler.point()
        self._submitted += 1
        self._held.append(len(encoded) == SAMPLES and self._submitted % 3 > 0)
        self._world._expect(len(self._held) <= dali.AHEAD, "DALI has too many batches")

    def take(self, stream: Any) -> None:
        self._world.scheduler.point()
        if self._held.popleft():
            raise dali.Refused("an image")


def hand_over(job: Any) -> Any:
    return SimpleNamespace(ids=job.ids, flat=job.flat)
