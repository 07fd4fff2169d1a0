"""What a finished run says for itself, in two lines."""

from __future__ import annotations

from pathlib import Path

from patchmill.training.runtime import records

REPORT = "report.html"


def told(folder: Path) -> list[str]:
    """The loss and the kNN accuracy, each as it was at first and at last, and where to look."""
    return [line for line in (_figures(folder), _report(folder)) if line]


def _figures(folder: Path) -> str:
    losses = [loss for loss in records.read(folder).get("loss", []) if loss is not None]
    looked = [row for row in records.evaluations(folder) if "knn" in row]
    told = []
    if len(losses) > 1:
        told.append(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    if len(looked) > 1 and looked[0]["step"] == 0:
        before, now = looked[0]["knn"], looked[-1]["knn"]
        told.append(f"kNN accuracy {before:.1%} untrained, {now:.1%} trained")
    return "; ".join(told)


def _report(folder: Path) -> str:
    path = folder / REPORT
    return f"report: {path}" if path.exists() else ""
