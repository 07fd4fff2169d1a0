"""The steps, most valuable first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchmill.benchmarks.lib.gpu_day.step import GPU_DAY, Step

ROOT = Path(__file__).resolve().parents[3]

# Modules that the loader needs in addition to the renderer's.
LOADER = ("simplejpeg", "PIL", "yaml")
TRAINING = (*LOADER, "hydra", "omegaconf", "timm", "torchvision")

ON_GPU = ("-m", "gpu and not slow")


def _training(*arguments: str) -> tuple[str, ...]:
    return (
        "benchmarks/training.py",
        *arguments,
        "scale=paper",
        f"data.train={GPU_DAY}.images:RepeatedScenes()",
        "data.test=null",
        "evaluate=never",
        "train.device=cuda",
        "train.batch_size=256",
        "--peers",
        "",
        "--steps",
        "10",
        "--rounds",
        "3",
    )


_SMALL_TRAINING = (
    "train.device=cpu",
    "train.batch_size=4",
    "train.workers=1",
    "size=32",
    f"data.train={GPU_DAY}.images:RepeatedScenes(count=16)",
    "--steps",
    "1",
    "--rounds",
    "1",
)


def _throughput(*arguments: str, seconds: int = 6) -> tuple[str, ...]:
    return (
        "benchmarks/throughput.py",
        "--data",
        "scenes:1024",
        "--device",
        "cuda",
        "--workers",
        "{cores}",
        "--seconds",
        str(seconds),
        *arguments,
    )


_SMALL_THROUGHPUT = ("--device", "cpu", "--data", "scenes:16", "--batch-size", "4",
                     "--seconds", "0.3", "--recipe", "simclr(size=32)", "--peers", "")  # fmt: skip

GPU_PIPELINES = "tests/loaders/pipelines/gpu"
PIPELINES = (f"{GPU_PIPELINES}/test_gpu_pipelines.py", f"{GPU_PIPELINES}/test_device_cache.py")


def _kernel_tests() -> tuple[str, ...]:
    """All files with GPU tests of kernels, except the renderer's."""
    found = sorted(ROOT.glob("tests/kernels/*/test_*_gpu.py"))
    others = [ROOT / "tests/kernels/bags/test_bags_float32_matmul.py"]
    return tuple(str(path.relative_to(ROOT)) for path in (*found, *others))


VIEWS = "tests/kernels/views/test_gpu.py"
STRESS = "may_be_freed or memory_does_not_grow"

