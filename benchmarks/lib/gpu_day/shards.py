"""Run pytest in several processes that share the tests, without needing pytest-xdist.

python -m patchmill.benchmarks.lib.gpu_day.shards COUNT [pytest's arguments ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from patchmill.benchmarks.lib.gpu_day.outcomes import SHARD

NOTHING = 5  # pytest's exit status if no test was selected


def main(argv: Sequence[str]) -> int:
    """Wait for all processes; return their worst exit status, of which `NOTHING` is the mildest."""
    count, *arguments = argv
    command = [sys.executable, "-m", "pytest", *arguments]
    processes = [
        subprocess.Popen(command, env={**os.environ, SHARD: f"{number}/{count}"})
        for number in range(int(count))
    ]
    ended = [process.wait() for process in processes]
    some = [status for status in ended if status != NOTHING]
    return max(map(abs, some), default=NOTHING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
