"""What a preparation tells at its end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.prepare import make_masks
from patchmill.loaders.prepare.run import Outcome


def summary(outcome: Outcome) -> str:
    tally = outcome.tally
    lines = [
        f"{tally.samples:,} images, {size(tally.source_bytes)} in the source, "
        f"{size(tally.bytes)} here",
        *(f"  {count:,} {what}" for what, count in sorted(tally.changes.items())),
    ]
    if tally.masks:
        lines.append(f"masks: {counted(tally.masks)}")
    if tally.traits:
        lines.append(f"odd ones: {counted(tally.traits)}")
    if tally.bad:
        lines.append(f"left out: {len(tally.bad):,}, listed in {outcome.place.bad}")
    if outcome.images:
        per_second = outcome.images / max(outcome.seconds, 1e-9)
        megabytes = outcome.source_bytes / max(outcome.seconds, 1e-9) / 1e6
        lines.append(f"{per_second:,.0f} images/s, {megabytes:,.0f} MB/s")
    if outcome.waiting_for:
        ranks = ", ".join(map(str, outcome.waiting_for[:20]))
        lines.append(f"this rank is done; the data set is complete when these are too: {ranks}")
    else:
        lines.append(f"complete: {outcome.place.out}")
    return "\n".join(lines)


def masks_summary(outcome: make_masks.Outcome) -> str:
    lines = []
    if outcome.images:
        per_second = outcome.images / max(outcome.seconds, 1e-9)
        lines.append(f"{outcome.images:,} images, {per_second:,.0f} images/s")
    if outcome.waiting_for:
        ranks = ", ".join(map(str, outcome.waiting_for[:20]))
        lines.append(f"this rank is done; the file is made when these are too: {ranks}")
    elif outcome.out.exists():
        lines += [*mask_lines(mask_file.MaskFile(outcome.out)), f"complete: {outcome.out}"]
    return "\n".join(lines)


def mask_lines(file: mask_file.MaskFile) -> list[str]:
    """What is in a file of masks."""
    counts, made = file.meta["counts"], len(file) - file.meta["counts"]["missing"]
    lines = [
        f"masks      {made:,} by {masks.describe_estimator(file.meta['estimator'])}, "
        f"{size(file.png_bytes / max(made, 1))} each",
        degenerate_line(counts["degenerate"], made),
    ]
    if counts["missing"]:
        first = int(np.argmax(file.states == mask_file.MISSING))
        lines.append(
            f"missing    {counts['missing']:,}, first that of image {first}: {file.why(first)}"
        )
    return lines


def degenerate_line(count: int, made: int) -> str:
    share = count / max(made, 1)
    return f"degenerate {count:,} of them ({share:.1%}), which training does not use"


def counted(counts: Mapping[str, int]) -> str:
    """`12 cmyk, 3 png`, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {what}" for what, count in ranked)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:,.4g} TB"
