"""FeederJobs: the queue of jobs from the crew to its feeder, and how many it may finish by now."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

_NEWS = object()  # a job is loaded, or more jobs are allowed


class FeederJobs:
    """Queue of the jobs of one iteration, in order.

    A feeder with a decoder holds more jobs than batches are wanted: it may make the views of only
    the first `allowed` of them, so that batches ahead take no more memory than without a decoder.
    """

    def __init__(self) -> None:
        self.allowed = 0
        self.over = False  # True: no one waits for any of the jobs
        self._news: SimpleQueue[Any] = SimpleQueue()  # the garbage collector may put into it

    def put(self, job: Any) -> None:
        """Pass on a job, and later a notification that it is loaded."""
        job.loaded.then = self._tell
        self._news.put(job)

    def allow(self, jobs: int) -> None:
        """Let the feeder make this many jobs in total."""
        if jobs > self.allowed:
            self.allowed = jobs
            self._tell()

    def end(self) -> None:
        self._news.put(None)

    def get(self) -> Any:
        """Wait for the next job; None once there are no more."""
        while not self.over:
            for job in self.receive(wait=True):
                return job
        return None

    def receive(self, wait: bool) -> list[Any]:
        """Jobs that have arrived, if any; with `wait`, block until there is news of any kind."""
        while wait or not self._news.empty():
            news, wait = self._news.get(), False
            if news is None:
                self.over = True
            elif news is not _NEWS:
                return [news]
        return []

    def _tell(self) -> None:
        self._news.put(_NEWS)
