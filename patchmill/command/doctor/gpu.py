"""GPUs: the driver, torch's CUDA, JPEG engines, and Triton with its C compiler."""

from __future__ import annotations

import ctypes
import glob
import os
import subprocess
import sys
from collections.abc import Iterator

from patchmill.command.doctor.finding import Finding, State, describe
from patchmill.loaders.common.c_compiler import compiler, compiler_problem, compiler_remedy
from patchmill.loaders.decode import jpeg_engines as video

SECONDS = 30
HARDWARE = 3  # NVJPEG_BACKEND_HARDWARE
FIELDS = "name,memory.total,driver_version,compute_cap"


def driver() -> Iterator[Finding]:
    gpus = _nvidia_smi()
    for number, (name, memory, version, capability) in enumerate(gpus):
        text = f"{number}: {name}, {float(memory) / 1024:.0f} GiB, sm_{capability.replace('.', '')}"
        yield Finding("GPU", "ok", f"{text}, driver {version}")
    if not gpus and os.path.exists("/dev/nvidiactl"):
        yield Finding(
            "GPU",
            "warning",
            "an NVIDIA device exists, but nvidia-smi does not list it",
            "networks train on the CPU",
            "reinstall the driver, or start the container with --gpus all",
        )
    elif not gpus:
        yield Finding("GPU", "absent", "no NVIDIA GPU", "networks and views are made on the CPU")


def torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a missing or broken installation
        cost = "nothing runs without it"
        yield Finding("torch", "broken", describe(error), cost, "pip install torch")
        return
    cuda = torch.version.cuda
    text = f"{torch.__version__}, {f'for CUDA {cuda}' if cuda else 'for CPUs only'}"
    listed = _nvidia_smi()
    if torch.cuda.is_available():
        yield Finding("torch", "ok", f"{text}, sees {torch.cuda.device_count()} GPUs")
        yield from _architectures(torch)
    elif not listed:
        yield Finding("torch", "ok", text)
    elif not cuda:
        remedy = "install the CUDA build of torch that its site lists for this machine"
        yield Finding("torch", "warning", text, "the GPUs stay idle", remedy)
    else:
        remedy = f"update the driver ({listed[0][2]}), or install a torch for an older CUDA"
        yield Finding("torch", "warning", f"{text}, sees no GPU", "the GPUs stay idle", remedy)


def jpeg_engines() -> Iterator[Finding]:
    """The GPU's engines that decode JPEGs; nvJPEG uses them through libnvcuvid."""
    if not _nvidia_smi():
        return
    if problem := video.unreachable():
        yield Finding("libnvcuvid", "warning", problem, video.COST, video.REMEDY)
    else:
        yield Finding("libnvcuvid", "ok", "loads")
    library = _library("libnvjpeg.so")
    if not library:
        yield Finding("JPEG engines", "absent", "nvJPEG is not installed: they cannot be counted")
        return
    engines, cores = _count_engines(library)
    if engines:
        yield Finding("JPEG engines", "ok", f"{engines}, of {cores} cores each")
    else:
        yield Finding("JPEG engines", "absent", "none", "JPEGs are decoded by the GPU's CUDA cores")


def triton() -> Iterator[Finding]:
    has_gpu = bool(_nvidia_smi())
    state: State = "warning" if has_gpu else "absent"
    try:
        import triton
    except ImportError:
        cost = "views and losses cannot run on a GPU"
        yield Finding("Triton", state, "not installed", cost, "pip install triton")
        return
    yield Finding("Triton", "ok", triton.__version__)
    problem = compiler_problem()
    if problem:
        yield Finding(
            "C compiler",
            state,
            problem,
            "Triton cannot start its kernels: no views and fused losses on a GPU",
            compiler_remedy(),
        )
    else:
        yield Finding("C compiler", "ok", f"{compiler()}, with Python's headers")


PROBES = {"GPU": driver, "torch": torch, "JPEG engines": jpeg_engines, "Triton": triton}


# ------------------------------------------------------------------------------ NVIDIA's libraries


def _nvidia_smi() -> list[list[str]]:
    """Name, memory in MiB, driver and compute capability of each GPU."""
    command = ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [line for line in lines if len(line) == 4 and line[1].replace(".", "").isdigit()]


def _architectures(torch: object) -> Iterator[Finding]:
    """GPUs for which this torch has no machine code."""
    cuda = torch.cuda  # type: ignore[attr-defined]
    built = {name.rpartition("_")[2].rstrip("af") for name in cuda.get_arch_list()}
    majors = {int(number[:-1]) for number in built if number.isdigit()}
    for index in range(cuda.device_count()):
        major, minor = cuda.get_device_capability(index)
        if majors and major not in majors:
            yield Finding(
                "torch",
                "warning",
                f"has no code for GPU {index}, sm_{major}{minor}",
                "it cannot be used, or starts slowly",
                "install a build of torch for it",
            )


def _library(name: str) -> str | None:
    """A library that the linker finds or that an NVIDIA package contains."""
    for folder in sys.path:
        if found := sorted(glob.glob(os.path.join(folder, "nvidia", "*", "lib", f"{name}.*"))):
            return found[-1]
    from ctypes.util import find_library

    return find_library(name.removeprefix("lib").removesuffix(".so"))


def _count_engines(library: str) -> tuple[int, int]:
    """JPEG engines of the first GPU, and cores of each; 0 where there are none."""
    nvjpeg = ctypes.CDLL(library)
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    if nvjpeg.nvjpegCreateEx(HARDWARE, None, None, 0, ctypes.byref(handle)):
        return 0, 0
    failed = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    return (0, 0) if failed else (engines.value, cores.value)
