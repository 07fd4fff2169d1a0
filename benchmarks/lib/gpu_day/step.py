"""`Step`: a Python command with its requirements and its estimated time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GPU_DAY = "patchmill.benchmarks.lib.gpu_day"
PYTEST = ("-q", "-p", "no:cacheprovider", "-p", f"{GPU_DAY}.plugin",
          "-o", "faulthandler_timeout=90", "--continue-on-collection-errors")  # fmt: skip

# On one core: compiling the kernels of `make compile-matrix` takes 1.3 on average, with Triton 3.6
# for Hopper; the rest is for the C compiler, which compiles the launchers of kernels.
SECONDS_A_VARIANT = 1.7


@dataclass(frozen=True)
class Step:
    name: str
    title: str
    arguments: tuple[str, ...]  # of Python's command line; {cores} is substituted
    seconds: float  # excluding compilation
    variants: int = 0  # of kernels, which are compiled first
    processes: int = 1  # that compile and share the tests; 1 if they inspect GPU memory
    needs: tuple[str, ...] = ()  # modules, besides torch, Triton, NumPy and Numba
    under: tuple[str, ...] = ()  # the program, with options, that runs the command
    gpu: bool = True
    writes: Literal["json", "tests", ""] = "json"
    small: tuple[str, ...] | None = ()  # arguments for a rehearsal on a CPU; None: no rehearsal

    def parallel(self, cores: int) -> int:
        return max(1, min(self.processes, cores))

    def estimate(self, cores: int) -> float:
        """Estimated seconds, from the number of variants to compile."""
        return self.seconds + self.variants * SECONDS_A_VARIANT / self.parallel(cores)

    def limit(self, cores: int) -> float:
        """Seconds after which the step is stopped, if that much time is left."""
        return 2 * self.estimate(cores) + 30

    def command(self, out: Path, cores: int, rehearse: bool = False) -> tuple[str, ...]:
        """Arguments of `python`."""
        arguments = [*self.arguments, *((self.small or ()) if rehearse else ())]
        if self.writes == "tests":
            count = 1 if rehearse else self.parallel(cores)
            arguments = ["-m", f"{GPU_DAY}.shards", str(count), *PYTEST, *arguments]
        elif self.writes == "json":
            arguments += ["--json", str(self.result(out))]
        return tuple(word.replace("{cores}", str(1 if rehearse else cores)) for word in arguments)

    def result(self, out: Path) -> Path:
        return out / f"{self.name}.{'jsonl' if self.writes == 'tests' else 'json'}"
