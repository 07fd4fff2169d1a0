"""FFCV's names, and those of ours that need it, each imported where it is first used.

The import compiles for six seconds, which a process without a test of FFCV need not spend. Modules
of tests that import this one are skipped where FFCV is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest

if importlib.util.find_spec("ffcv") is None:
    pytest.skip("FFCV is not installed", allow_module_level=True)

OURS = "patchmill.loaders.pipelines.ffcv"
PLACES = {
    "MultiView": f"{OURS}.multi_view",
    "Pasting": f"{OURS}.pasting",
    "IntField": "ffcv.fields",
    "RGBImageField": "ffcv.fields",
    "RandomResizedCropRGBImageDecoder": "ffcv.fields.decoders",
    "Loader": "ffcv.loader",
    "OrderOption": "ffcv.loader",
    "DatasetWriter": "ffcv.writer",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(name)
    importlib.import_module(f"{OURS}.workarounds")  # before anything of FFCV
    return getattr(importlib.import_module(PLACES[name]), name)
