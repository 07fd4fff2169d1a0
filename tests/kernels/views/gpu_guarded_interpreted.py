"""The GPU renderer and copies of images between protected pages, interpreted.

Pixels are read in words that hold at least one byte of the image: no word crosses a page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import helpers_interpreter
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble
from helpers_views import Case, PasteCase, cases, paste_cases

from patchmill.kernels.views import reference
from patchmill.kernels.views.gpu import render as gpu
from patchmill.kernels.views.gpu.copy import PART, copy_images

LARGEST = 40  # side of a view: four tiles
MOST = 2 / 255  # error of a value; parity tests are stricter


def views_are_right(
    case: Case | PasteCase, channels_last: bool, mask: Any = None, background: Any = None
) -> None:
    target = replace(case.target, size=min(case.target.size, LARGEST))
    rows = np.array([[case.row]])
    extras = {"masks": [mask], "backgrounds": [background]} if mask is not None else {}
    right = reference.render([case.image], rows, [target], **extras)["view"]
    std = torch.tensor(target.std)[:, None, None]
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            image, *others = memory.given(
                *(
                    None if it is None else torch.from_numpy(it)
                    for it in (case.image, mask, background)
                )
            )
            there = {name: [it] for name, it in zip(extras, others, strict=False)}
            views = gpu.render([image], rows, [target], channels_last=channels_last, **there)
        error = (views["view"] - right).abs() * std
        assert error.max() <= MOST, error.max()


@random_cases(5)
@given(cases(), st.booleans())
def views(case: Case, channels_last: bool):
    views_are_right(case, channels_last)


@random_cases(3)
@given(paste_cases(LARGEST))
def pasted_views(case: PasteCase):
    views_are_right(case, False, case.mask, case.background)


@random_cases(8)
@given(st.lists(st.sampled_from([1, 3, PART - 1, PART, PART + 1]), min_size=1, max_size=3))
def copies(sizes: list[int]):
    images = [torch.randint(1, 255, (size,)).byte() for size in sizes]
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            sources = memory.given(*images)
            targets = [torch.empty(size, dtype=torch.uint8) for size in sizes]
            addresses = [np.array([it.data_ptr() for it in all_]) for all_ in (sources, targets)]
            copy_images(*addresses, np.array(sizes, np.int64), torch.device("cpu"))
        for image, target in zip(images, targets, strict=True):
            assert torch.equal(target, image)


@pytest.mark.parametrize("check", [views, pasted_views, copies])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
