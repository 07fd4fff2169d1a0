"""Python packages that patchmill and its extras need."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import patchmill
from patchmill.command.doctor.finding import Finding

# Distribution -> module, if it is not the distribution's name with underscores.
MODULES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "hydra-core": "hydra",
    "scikit-image": "skimage",
    "opencv-python": "cv2",
    "nvidia-dali-cuda130": "nvidia.dali",
    "nvidia-nvimgcodec-cu13": "nvidia.nvimgcodec",
}
# Extra -> what is missing without it; extras not listed are development tools.
COSTS = {
    "dali": "JPEGs for views on a GPU are decoded by CPU threads, not on the GPU",
    "ffcv": 'no pipeline="ffcv"; a .beton can still be read',
    "parquet": "Parquet files cannot be read, as data or as lists",
    "lmdb": "LMDB databases cannot be read",
    "wandb": "runs cannot be logged to Weights & Biases",
    "s3": "s3:// URLs cannot be streamed by fsspec",
    "gs": "gs:// URLs cannot be streamed by fsspec",
    "az": "az:// URLs cannot be streamed by fsspec",
    "onnx": "saliency maps of networks in ONNX files cannot be made",
    "eval": "evaluate=detect cannot score by COCO's rules",
    "bench": "benchmarks skip peers",
    "plot": "benchmarks draw no charts",
    "adapters": "the adapters to these libraries cannot be used",
}
TOOLS = ("dev", "docs", "streams")


def needed() -> Iterator[Finding]:
    yield Finding("patchmill", "ok", f"{patchmill.__version__}, {Path(patchmill.__file__).parent}")
    ready, missing, old = [], [], []
    for requirement in requirements()[""]:
        name, least = parse(requirement)
        version = version_of(name)
        if not is_installed(name):
            missing.append(requirement)
        elif version and _numbers(version) < _numbers(least):
            old.append(requirement)
        else:
            ready.append(f"{name} {version}".strip())
    if ready:
        yield Finding("needed", "ok", ", ".join(ready))
    for problem, requirements_of in (("missing", missing), ("too old", old)):
        if requirements_of:
            yield Finding(
                "needed",
                "broken",
                f"{problem}: {', '.join(requirements_of)}",
                "patchmill does not work without them",
                f"pip install --upgrade {' '.join(map(quoted, requirements_of))}",
            )


def extras() -> Iterator[Finding]:
    for extra, packages in requirements().items():
        names = [parse(requirement)[0] for requirement in packages]
        missing = [name for name in names if not is_installed(name)]
        if not extra or extra in TOOLS or not names:
            continue
        if missing:
            yield Finding(
                extra,
                "absent",
                f"{', '.join(missing)} not installed",
                COSTS.get(extra, f"what the extra {extra} is for cannot be used"),
                f"pip install {' '.join(map(quoted, _install(missing, packages)))}",
            )
        else:
            yield Finding(extra, "ok", ", ".join(f"{n} {version_of(n)}".strip() for n in names))


PROBES = {"needed": needed, "extras": extras}


def requirements() -> dict[str, list[str]]:
    """Extra -> requirements; those of patchmill itself under the empty name.

    From setup.cfg in a checkout, else from the installed package.
    """
    file = Path(patchmill.__file__).resolve().parents[1] / "setup.cfg"
    if file.is_file():
        config = configparser.ConfigParser()
        config.read(file, encoding="utf-8")
        sections = {"": config["options"]["install_requires"], **config["options.extras_require"]}
        return {name: text.split("\n")[1:] for name, text in sections.items()}
    found: dict[str, list[str]] = {"": []}
    for line in importlib.metadata.requires("patchmill") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ["']([\w-]+)["']""", marker)
        found.setdefault(extra[1] if extra else "", []).append(requirement.strip())
    return found


def parse(requirement: str) -> tuple[str, str]:
    """Name and lowest version: `torch>=2.8` -> `torch`, `2.8`."""
    name = re.match(r"[\w.-]+", requirement)
    least = re.search(r">=\s*([\d.]+)", requirement)
    return name[0].lower() if name else requirement, least[1] if least else "0"


def module_of(name: str) -> str:
    return MODULES.get(name, name.replace("-", "_"))


def is_installed(name: str) -> bool:
    """Check for the module without importing more than its parents."""
    try:
        return importlib.util.find_spec(module_of(name)) is not None
    except (ImportError, ValueError):
        return False


def version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def quoted(requirement: str) -> str:
    return f"'{requirement}'" if re.search(r"[<>\[]", requirement) else requirement


def _install(missing: list[str], packages: list[str]) -> list[str]:
    """Requirements for what is missing; DALI for the CUDA version that torch is built with."""
    chosen = [each for each in packages if parse(each)[0] in missing]
    if "+cu12" in version_of("torch"):
        chosen = [each.replace("cuda130", "cuda120").replace("-cu13", "-cu12") for each in chosen]
    return chosen


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))
