"""Threads under a deterministic scheduler: one runs at a time, and a policy picks the next.

Threads, locks, queues and the clock of chosen modules are replaced. Every operation on them, and
every line of chosen files, is a point at which another thread may continue; a seeded policy
decides, so that each schedule can be repeated. Time passes only when no thread can run.
"""

from __future__ import annotations

import math
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty
from types import SimpleNamespace
from typing import Any

MOST_TIMEOUTS = 40  # one after another, with nothing done in between, are a deadlock
MOST_POINTS = 200_000
PATIENCE_S = 120.0  # timeout for the running thread


class Stuck(Exception):
    """No thread can continue, or all of them only poll."""


class _Abandoned(BaseException):
    """Ends the threads of a schedule that is stuck."""


Policy = Callable[[int, Sequence["Actor"], "Actor | None"], "Actor"]


def continued(point: int, enabled: Sequence[Actor], current: Actor | None) -> Actor:
    """Policy without preemption: the current thread continues, else the oldest one."""
    return current if current in enabled else enabled[0]  # type: ignore[return-value]


def at_random(seed: random.Random, often: float) -> Policy:
    """Switch to a random thread at a share `often` of the points."""

    def choose(point: int, enabled: Sequence[Actor], current: Actor | None) -> Actor:
        if current in enabled and seed.random() >= often:
            return current  # type: ignore[return-value]
        return seed.choice(enabled)

    return choose


def preempting(switches: dict[int, int], otherwise: Callable[[], float]) -> Policy:
    """Switch only at given points, to the n-th other thread; if one waits, draw the next."""

    def choose(point: int, enabled: Sequence[Actor], current: Actor | None) -> Actor:
        if current in enabled:
            others = [actor for actor in enabled if actor is not current]
            if point in switches and others:
                return others[switches[point] % len(others)]
            return current  # type: ignore[return-value]
        return enabled[int(otherwise() * len(enabled))]

    return choose


class Actor:
    """One thread; stands in for `threading.Thread` in the code under test."""

    scheduler: Scheduler

    def __init__(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        name: str = "",
        daemon: bool = True,
    ) -> None:
        self.name, self.ident, self.done = name, None, False
        self.error: BaseException | None = None
        self.injected: BaseException | None = None  # raised at its next point
        self.ready: Callable[[], bool] | None = None
        self.until = math.inf
        self._target, self._args = target, tuple(args)
        self._turn = threading.Semaphore(0)

    def start(self) -> None:
        scheduler = self.scheduler
        self.ident = len(scheduler.actors) + 1
        scheduler.actors.append(self)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        scheduler.point()

    def is_alive(self) -> bool:
        return self.ident is not None and not self.done

    def join(self, timeout: float = math.inf) -> None:
        self.scheduler.wait(lambda: self.done, timeout)

    def _run(self) -> None:
        self._turn.acquire()
        sys.settrace(self.scheduler.trace)
        try:
            if not self.scheduler.stuck:
                self._target(*self._args)
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error
        finally:
            sys.settrace(None)
            self._target, self._args = lambda: None, ()
            self.done = True
            self.scheduler.pass_on()

    def go(self) -> None:
        self._turn.release()

    def pause(self) -> None:
        if not self._turn.acquire(timeout=PATIENCE_S):
            raise _Abandoned


