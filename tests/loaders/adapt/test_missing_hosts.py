"""Hosts that are not installed are named in a sentence; Lightning has two names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from patchmill.loaders import adapt
from patchmill.loaders.common.errors import MillError


@pytest.mark.parametrize(
    ("name", "module", "hidden", "remedy"),
    [
        ("LightningDataModule", "for_lightning", "lightning", "pip install lightning"),
        ("LoaderTrainer", "for_transformers", "transformers", "pip install transformers"),
    ],
)
def test_a_missing_host_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, hidden: str, remedy: str
) -> None:
    monkeypatch.delitem(sys.modules, f"patchmill.loaders.adapt.{module}", raising=False)
    for other in [it for it in sys.modules if it.partition(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, other)
    monkeypatch.setitem(sys.modules, hidden, None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(MillError, match=remedy):
        getattr(adapt, name)


def test_the_lightning_that_the_program_imported_is_used() -> None:
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    code = (
        "import pytorch_lightning as pl; from patchmill.loaders import adapt; "
        "assert issubclass(adapt.LightningDataModule, pl.LightningDataModule)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