STEPS: Sequence[Step] = (
    Step(
        "facts",
        "facts of the machine",
        ("-m", f"{GPU_DAY}.facts"),
        seconds=25,
        gpu=False,
    ),
    Step(
        "images",
        "painting the images of the other steps",
        ("-m", f"{GPU_DAY}.images"),
        seconds=20,
        needs=("PIL",),
        writes="",
        small=("16",),
    ),
    Step(
        "renderer-parity",
        "the renderer against its definition",
        (*ON_GPU, VIEWS, "-k", f"not ({STRESS} or out_of_bounds)"),
        seconds=45,
        variants=110,
        processes=6,
        writes="tests",
    ),
    Step(
        "renderer-time",
        "the renderer's time by stage, over its floor",
        ("benchmarks/kernels.py", "views"),
        seconds=20,
        variants=8,
        small=("--device", "cpu", "--batch-size", "2", "--rounds", "1"),
    ),
    Step(
        "training-moco",
        "training of MoCo, fed by the loader and by cached batches",
        _training("method=moco"),
        seconds=50,
        variants=10,
        needs=TRAINING,
        small=(*_SMALL_TRAINING, "model=resnet10", "method.queue=16", "method.hidden=16"),
    ),
    Step(
        "training-vit",
        "training of ViT-S/16, 2 views of 224 pixels, fed by the loader and by cached batches",
        _training("method=vicreg", "model=vit_small", "train.sync_bn=false"),
        seconds=50,
        variants=4,
        needs=TRAINING,
        small=(*_SMALL_TRAINING, "model=vit_tiny", "method.expander=[16, 16, 16]"),
    ),
    Step(
        "threads-parity",
        "the threads pipeline against the CPU's views",
        (*ON_GPU, *PIPELINES, "-k", "not dali"),
        seconds=45,
        variants=20,
        processes=4,
        needs=LOADER,
        writes="tests",
    ),
    Step(
        "threads-rate",
        "the threads pipeline: images per second",
        _throughput("--pipeline", "threads"),
        seconds=70,
        needs=LOADER,
        small=_SMALL_THROUGHPUT,
    ),
    Step(
        "kernels-parity",
        "the other kernels against their definitions",
        (*ON_GPU, *_kernel_tests()),
        seconds=45,
        variants=750,
        processes=64,
        writes="tests",
        small=("-p", f"{GPU_DAY}.as_cpu"),
    ),
    Step(
        "kernels-time",
        "the other kernels' times against eager and compiled PyTorch",
        ("benchmarks/kernels.py", "--rounds", "3"),
        seconds=80,
        variants=25,
        small=("patches", "--device", "cpu", "--rounds", "1"),
    ),
    Step(
        "dali-decode",
        "DALI's decoder on the GPU",
        (*ON_GPU, "tests/loaders/pipelines/dali"),
        seconds=40,
        needs=(*LOADER, "nvidia.dali"),
        writes="tests",
    ),
    Step(
        "dali-rate",
        "the DALI pipeline against bare decoding",
        _throughput("--pipeline", "dali"),
        seconds=80,
        needs=(*LOADER, "nvidia.dali"),
        small=(*_SMALL_THROUGHPUT, "--pipeline", "dali"),
    ),
    Step(
        "training-waits",
        "training steps of every method without synchronisation",
        (*ON_GPU, "tests/training/test_engine_waits.py"),
        seconds=20,
        variants=25,
        processes=4,
        needs=TRAINING,
        writes="tests",
    ),
    Step(
        "dali-parity",
        "the DALI pipeline against the CPU's views",
        (*ON_GPU, *PIPELINES, "-k", "dali"),
        seconds=60,
        processes=4,
        needs=(*LOADER, "nvidia.dali"),
        writes="tests",
    ),
    Step(
        "peers",
        "the loader against DALI's, torchvision's and kornia's operators on the GPU",
        _throughput("--peers", "dali,torchvision-gpu,kornia"),
        seconds=90,
        needs=LOADER,
        small=_SMALL_THROUGHPUT,
    ),
    Step(
        "ffcv-parity",
        "the FFCV pipeline against the CPU's views",
        (*ON_GPU, "tests/loaders/pipelines/ffcv_pipeline"),
        seconds=40,
        processes=2,
        needs=(*LOADER, "ffcv"),
        writes="tests",
    ),
    Step(
        "stress",
        "poisoned memory, busy streams, and memory that must not grow",
        (
            "-m",
            "gpu",
            VIEWS,
            f"{GPU_PIPELINES}/test_gpu_memory.py",
            "-k",
            f"{STRESS} or test_gpu_memory",
        ),
        seconds=120,
        needs=LOADER,
        writes="tests",
    ),
    Step(
        "sanitizer",
        "compute-sanitizer on the renderer",
        ("tests/kernels/views/helpers_sanitized.py",),
        seconds=100,
        under=("compute-sanitizer", "--error-exitcode", "9"),
        writes="",
        small=None,
    ),
    Step(
        "compile",
        "the renderer's kernels, compiled for several GPUs and counted, without one",
        ("tests/kernels/views/test_gpu_compiled.py",),
        seconds=20,
        variants=40,
        processes=4,
        gpu=False,
        writes="tests",
        small=("-k", "blur"),
    ),
)
NAMES = tuple(step.name for step in STEPS)