class Scheduler:
    """One schedule: `run(body)` runs `body` and every thread it starts to completion."""

    def __init__(
        self, policy: Policy, files: Iterable[str] = (), early: float = 0.0, seed: int = 0
    ) -> None:
        """`early`: the share of points at which a wait with a timeout may time out."""
        self.policy, self.now, self.points = policy, 0.0, 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.stuck = ""
        self._files, self._early, self._timeouts = frozenset(files), early, 0
        self._random = random.Random(seed)
        self._over = threading.Event()

    def run(self, body: Callable[[], None]) -> None:
        """Raise Stuck if not all threads end, else the first error of any thread."""
        root = self.thread_class()(body, name="root")
        root.start()
        self.current = root
        root.go()
        if not self._over.wait(PATIENCE_S):
            raise Stuck(f"{self.current and self.current.name} does not come back")
        for actor in self.actors:
            actor._thread.join(PATIENCE_S)
        if self.stuck:
            raise Stuck(self.stuck)
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    # --------------------------------------------------------------------- called by the threads

    def point(self) -> None:
        """Let the policy decide which thread continues."""
        self.wait(None)

    def wait(self, ready: Callable[[], bool] | None, seconds: float = math.inf) -> None:
        """Yield to other threads until `ready`, or until the timeout has passed."""
        me = self.current
        if me is None or threading.current_thread() is not me._thread:
            return  # before or after the schedule
        if self.stuck:
            raise _Abandoned
        me.ready, me.until = ready, self.now + seconds
        following = self._next()
        if following is not me:
            self.current = following
            following.go()
            me.pause()
        me.ready, me.until = None, math.inf
        if self.stuck:
            raise _Abandoned
        if me.injected is not None:
            error, me.injected = me.injected, None
            raise error

    def pass_on(self) -> None:
        """Hand over from the current thread, which has ended, to another one, if any."""
        if all(actor.done for actor in self.actors):
            self.current = None
            self._over.set()
            return
        self.current = self._next()
        self.current.go()

    def trace(self, frame: Any, event: str, argument: Any) -> Any:
        """Make the lines of `files` switch points too."""
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self.point()
        return self.trace

    def _next(self) -> Actor:
        self.points += 1
        alive = [actor for actor in self.actors if not actor.done]
        if self.stuck:
            return alive[0]
        if self.points > MOST_POINTS:
            return self._give_up(alive, "the schedule does not end")
        if self._early and self._random.random() < self._early:
            timed = [actor for actor in alive if self.now < actor.until < math.inf]
            if timed:
                self.now = self._random.choice(timed).until
        enabled = [actor for actor in alive if self._is_enabled(actor)]
        if not enabled:
            self._timeouts += 1
            self.now = min((actor.until for actor in alive), default=math.inf)
            if self.now == math.inf:
                return self._give_up(alive, "all wait")
            if self._timeouts > MOST_TIMEOUTS:
                return self._give_up(alive, "all wait or poll")
            enabled = [actor for actor in alive if self._is_enabled(actor)]
        chosen = self.policy(self.points, enabled, self.current)
        if chosen.ready is not None and chosen.ready():
            self._timeouts = 0
        return chosen

    def _is_enabled(self, actor: Actor) -> bool:
        if actor.injected is not None or actor.ready is None or actor.until <= self.now:
            return True
        return actor.ready()

    def _give_up(self, alive: Sequence[Actor], what: str) -> Actor:
        self.stuck = f"{what}: {', '.join(actor.name for actor in alive)}"
        return alive[0]

    # ------------------------------------------------------------------- instead of the real ones

    def thread_class(self) -> type[Actor]:
        return type("Thread", (Actor,), {"scheduler": self})

    def queue_class(self) -> type[Queue]:
        return type("SimpleQueue", (Queue,), {"scheduler": self})

    def threading(self) -> Any:
        """Stand-in for the module `threading` under this schedule."""
        return SimpleNamespace(
            Thread=self.thread_class(),
            Lock=type("Lock", (Lock,), {"scheduler": self}),
            Event=type("Event", (Event,), {"scheduler": self}),
            Semaphore=type("Semaphore", (Semaphore,), {"scheduler": self}),
            current_thread=lambda: self.current,
        )

    def time(self) -> Any:
        """Stand-in for the module `time`: every reading advances the clock by one tick."""

        def seconds() -> float:
            self.now += 1e-6
            return self.now

        return SimpleNamespace(
            monotonic=seconds,
            perf_counter=seconds,
            perf_counter_ns=lambda: int(seconds() * 1e9),
            thread_time_ns=lambda: int(seconds() * 1e9),
        )


class Queue:
    """`queue.SimpleQueue`."""

    scheduler: Scheduler

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def put(self, item: Any) -> None:
        self.scheduler.point()
        self._items.append(item)

    def get(self, timeout: float = math.inf) -> Any:
        self.scheduler.wait(lambda: bool(self._items), timeout)
        if not self._items:
            raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        self.scheduler.point()
        return not self._items


class Lock:
    scheduler: Scheduler

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        self.scheduler.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        self.scheduler.point()


class Event:
    scheduler: Scheduler

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self.scheduler.point()
        self._set = True

    def is_set(self) -> bool:
        self.scheduler.point()
        return self._set

    def wait(self, timeout: float = math.inf) -> bool:
        self.scheduler.wait(lambda: self._set, timeout)
        return self._set


class Semaphore:
    scheduler: Scheduler

    def __init__(self, value: int = 1) -> None:
        self._value = value

    def acquire(self) -> None:
        self.scheduler.wait(lambda: self._value > 0)
        self._value -= 1

    def release(self) -> None:
        self.scheduler.point()
        self._value += 1


@contextmanager
def replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Context in which attributes of modules are replaced."""
    before = [(where, name, getattr(where, name)) for where, name, _ in places]
    for where, name, value in places:
        setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
