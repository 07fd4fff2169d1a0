"""How the threads of torch's operations wait for each other on a CPU."""

from __future__ import annotations

import os


def wait_asleep() -> None:
    """Threads that wait give their core away; to be called before torch is imported.

    By default they spin. Where others want the cores, as the loader's threads do, they then keep
    those from working that they wait for: on two busy cores a step of 0.2 s took up to 9 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
