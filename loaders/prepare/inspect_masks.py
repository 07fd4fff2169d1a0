"""What masks are inside data or a file, and whether all of them are as they were written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.copypaste import masks
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.copypaste.masks import DEGENERATE, MISSING, UNREADABLE, USED, Masks
from patchmill.loaders.prepare.report import degenerate_line, mask_lines
from patchmill.loaders.sources import Source

_THREADS = 2  # one reads while the other decodes
_NAMED = 20  # problems that are told one by one


def inspect_file(path: Path) -> tuple[str, list[str]]:
    """Of a file of masks: lines to print, and what differs from what was written."""
    file = MaskFile(path)
    found = Masks(str(path), "", file)
    counts, problems = _look(found, range(len(file)))
    verified = len(file) - counts[MISSING]
    verdict = f"{len(problems):,} problems" if problems else "nothing differs"
    lines = [
        f"format     masks of {len(file):,} images, made by {file.meta['made_by']}",
        *mask_lines(file),
        f"with       at most {file.meta['max_side']} px on the longer side",
        f"verified   the checksums of {verified:,} masks: {verdict}",
    ]
    return "\n".join(lines), problems


def inside(source: Source) -> tuple[list[str], list[str]]:
    """Of data that may have masks: lines, and problems."""
    found = masks.source_masks(source)
    if found is None:
        return [], []
    counts, problems = _look(found, range(len(source)))
    made = counts[USED] + counts[DEGENERATE]
    by = f" by {masks.describe_estimator(found.estimator)}" if found.estimator else ""
    lines = [f"masks      {made:,}{by}", degenerate_line(counts[DEGENERATE], made)]
    if counts[MISSING]:
        lines.append(f"unmasked   {counts[MISSING]:,} images")
    return lines, problems


def _look(found: Masks, ids: range) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    problems = []
    with track(f"verifying masks of {found.name}", len(ids)) as advance:
        for state, problem in map_in_threads(lambda id: _one(found, id), ids, _THREADS):
            counts[state] += 1
            if problem:
                problems.append(problem)
            advance(1)
    if len(problems) > _NAMED:
        problems[_NAMED:] = [f"and so in {len(problems) - _NAMED:,} more masks"]
    return counts, problems


def _one(found: Masks, id: int) -> tuple[str, str]:
    try:
        look = found.lookup(id)
    except MillError as error:
        return UNREADABLE, str(error)
    problem = f"mask {id} of {found.name}: {look.why}" if look.state == UNREADABLE else ""
    return look.state, problem
