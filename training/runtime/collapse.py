"""Collapse of a network's outputs: its detection from an evaluation's metrics, and its message."""

from __future__ import annotations

from collections.abc import Mapping

# Our thresholds: untrained ResNets, whose outputs are similar, have a RankMe of at least 3 % of the
# dimension, and a spread of at least 0.08.
RANK = 0.01  # RankMe below this share of the largest possible
DIRECTIONS = 1.1  # or below this, in a space of few dimensions
SPREAD = 0.02


def has_collapsed(rankme: float, spread: float, most: int) -> bool:
    """True if outputs span few of `most` possible directions, or lie nearly in one."""
    return rankme < max(RANK * most, DIRECTIONS) or spread < SPREAD


def sentence(figures: Mapping[str, float]) -> str:
    """`h has collapsed: RankMe 1.0, spread 0.003`; empty if nothing has."""
    return "; ".join(
        f"{space} has collapsed: RankMe {figures.get(f'rankme_{space}', 0):.1f}, "
        f"spread {figures.get(f'spread_{space}', 0):.2g}"
        for space in ("h", "z")
        if figures.get(f"collapsed_{space}")
    )
