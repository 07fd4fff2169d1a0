"""The decoder's use of DALI on a GPU, against the operators and classes of the installed DALI.

Nothing here needs a driver: the graph of the pipeline is defined as for a GPU, and not run.
"""

from __future__ import annotations

import inspect
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from helpers_dali_jpegs import jpeg

pytest.importorskip("nvidia.dali", reason="needs DALI")

from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.tensors import TensorCPU, TensorGPU, TensorListCPU, TensorListGPU

from patchmill.loaders.pipelines.dali import decoder as decoder_module
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
INT32 = range(-(1 << 31), 1 << 31)
# Types that Python's values have, by that of a schema's argument.
PYTHON: dict[Any, tuple[type, ...]] = {
    types.DALIDataType.BOOL: (bool,),
    types.DALIDataType.INT32: (int,),
    types.DALIDataType.INT64: (int,),
    types.DALIDataType.FLOAT: (float, int),
    types.DALIDataType.STRING: (str,),
    types.DALIDataType.IMAGE_TYPE: (types.DALIImageType,),
    types.DALIDataType.DATA_TYPE: (types.DALIDataType,),
}


def mistakes(operator: str, arguments: dict[str, Any]) -> list[str]:
    """List what an operator's schema says against a call with these arguments."""
    schema, found = backend.GetSchema(operator), []
    arguments = {name: it for name, it in arguments.items() if name != "name"}
    device = arguments.pop("device", "cpu")
    if device not in schema.GetSupportedBackends():
        found.append(f"no backend {device}")
    for name, value in arguments.items():
        if not schema.HasArgument(name):
            found.append(f"no argument {name}")
        elif schema.IsDeprecatedArg(name):
            found.append(f"{name} is deprecated")
        else:
            wanted = PYTHON[schema.GetArgumentType(name)]
            if type(value) not in wanted or (wanted == (int,) and value not in INT32):
                found.append(f"{name}={value!r} is not {wanted[0].__name__}")
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Operators, and what they are called with, while a graph is defined that is not run."""
    seen: list[tuple[str, dict[str, Any]]] = []
    for module, name, operator in (
        (fn, "external_source", "ExternalSource"),
        (fn.decoders, "image", "decoders__Image"),
    ):
        real = getattr(module, name)

        def call(*inputs: Any, real: Any = real, operator: str = operator, **arguments: Any) -> Any:
            seen.append((operator, arguments))
            return real(*inputs, **arguments)

        monkeypatch.setattr(module, name, call)
    monkeypatch.setattr(Pipeline, "build", Pipeline._build_graph)
    return seen


@pytest.mark.parametrize("hardware", [None, 0.0, 0.65, 1.0])
def test_every_argument_is_one_that_the_operator_knows(
    calls: list[tuple[str, dict[str, Any]]], hardware: float | None
) -> None:
    decoder_module._build_pipeline(8, GPU, 2, hardware)
    assert [name for name, _ in calls] == ["ExternalSource", "decoders__Image"]
    assert calls[1][1]["device"] == "mixed"
    assert ("hw_decoder_load" in calls[1][1]) == (hardware is not None)
    for operator, arguments in calls:
        assert mistakes(operator, arguments) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"device": "gpu"}, "no backend gpu"),
        ({"hw_decoder_share": 0.5}, "no argument hw_decoder_share"),
        ({"affine": 0}, "affine=0 is not bool"),
        ({"device_memory_padding": 1 << 31}, "device_memory_padding=2147483648 is not int"),
        ({"hw_decoder_load": "half"}, "hw_decoder_load='half' is not float"),
        ({"split_stages": True}, "split_stages is deprecated"),
    ],
)
def test_what_an_operator_does_not_know_is_noticed(
    arguments: dict[str, Any], complaint: str
) -> None:
    assert mistakes("decoders__Image", arguments) == [complaint]


def test_the_graph_ends_in_images_on_the_gpu(calls: list[Any]) -> None:
    pipeline = decoder_module._build_pipeline(8, GPU, 2, 0.5)
    source, decoder = (op.spec for op in pipeline._ops)
    assert [decoder.InputName(i) for i in range(decoder.NumInput())] == [source.OutputName(0)]
    assert (source.OutputDevice(0), decoder.InputDevice(0)) == ("cpu", "cpu")
    assert (decoder.OutputDevice(0), decoder.NumOutput()) == ("gpu", 1)
    assert (pipeline.device_id, pipeline.max_batch_size, pipeline.num_threads) == (0, 8, 2)
    assert pipeline.prefetch_queue_depth == 1
    pipeline._require_exec_dynamic("outputs on a stream of ours need")  # raises, or does not


def test_streams_of_torch_are_taken_as_they_are() -> None:
    """torch.cuda.Stream has its handle as `cuda_stream`, and no other name that DALI asks first."""

    class Stream:
        cuda_stream = 0x1234

    assert types._raw_cuda_stream(Stream()) == 0x1234
    assert hasattr(torch.cuda.Stream, "cuda_stream")
    assert "cuda_stream" in inspect.signature(Pipeline.outputs).parameters


@pytest.mark.parametrize(
    ("on_cpu", "on_gpu"), [(TensorCPU, TensorGPU), (TensorListCPU, TensorListGPU)]
)
def test_tensors_on_a_gpu_have_what_the_decoder_asks_of_them(on_cpu: type, on_gpu: type) -> None:
    asked = {"shape", "data_ptr"} | ({"__getitem__"} if on_cpu is TensorListCPU else set())
    assert asked <= set(dir(on_gpu)) and asked <= set(dir(on_cpu))


def test_engines_and_settings_of_nvimgcodec_exist() -> None:
    from nvidia import nvimgcodec

    kinds = ("CPU_ONLY", "HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")
    assert all(isinstance(getattr(nvimgcodec, kind), nvimgcodec.BackendKind) for kind in kinds)
    assert isinstance(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, int)
    signature = nvimgcodec.Decoder.__init__.__doc__ or ""
    assert all(name in signature for name in ("device_id", "max_num_cpu_threads", "backends"))


# ------------------------------------------- what the decoder relies on, of DALI as it runs here


def real_pipeline() -> Pipeline:
    return decoder_module._build_pipeline(4, CPU, 2, None)


def feed(pipeline: Pipeline, encoded: list[np.ndarray]) -> None:
    pipeline.feed_input("encoded", decoder_module._tensor_list(encoded))


def test_a_run_takes_one_input_and_makes_one_output() -> None:
    """Inputs wait for their own run; any number of runs may wait for their outputs, in order."""
    pipeline, heights = real_pipeline(), [20, 30, 40, 50, 60]
    for height in heights[:3]:
        feed(pipeline, [jpeg(0, height, 10)])
    for _ in range(3):
        pipeline.schedule_run()
    for height in heights[3:]:
        feed(pipeline, [jpeg(0, height, 10)])
        pipeline.schedule_run()
    found = [pipeline.outputs()[0].shape()[0][0] for _ in heights]
    assert found == heights
    with pytest.raises(StopIteration):
        pipeline.outputs()


def test_outputs_are_not_taken_back_by_later_runs() -> None:
    """A list that is kept has memory of its own, however many batches are made after it."""
    decoder, kept = BatchDecoder(4, device=CPU, threads=2, ahead=3), deque()
    for seed in range(3):
        decoder.submit([jpeg(seed, 33, 21)] * 4)
    for seed in range(3, 12):
        batch = decoder.take()
        kept.append((batch, batch.array(0).copy()))
        decoder.submit([jpeg(seed, 33, 21)] * 4)
    addresses = [batch.images.pointers[0] for batch, _ in kept]
    assert len(set(addresses)) == len(kept)
    for batch, pixels in kept:
        np.testing.assert_array_equal(batch.array(0), pixels)


def test_memory_that_nobody_keeps_is_lent_again() -> None:
    decoder, addresses = BatchDecoder(4, device=CPU, threads=2, ahead=1), set()
    for seed in range(40):
        decoder.submit([jpeg(seed, 330, 210)] * 4)
        addresses.add(int(decoder.take().images.pointers[0]))
    assert len(addresses) < 10
