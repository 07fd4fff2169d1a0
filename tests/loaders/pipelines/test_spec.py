"""Choice of the pipeline, and the log line that says why."""

from __future__ import annotations

import logging
import sys
import types
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_pipelines import make_loader

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import spec

CPU, GPU = (SimpleNamespace(device=torch.device(name)) for name in ("cpu", "cuda:1"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of stand-ins for the pipelines, which may need a GPU: folder and arguments."""
    calls: list[Any] = []

    def replace(folder: str, name: str) -> None:
        path = f"patchmill.loaders.pipelines.{folder}.pipeline"
        stub = types.ModuleType(path)
        setattr(stub, name, lambda *arguments: calls.append((folder, *arguments)))
        monkeypatch.setitem(sys.modules, path, stub)

    replace("cpu", "CpuThreadsPipeline")
    replace("gpu", "GpuThreadsPipeline")
    replace("dali", "DaliPipeline")
    return calls


def make_unavailable(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(
        spec, "unavailable", lambda name: "which is not installed" if name in modules else None
    )


def test_auto_on_the_cpu_is_threads_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "patchmill"):
        loader = make_loader(pipeline="auto")
        make_loader(pipeline="auto")  # logs nothing more
    assert loader.pipeline.name == "threads"
    assert caplog.messages == ["pipeline threads, because the views belong on the CPU"]


@pytest.mark.parametrize("pipeline", ["threads", "dali"])
def test_an_explicit_pipeline_is_not_logged(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    built: list[Any],
    pipeline: str,
) -> None:
    make_unavailable(monkeypatch)
    with caplog.at_level(logging.INFO, "patchmill"):
        spec.choose(pipeline).open(CPU)
    assert not caplog.messages


def test_auto_on_a_gpu_is_dali_where_it_is_installed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, built: list[Any]
) -> None:
    make_unavailable(monkeypatch)
    with caplog.at_level(logging.INFO, "patchmill"):
        spec.choose("auto").open(GPU)
    assert built == [("dali", GPU, None)]
    (line,) = caplog.messages
    assert line == "pipeline dali, because the views belong on cuda:1 and DALI is installed"


def test_auto_on_a_gpu_without_dali_is_threads_and_names_the_remedy(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, built: list[Any]
) -> None:
    make_unavailable(monkeypatch, "nvidia.dali")
    with caplog.at_level(logging.INFO, "patchmill"):
        spec.choose("auto").open(GPU)
    assert built == [("gpu", GPU)]
    (line,) = caplog.messages
    assert line.startswith("pipeline threads, because DALI would be faster, which is not installed")
    assert line.endswith("pip install 'patchmill[dali]'")


@pytest.mark.parametrize("pipeline", ["auto", "threads", "dali"])
def test_no_views_on_a_gpu_without_triton(
    monkeypatch: pytest.MonkeyPatch, built: list[Any], pipeline: str
) -> None:
    make_unavailable(monkeypatch, "triton")
    with pytest.raises(MillError, match="made on a GPU by Triton, which is not installed: pip in"):
        spec.choose(pipeline).open(GPU)
    assert not built


@pytest.mark.parametrize("pipeline", ["auto", "threads", "dali"])
def test_no_views_on_a_gpu_without_a_c_compiler(
    monkeypatch: pytest.MonkeyPatch, built: list[Any], pipeline: str
) -> None:
    make_unavailable(monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MillError, match=r"through a C compiler, and there is neither gcc.* gcc"):
        spec.choose(pipeline).open(GPU)
    assert not built
    monkeypatch.setenv("CC", "/opt/cc")
    spec.choose(pipeline).open(GPU)
    assert len(built) == 1


def test_dali_on_the_cpu_does_without_triton(
    monkeypatch: pytest.MonkeyPatch, built: list[Any]
) -> None:
    make_unavailable(monkeypatch, "triton")
    spec.choose("dali").open(CPU)
    assert built == [("dali", CPU, None)]


@pytest.mark.parametrize(("share", "expected"), [("0", 0), ("0.5", 0.5), ("1", 1), ("None", None)])
def test_the_hardware_share_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, built: list[Any], share: str, expected: float | None
) -> None:
    make_unavailable(monkeypatch)
    spec.choose(f"dali(hardware={share})").open(GPU)
    assert built == [("dali", GPU, expected)]


@pytest.mark.parametrize("share", ["-0.1", "1.01", "'half'", "1e999", "[0.5]"])
def test_a_share_is_from_0_to_1(share: str) -> None:
    with pytest.raises(MillError, match="hardware must be a share from 0 to 1, not "):
        spec.choose(f"dali(hardware={share})")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dali(software=1)", "pipeline dali has no setting 'software'; "),
        ("threads(workers=3)", "pipeline threads has no setting 'workers'; it has no settings"),
        ("dali(0.5)", "cannot read 'dali\\(0.5\\)'"),
        ("", "cannot read ''"),
        ("Threads", "there is no pipeline 'Threads'; did you mean 'threads'"),
    ],
)
def test_a_wrong_pipeline_is_a_mill_error(text: str, expected: str) -> None:
    with pytest.raises(MillError, match=expected):
        spec.choose(text)


def test_missing_modules_are_distinguished_from_broken_ones(
    tmp_path: Any, monkeypatch: Any
) -> None:
    (tmp_path / "brokenlibrary.py").write_text("raise OSError('libcudart.so.99: cannot\\nopen')")
    monkeypatch.syspath_prepend(tmp_path)
    assert spec.unavailable("json") is None
    assert spec.unavailable("no_such_library") == "which is not installed"
    assert spec.unavailable("brokenlibrary") == (
        "which cannot be loaded (libcudart.so.99: cannot open)"
    )
