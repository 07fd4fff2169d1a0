"""Decoding and rendering on CPUs: the required libraries, tested on a JPEG of a few pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator

from patchmill.command.doctor.finding import Finding, describe


def jpeg() -> Iterator[Finding]:
    try:
        import numpy as np
        from PIL import Image

        from patchmill.loaders.decode.decoder import decode

        file = io.BytesIO()
        Image.fromarray(np.full((16, 24, 3), 200, np.uint8)).save(file, "JPEG", quality=95)
        shape = decode(file.getvalue()).shape
    except Exception as error:  # a missing or broken library
        yield _needed("JPEG", error, "pip install --force-reinstall --no-deps simplejpeg pillow")
        return
    from patchmill.command.doctor.packages import version_of

    versions = (f"{name} {version_of(name.lower())}" for name in ("simplejpeg", "Pillow"))
    text = f"{', '.join(versions)}; simplejpeg includes libjpeg-turbo"
    if shape == (16, 24, 3):
        yield Finding("JPEG", "ok", text)
    else:
        yield Finding("JPEG", "broken", f"{text}: a wrong shape, {shape}", "images are garbled")


def numba() -> Iterator[Finding]:
    try:
        import numba

        compiled = numba.njit(lambda number: number + 1)
        works = compiled(1) == 2
    except Exception as error:  # a missing or broken library
        yield _needed("Numba", error, "pip install --force-reinstall --no-deps numba llvmlite")
        return
    text = f"{numba.__version__} compiles"
    yield Finding("Numba", "ok", text) if works else Finding("Numba", "broken", "computes wrongly")


def dali() -> Iterator[Finding]:
    from patchmill.command.doctor.packages import is_installed

    if is_installed("nvidia-dali-cuda130"):
        try:
            from nvidia import dali as module
        except Exception as error:  # wheels for another CUDA or Python
            yield Finding("DALI", "warning", describe(error), 'no pipeline="dali"')
            return
        yield Finding("DALI", "ok", f"{module.__version__} loads")


def ffcv() -> Iterator[Finding]:
    from patchmill.command.doctor.packages import is_installed

    if is_installed("ffcv"):
        try:
            import ffcv as module
        except Exception as error:  # missing shared libraries
            yield Finding("FFCV", "warning", describe(error), 'no pipeline="ffcv"')
            return
        yield Finding("FFCV", "ok", f"{getattr(module, '__version__', '')} loads".strip())


PROBES = {"JPEG": jpeg, "Numba": numba, "DALI": dali, "FFCV": ffcv}


def _needed(name: str, error: BaseException, remedy: str) -> Finding:
    remedy = "" if isinstance(error, ModuleNotFoundError) else remedy  # listed as needed
    return Finding(name, "broken", describe(error), "loaders cannot work without it", remedy)
