"""aAcc, mIoU and mAcc against figures counted by hand."""

from __future__ import annotations

import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.segment.metrics import Confusion

CPU = torch.device("cpu")
LABELS = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 3]])
PREDICTED = torch.tensor([[0, 0, 1, 1], [1, 2, 2, 3]])


def test_scores_are_those_counted_by_hand():
    """Class 2 is predicted once and has no label: it counts as a mistake, and in no mean."""
    confusion = Confusion(4, CPU)
    confusion.add(LABELS, PREDICTED)
    assert confusion.matrix.tolist() == [
        [2, 1, 0, 0],
        [0, 2, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    scores = confusion.scores()
    assert scores.aAcc == pytest.approx(5 / 7)
    assert scores.mAcc == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert scores.iou[2] is None
    assert [scores.iou[i] for i in (0, 1, 3)] == pytest.approx([2 / 3, 2 / 4, 1])
    assert scores.mIoU == pytest.approx((2 / 3 + 2 / 4 + 1) / 3)


def test_images_add_up():
    halves, whole = Confusion(4, CPU), Confusion(4, CPU)
    whole.add(LABELS, PREDICTED)
    for row in range(2):
        halves.add(LABELS[row], PREDICTED[row])
    assert torch.equal(halves.matrix, whole.matrix)


def test_nothing_labelled_is_an_error():
    confusion = Confusion(2, CPU)
    confusion.add(torch.full((3, 3), 255), torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(MillError, match="no pixel of the test images has a label"):
        confusion.scores()


def test_scores_are_those_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (4000,), generator=generator)
    wrong = torch.rand(4000, generator=generator) < 0.3
    predicted = torch.where(wrong, torch.randint(6, (4000,), generator=generator), labels)
    labels[::50] = 255
    confusion = Confusion(6, CPU)
    confusion.add(labels, predicted)
    scores = confusion.scores()
    options = dict(num_classes=6, ignore_index=255)
    for name, function, average in (
        ("aAcc", classification.multiclass_accuracy, "micro"),
        ("mAcc", classification.multiclass_accuracy, "macro"),
        ("mIoU", classification.multiclass_jaccard_index, "macro"),
    ):
        expected = function(predicted, labels, average=average, **options).item()
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-6)
