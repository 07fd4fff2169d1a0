"""Describe the masks in a file or inside data, and verify their checksums."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.copypaste import masks as source_masks
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.copypaste.masks import DEGENERATE, MISSING, UNREADABLE, USED, Masks
from patchmill.loaders.prepare.report import degenerate_line, mask_file_lines
from patchmill.loaders.sources import Source

_THREADS = 2  # so that one reads while the other decodes
_MAX_PROBLEMS = 20  # listed one by one


def inspect_file(path: Path) -> tuple[str, list[str]]:
    """Describe a file of masks; return the text to print, and differences from what was written."""
    file = MaskFile(path)
    counts, problems = _verify(Masks(str(path), "", file), range(len(file)))
    verified = len(file) - counts[MISSING]
    verdict = f"{len(problems):,} problems" if problems else "nothing differs"
    lines = [
        f"format     masks of {len(file):,} images, made by {file.meta['made_by']}",
        *mask_file_lines(file),
        f"options    at most {file.meta['max_side']} px on the longer side",
        f"verified   the checksums of {verified:,} masks: {verdict}",
    ]
    return "\n".join(lines), problems


def inspect_inside(source: Source) -> tuple[list[str], list[str]]:
    """Describe the masks inside data, if there are any; return lines to print, and problems."""
    masks = source_masks.source_masks(source)
    if masks is None:
        return [], []
    counts, problems = _verify(masks, range(len(source)))
    made = counts[USED] + counts[DEGENERATE]
    by = f" by {source_masks.describe_estimator(masks.estimator)}" if masks.estimator else ""
    lines = [f"masks      {made:,}{by}", degenerate_line(counts[DEGENERATE], made)]
    if counts[MISSING]:
        lines.append(f"unmasked   {counts[MISSING]:,} images")
    return lines, problems


def _verify(masks: Masks, ids: range) -> tuple[Counter[str], list[str]]:
    """Count the masks by state, and list the unreadable ones."""
    counts: Counter[str] = Counter()
    problems = []
    with track(f"verifying masks of {masks.name}", len(ids)) as advance:
        for state, problem in map_in_threads(lambda id: _verify_one(masks, id), ids, _THREADS):
            counts[state] += 1
            if problem:
                problems.append(problem)
            advance(1)
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS:,} more masks like these"]
    return counts, problems


def _verify_one(masks: Masks, id: int) -> tuple[str, str]:
    try:
        mask = masks.lookup(id)
    except MillError as error:
        return UNREADABLE, str(error)
    problem = f"mask {id} of {masks.name}: {mask.why}" if mask.state == UNREADABLE else ""
    return mask.state, problem
