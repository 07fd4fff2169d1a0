"""All checks, in the order in which they run."""

from __future__ import annotations

import configparser
import importlib
from pathlib import Path

from trust.check import Check

# Modules with a tuple CHECKS.
MODULES: tuple[str, ...] = (
    "trust.fuzz.images",
    "trust.odd.images",
    "trust.odd.bombs",
    "trust.faults.sources",
    "trust.fuzz.checkpoints",
    "trust.fuzz.coco",
    "trust.fuzz.recipes",
    "trust.fuzz.run_folders",
    "trust.fuzz.states",
    "trust.fuzz.indexes",
    "trust.fuzz.containers",
    "trust.fuzz.below_checksums",
    "trust.fuzz.guided",
    "trust.faults.training",
    "trust.concurrency.crew",
    "trust.faults.disk",
    "trust.faults.kill_caches",
    "trust.elastic.matrix",
    "trust.soak.paced",
    "trust.concurrency.shared_cache",
    "trust.faults.clocks",
    "trust.faults.no_memory",
    "trust.faults.memory_limit",
    "trust.faults.ranks",
    "trust.faults.signal_storms",
    "trust.supply.hostile",
)


def checks() -> dict[str, Check]:
    found: dict[str, Check] = {}
    for module in MODULES:
        for check in importlib.import_module(module).CHECKS:
            if check.name in found:
                raise ValueError(f"two checks are named {check.name}")
            found[check.name] = check
    return found


def helper_folders() -> list[str]:
    """Folders of shared test helpers, as configured for pytest."""
    root = Path(__file__).resolve().parents[2]
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    return [str(root / name) for name in config["tool:pytest"]["pythonpath"].split()]
