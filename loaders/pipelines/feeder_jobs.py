"""FeederJobs: jobs on their way from the crew to its feeder, and how many it may finish by now."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

_NEWS = object()  # a job is loaded, or more jobs are allowed


class FeederJobs:
    """Queue of the jobs of one iteration, in order.

    A feeder with a decoder has more jobs in hand than batches are wanted: it may make the views of
    the first `allowed` of them, so that batches ahead take no more memory than without a decoder.
    """

    def __init__(self) -> None:
        self.allowed = 0
        self.over = False  # nobody waits for any of the jobs
        self._news: SimpleQueue[Any] = SimpleQueue()  # may be put into by the garbage collector

    def put(self, job: Any) -> None:
        """Pass on a job, and later the news that it is loaded."""
        job.loaded.then = self._tell
        self._news.put(job)

    def allow(self, jobs: int) -> None:
        """Let the feeder make so many jobs in all."""
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
        """Jobs that have come, if any; with `wait`, wait until there is news of any kind."""
        while wait or not self._news.empty():
            news, wait = self._news.get(), False
            if news is None:
                self.over = True
            elif news is not _NEWS:
                return [news]
        return []

    def _tell(self) -> None:
        self._news.put(_NEWS)
