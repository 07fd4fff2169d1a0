"""patchmill doctor: on bare machines, with probes that hang or crash, and on data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchmill
import patchmill.command.doctor.command as command
import patchmill.command.doctor.data as data_probes
import patchmill.command.doctor.decoding as decoding
import patchmill.command.doctor.examine as examine
import patchmill.command.doctor.gpu as gpu
import patchmill.command.doctor.machine as machine
import patchmill.command.doctor.packages as packages
import patchmill.command.doctor.probe as probe
import patchmill.command.doctor.slurm as slurm
from patchmill.command.doctor.finding import Finding
from patchmill.loaders.common.threads import available_cores
from patchmill.loaders.decode import jpeg_engines

ROOT = Path(patchmill.__file__).parents[1]
OPTIONAL = [
    *(
        "nvidia",
        "ffcv",
        "triton",
        "cv2",
        "pyarrow",
        "lmdb",
        "wandb",
        "fsspec",
        "s3fs",
        "onnxruntime",
    ),
    *(
        "pycocotools",
        "torchmetrics",
        "kornia",
        "skimage",
        "torchcodec",
        "matplotlib",
        "transformers",
    ),
]
# What `sitecustomize` runs at the start of every Python: imports of some modules do `{action}`.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            {action}
sys.meta_path.insert(0, Hidden())
"""


def hide(folder: Path, names: list[str], action: str = "") -> dict[str, str]:
    """Environment in which these modules are missing and no program is installed."""
    missing = 'raise ModuleNotFoundError(f"No module named {name!r}", name=name)'
    text = HIDE.format(names=names, action=action or missing)
    (folder / "sitecustomize.py").write_text(text)
    path = f"{folder}{os.pathsep}{ROOT}"
    return {**os.environ, "PYTHONPATH": path, "PATH": str(folder / "bin")}


def doctor(environment: dict[str, str], *argv: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    command = [sys.executable, "-m", "patchmill", "doctor", "--json", *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def states(findings: list[Any]) -> dict[str, str]:
    return {each["name"]: each["state"] for each in findings}


# ------------------------------------------------------------------------------------ bare machines


def test_a_machine_without_any_package(tmp_path: Path):
    needed = [packages.module_of(packages.parse(each)[0]) for each in packages.requirements()[""]]
    code, report = doctor(hide(tmp_path, [*needed, *OPTIONAL]))
    assert code == 1
    assert states(report["GPU"]) == {"GPU": "absent", "torch": "broken", "Triton": "absent"}
    assert states(report["decoding"]) == {"JPEG": "broken", "Numba": "broken"}
    assert states(report["SLURM"]) == {"SLURM": "absent"}
    assert set(states(report["machine"]).values()) <= {"ok", "warning"}
    missing = next(each for each in report["python"] if each["name"] == "needed")
    assert missing["state"] == "broken"
    assert missing["remedy"].startswith("pip install --upgrade 'torch>=")
    for group in report.values():
        for each in group if isinstance(group, list) else ():
            assert each["state"] == "ok" or each["cost"], each


def test_a_machine_with_what_is_needed_alone(tmp_path: Path):
    code, report = doctor(hide(tmp_path, OPTIONAL))
    assert code == 0
    assert states(report["decoding"]) == {"JPEG": "ok", "Numba": "ok"}
    python = {each["name"]: each for each in report["python"]}
    assert python["needed"]["state"] == "ok" and "torch" in python["needed"]["text"]
    for extra in ("dali", "ffcv", "parquet", "wandb", "onnx"):
        assert python[extra]["state"] == "absent" and python[extra]["cost"]
        assert python[extra]["remedy"].startswith("pip install ")
    assert states(report["GPU"])["torch"] == "ok"


def test_a_probe_that_hangs_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment = hide(tmp_path, ["torch"], "import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setenv("PATH", environment["PATH"])
    report = examine.examine({"GPU": 4.0, "SLURM": 30.0})
    assert [each.name for each in report["SLURM"]] == ["SLURM"]
    gpu_finding, last = report["GPU"]
    assert gpu_finding.name == "GPU"
    assert (last.name, last.state) == ("GPU", "broken")
    assert last.text == "no answer within 4 s, after GPU"


def test_a_probe_that_crashes_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment = hide(tmp_path, ["numba"], "import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    first, last = examine.examine({"decoding": 120.0})["decoding"]
    assert (first.name, first.state) == ("JPEG", "ok")
    assert last.text == "the probe was ended by SIGABRT, after JPEG"


def test_a_probe_that_raises_is_a_finding():
    def failing(*ignored: str) -> Any:
        yield Finding("first", "ok", "fine")
        raise RuntimeError("two\nlines")

    first, second = probe.run({"driver": failing}, [])
    assert first.state == "ok"
    assert (second.name, second.state, second.text) == (
        "driver",
        "warning",
        "RuntimeError: two lines",
    )


# -------------------------------------------------------------------------------------------- text


def test_text_has_every_finding_and_what_to_do():
    report = {
        "machine": [Finding("cores", "ok", "two")],
        "GPU": [
            Finding("GPU", "absent", "none", "slow"),
            Finding("torch", "broken", "gone", "nothing runs", "pip install torch"),
        ],
        "SLURM": [],
    }
    lines = list(command.text(report))
    assert lines[:2] == ["machine", "    cores          two"]
    assert "  x torch          gone" in lines and "  - GPU            none" in lines
    assert lines[-3:] == ["  x torch: nothing runs", "      pip install torch", "  - GPU: slow"]
    assert list(command.text({"machine": report["machine"]}))[-1] == "nothing is missing"


def test_every_cost_belongs_to_an_extra():
    assert set(packages.COSTS) <= set(packages.requirements())
    assert packages.parse("hydra-core>=1.3.2,<1.4") == ("hydra-core", "1.3.2")
    assert packages.parse("moto[s3]") == ("moto", "0")


# ----------------------------------------------------------------------------------------- machines


def test_limits_of_containers(tmp_path: Path):
    assert machine.core_limit(tmp_path) is None and machine.memory_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert machine.core_limit(tmp_path) == 1.5
    assert machine.memory_limit(tmp_path) == 2**30
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.core_limit(tmp_path) is None and machine.memory_limit(tmp_path) is None


def test_fewer_cores_than_are_visible_are_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "core_limit", lambda: available_cores() - 0.75)
    found = {each.name: each for each in machine.cores()}
    assert found["cores"].state == "warning" and "train.workers" in found["cores"].remedy


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "file" / "cache"))
    (found,) = machine.cache_folder()
    assert found.state == "broken" and "PATCHMILL_CACHE" in found.remedy
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "file_system", lambda path: "nfs4")
    (found,) = machine.cache_folder()
    assert found.state == "warning" and "network" in found.cost


