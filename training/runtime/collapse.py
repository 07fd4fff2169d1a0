"""Collapse of a network's outputs: when figures of an evaluation show it, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping

# Ours: untrained ResNets, whose outputs are alike, have a RankMe of 3 % of the dimension and more,
# and a spread of 0.08 and more.
RANK = 0.01  # RankMe below this share of the largest possible
DIRECTIONS = 1.1  # or below this, in a space of few dimensions
SPREAD = 0.02


def has_collapsed(rankme: float, spread: float, most: int) -> bool:
    """True for outputs of few directions, of `most` possible, or of nearly one."""
    return rankme < max(RANK * most, DIRECTIONS) or spread < SPREAD


def sentence(figures: Mapping[str, float]) -> str:
    """`h has collapsed: RankMe 1.0, spread 0.003`; empty if nothing has."""
    return "; ".join(
        f"{space} has collapsed: RankMe {figures.get(f'rankme_{space}', 0):.1f}, "
        f"spread {figures.get(f'spread_{space}', 0):.2g}"
        for space in ("h", "z")
        if figures.get(f"collapsed_{space}")
    )
