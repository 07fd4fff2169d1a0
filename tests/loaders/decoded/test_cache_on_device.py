"""`cache="device:..."`: the sentences for what cannot be, and the bytes for what can."""

from __future__ import annotations

import pytest
import torch
from helpers_pipelines import make_loader

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import on_device, spec
from patchmill.loaders.decoded.on_device import device_capacity
from patchmill.loaders.decoded.opening import open_store

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def a_gpu_with_40_gb_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "free_bytes", lambda device: 40_000_000_000)


def test_bytes_of_the_device() -> None:
    assert device_capacity("device:20GB", GPU) == 20_000_000_000
    assert device_capacity(" device: 1.5GiB", GPU) == 3 << 29
    assert device_capacity("ram:20GB", GPU) is None
    assert device_capacity(None, GPU) is None
    assert str(spec.parse("device:20GB")) == "device:20GB"


def test_a_cpu_is_refused() -> None:
    with pytest.raises(MillError) as error:
        make_loader(8, cache="device:20MB")
    assert str(error.value) == (
        "cache='device:20MB' keeps images in GPU memory, but device is 'cpu': use "
        "cache='ram:20MB', or device='cuda'"
    )


def test_more_than_the_gpu_has_free() -> None:
    with pytest.raises(MillError) as error:
        device_capacity("device:41GB", GPU)
    assert str(error.value) == (
        "cache='device:41GB' is larger than the 40GB free on cuda:0: use a smaller one"
    )


@pytest.mark.parametrize(
    "text",
    ["device", "device:", "device:0:20GB", "device:/scratch:20GB", "ram:1GB,device:20GB"],
)
def test_no_folder_and_no_second_cache(text: str) -> None:
    with pytest.raises(MillError, match=r"cache must be .*, not "):
        device_capacity(text, GPU)


def test_streams_have_no_numbers_to_keep_images_by() -> None:
    class Streamed:
        name, sample_count = "shards", None

    with pytest.raises(MillError, match="shards is streamed"):
        open_store("device:20GB", Streamed())  # type: ignore[arg-type]