def fake(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of this name on PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_gpus_that_torch_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    line = "NVIDIA H200, 143771, 580.95, 9.0"
    fake(tmp_path, "nvidia-smi", f'echo "{line}"', monkeypatch)
    (found,) = gpu.driver()
    assert found.text == "0: NVIDIA H200, 140 GiB, sm_90, driver 580.95"
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (found,) = gpu.torch()
    assert found.state == "warning" and found.cost == "the GPUs stay idle" and found.remedy
    monkeypatch.setattr(gpu, "_count_engines", lambda library: (7, 4))
    monkeypatch.setattr(gpu, "_library", lambda name: name)
    by_name = {each.name: each for each in gpu.jpeg_engines()}
    assert by_name["JPEG engines"].text == "7, of 4 cores each"
    monkeypatch.setattr(jpeg_engines, "LIBRARY", str(tmp_path / "libnvcuvid.so.1"))
    by_name = {each.name: each for each in gpu.jpeg_engines()}
    assert (by_name["libnvcuvid"].state, by_name["libnvcuvid"].text) == ("warning", "missing")
    assert "video" in by_name["libnvcuvid"].remedy


def test_engines_of_a_machine_without_a_gpu_are_none():
    if not (library := gpu._library("libnvjpeg.so")) or Path("/dev/nvidiactl").exists():
        pytest.skip("needs nvJPEG, and no GPU")
    assert gpu._count_engines(library) == (0, 0)


def test_the_compiler_of_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "does not run" in (gpu.compiler_problem() or "")
    monkeypatch.delenv("CC")
    fake(
        tmp_path,
        "gcc",
        'echo "probe.c:1:10: fatal error: Python.h: No such file" >&2; exit 1',
        monkeypatch,
    )
    assert "finds no Python.h" in (gpu.compiler_problem() or "")
    fake(tmp_path, "gcc", "exit 0", monkeypatch)
    assert gpu.compiler_problem() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "neither gcc nor clang" in (gpu.compiler_problem() or "")
    assert gpu.compiler_remedy()


def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake(
        tmp_path,
        "sinfo",
        'echo "gpu*|up|16|96|gpu:h100:8"; echo "cpu|down|4|64|(null)"',
        monkeypatch,
    )
    assert [each.text for each in slurm.slurm()] == [
        "gpu: 16 nodes of 96 cores, gpu:h100:8, up",
        "cpu: 4 nodes of 64 cores, down",
    ]
    fake(tmp_path, "sinfo", 'echo "sinfo: error: no controller" >&2; exit 1', monkeypatch)
    (found,) = slurm.slurm()
    assert (found.state, found.text) == ("warning", "sinfo: error: no controller")


def test_decoding_works_here():
    assert next(decoding.jpeg()).state == next(decoding.numba()).state == "ok"


# --------------------------------------------------------------------------------------------- data


def examined(data: str | Path) -> dict[str, Finding]:
    findings = probe.run(data_probes.PROBES, [str(data)])
    return {each.name: each for each in findings}


def test_data_of_scenes():
    found = examined("scenes(count=12, size=64)")
    assert found["data"].text.startswith("scenes(count=12, size=64): made-up scenes")
    assert found["samples"].text == "12"
    assert found["labels"].state == found["masks"].state == "ok"
    assert "12 JPEG" in found["images"].text and "64 px" in found["images"].text
    assert "images/s" in found["reading"].text and "images/s" in found["decoding"].text


def test_a_folder_with_faults(tmp_path: Path):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3):
            image = Image.fromarray(rng.integers(0, 255, (40, 1300, 3), np.uint8))
            image.save(tmp_path / label / f"{number}.jpg", progressive=True)
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 this is no JPEG")
    found = examined(tmp_path)
    assert found["labels"].text == "2 classes, of 3 to 4 images"
    assert found["masks"].remedy == f"patchmill masks {tmp_path}"
    assert "broken.jpg" in found["unreadable"].text and found["unreadable"].state == "warning"
    assert "1,300 px" in found["size"].text and "--max-side 512" in found["size"].remedy
    assert found["format"].text.endswith("JPEGs are progressive")


def test_data_that_is_not_there(tmp_path: Path):
    code, report = doctor(dict(os.environ) | {"PYTHONPATH": str(ROOT)}, str(tmp_path / "nothing"))
    assert code == 1
    (found,) = report["data"]
    assert found["state"] == "broken" and "there is no folder" in found["text"]
