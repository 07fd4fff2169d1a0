"""Text formatting shared by the summaries of a preparation and `inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from patchmill.loaders.copypaste import mask_file, masks


def mask_file_lines(file: mask_file.MaskFile) -> list[str]:
    """Counts, method and size of a file of masks."""
    counts, made, estimator = (
        file.counts,
        len(file) - file.counts["missing"],
        file.meta["estimator"],
    )
    by = f" by {masks.describe_estimator(estimator)}" if estimator else ""
    lines = [
        f"masks      {made:,}{by}, {format_bytes(file.png_bytes / max(made, 1))} each",
        degenerate_line(counts["degenerate"], made),
    ]
    if counts["missing"]:
        first = int(np.argmax(file.states == mask_file.MISSING))
        lines.append(
            f"missing    {counts['missing']:,}, the first for image {first}: {file.why(first)}"
        )
    return lines


def degenerate_line(count: int, made: int) -> str:
    share = count / max(made, 1)
    return f"degenerate {count:,} of them ({share:.1%}), which training does not use"


def format_counts(counts: Mapping[str, int]) -> str:
    """`12 cmyk, 3 png`, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ranked)


def format_ranks(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:20])) + (", ..." if len(ranks) > 20 else "")


def format_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:,.4g} TB"
