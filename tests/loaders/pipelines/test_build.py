"""Argument checks of `build`: one sentence, before the first image."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers_pipelines import GLANCE, Pictures, make_loader
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill import loaders
from patchmill.loaders.build import default_workers
from patchmill.loaders.common.errors import MillError

BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    ({"batch_size": -4}, "batch_size"),
    ({"batch_size": 2.0}, "batch_size"),
    ({"batch_size": "8"}, "batch_size"),
    ({"batch_size": True}, "batch_size"),
    ({"batch_size": None}, "batch_size"),
    (
        {"batch_size": 25},
        "pictures has 24 samples, fewer than one global batch of 25: use a smaller",
    ),
    (
        {"batch_size": 9, "rank": 0, "world_size": 3},
        "fewer than one global batch of 9 x 3 ranks",
    ),
    ({"world_size": 3}, "world_size=3 does not fit this process, which is rank 0 of 1: give rank"),
    (
        {"batch_size": 2, "world_size": 7, "rank": 1, "drop_last": False, "data": 15},
        "the last batch of pictures has 1 samples for 7 ranks",
    ),
    ({"world_size": 0}, "world_size"),
    ({"rank": -1}, "rank must be a whole number from 0 to 0, not -1"),
    ({"rank": 2, "world_size": 2}, "rank must be a whole number from 0 to 1, not 2"),
    ({"rank": 0.0}, "rank"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seed": None}, "seed"),
    ({"workers": 0}, "workers must be a whole number from 1 to 1024, or 'auto', not 0"),
    ({"workers": 10**6}, "workers"),
    ({"workers": "all"}, "workers"),
    ({"prefetch": 0}, "prefetch"),
    ({"prefetch": False}, "prefetch"),
    ({"drop_last": "no"}, "drop_last must be True or False, not 'no'"),
    ({"drop_last": 1}, "drop_last"),
    ({"channels_last": None}, "channels_last"),
    ({"channels_last": torch.channels_last}, "channels_last"),
    ({"pipeline": "dally"}, "there is no pipeline 'dally'; did you mean 'dali'"),
    ({"pipeline": None}, "pipeline must be one of auto, threads, .*, not None"),
    ({"pipeline": "dali(hardware=2)"}, "hardware must be a share from 0 to 1, not 2"),
    ({"dtype": torch.float64}, "dtype must be one of torch.float32, .*, not torch.float64"),
    ({"dtype": "float32"}, "dtype"),
    ({"dtype": np.float32}, "dtype"),
    ({"device": "gpu"}, "device must be 'cpu', 'cuda' or 'cuda:N', not 'gpu'"),
    ({"device": "meta"}, "device"),
    ({"device": None}, "device"),
    ({"device": b"\x80"}, "device"),
    ({"device": 128}, "device"),
    ({"device": "cuda:99"}, "device 'cuda:99' was requested, but torch sees"),
    ({"ledger": 5}, "ledger must be the path of a file"),
    ({"ledger": "/"}, "ledger must be the path of a file, not '/'"),
    ({"recipe": "dinno"}, "there is no preset 'dinno'; did you mean 'dino'"),
    ({"recipe": "dino(crops=3)"}, "crops"),
    ({"recipe": "missing.yaml"}, "cannot read the recipe missing.yaml: No such file"),
    ({"recipe": 5}, "or a YAML file, not 5"),
    ({"recipe": loaders.presets.dino}, r"is a function: call it, as presets.dino\(\)"),
    ({"recipe": loaders.Views("a", 2, 8)}, "or a YAML file, not a Views"),
    ({"recipe": [loaders.Views("a", 2, 8)]}, "or a YAML file, not a list"),
    ({"recipe": None}, "None"),
    ({"data": 0}, "pictures has no samples"),
    ({"data": "/no/such/folder"}, "there is no folder '/no/such/folder'"),
    ({"data": "no/such/folder"}, "there is no folder 'no/such/folder' in /.*: check the path"),
    ({"data": "/photos/*/*.jpg"}, "patterns name shards .* or a list of paths"),
    ({"data": "http://127.0.0.1/a.jpg"}, "is an image, and only shards can be streamed"),
    ({"data": "scenes:many"}, "cannot parse 'scenes:many'"),
    ({"data": None}, "cannot read data from None"),
    ({"data": 3.5}, "cannot read data from 3.5"),
]


def id_of(wrong: dict[str, Any]) -> str:
    """The same in every process of pytest-xdist: without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(wrong)[1:-1])


@pytest.mark.parametrize(("wrong", "expected"), BAD, ids=[id_of(wrong) for wrong, _ in BAD])
def test_every_wrong_argument_is_named_in_one_sentence(
    wrong: dict[str, Any], expected: str
) -> None:
    arguments = {"data": 24, **wrong}
    data = arguments.pop("data")
    with pytest.raises(MillError, match=expected) as error:
        make_loader(data, arguments.pop("recipe", GLANCE), **arguments)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    assert error.value.__suppress_context__ or error.value.__context__ is None


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
SETTINGS = (
    "batch_size",
    "seed",
    "rank",
    "world_size",
    "workers",
    "prefetch",
    "drop_last",
    "channels_last",
    "dtype",
    "device",
    "pipeline",
    "recipe",
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SETTINGS), ANYTHING)
def test_any_argument_works_or_is_a_mill_error(name: str, value: Any) -> None:
    arguments = {"recipe": GLANCE, "batch_size": 4, name: value}
    if name == "prefetch" and isinstance(value, int):
        arguments["prefetch"] = min(value, 10)
    try:
        loader = loaders.build(Pictures(24), **arguments)
    except MillError:
        return
    assert sum(len(batch) for batch in loader) in (24, 24 // len(next(iter(loader))) * 24)


def test_integers_of_any_type_are_accepted() -> None:
    loader = make_loader(batch_size=np.int64(4), seed=np.uint64(2**64 - 1), rank=np.int8(0))
    assert sum(len(batch) for batch in loader) == 24
    assert loader.state_dict()["seed"] == 2**64 - 1
    assert type(loader.state_dict()["consumed"]) is int


def test_workers_share_the_machine_with_the_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    cores = default_workers()
    assert cores >= 1
    for ranks, expected in (("2", max(cores // 2, 1)), ("100000", 1), ("0", cores), ("", cores)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert default_workers() == expected


def test_a_process_that_sees_one_gpu_is_told_what_it_is_called(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MillError, match=r"'cuda:1' was requested, .* 1 GPUs: use device='cuda'"):
        make_loader(device="cuda:1")
