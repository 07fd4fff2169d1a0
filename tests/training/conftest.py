"""One undisturbed run, to which others are compared."""

from __future__ import annotations

from pathlib import Path

import helpers_runs
import pytest
import torch

from patchmill.training import report


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)
        torch.set_num_threads(1)
        return helpers_runs.train(helpers_runs.config(tmp_path_factory.mktemp("reference")))


@pytest.fixture(scope="session")
def reference(undisturbed: Path) -> dict:
    """Final state of an undisturbed run."""
    return helpers_runs.final(undisturbed)
