"""The reference against GTSA's formulas, token by token, and against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers_matching import TIED, Case, tied

from patchmill.kernels.matching import reference

SMALL = Case((3, 2), (5, 7), 4, 6, 3)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=0))


def test_best_match_of_each_token():
    a, b, a_index, b_index = SMALL.make(torch.float64)
    found = reference.best_matches(a, b, a_index, b_index)
    for pair, (ia, ib) in enumerate(zip(a_index, b_index, strict=True)):
        for i, token in enumerate(a[ia]):
            cosines = [cosine(token, other) for other in b[ib]]
            assert found[0][pair, i] == pytest.approx(max(cosines))
            assert found[1][pair, i] == cosines.index(max(cosines))
        for j, token in enumerate(b[ib]):
            cosines = [cosine(token, other) for other in a[ia]]
            assert found[2][pair, j] == pytest.approx(max(cosines))
            assert found[3][pair, j] == cosines.index(max(cosines))


def test_losses_by_gtsa_formula():
    student, teacher, student_index, teacher_index = SMALL.make(torch.float64)
    losses = reference.correspond(student, teacher, SMALL.keep, student_index, teacher_index)
    for loss, i, j in zip(losses, student_index, teacher_index, strict=True):
        by_student = [max(cosine(s, t) for t in teacher[j]) for s in student[i]]
        by_teacher = [max(cosine(s, t) for s in student[i]) for t in teacher[j]]
        terms = [
            -sum(sorted(best)[-SMALL.keep :]) / SMALL.keep for best in (by_student, by_teacher)
        ]
        assert float(loss) == pytest.approx(sum(terms) / 2)


def test_gradcheck():
    student, teacher, student_index, teacher_index = SMALL.make(torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda it: reference.correspond(it, teacher, SMALL.keep, student_index, teacher_index),
        student,
    )


def test_the_teacher_is_a_constant():
    student, teacher, *pairs = SMALL.make(torch.float64)
    teacher.requires_grad_()
    assert not reference.correspond(student, teacher, 2, *pairs).requires_grad


def test_ties_go_to_the_lowest_index():
    a, b = tied()
    pair = torch.zeros(1, dtype=torch.int64)
    for found, expected in zip(
        reference.best_matches(a, b, pair, pair), TIED.values(), strict=True
    ):
        assert found[0].tolist() == expected


def test_a_zero_token_has_no_gradient():
    a, b = (it.double() for it in tied())
    pair = torch.zeros(1, dtype=torch.int64)
    a.requires_grad_()
    loss = reference.correspond(a, b, 4, pair, pair)
    assert loss.item() == pytest.approx(-(3 / 4 + 1) / 2)
    loss.sum().backward()
    assert a.grad is not None and a.grad[0, 3].tolist() == [0, 0, 0, 0]


def test_an_angle_computed_by_hand():
    student = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[[3.0, 3.0]]], dtype=torch.float64)
    pair = torch.zeros(1, dtype=torch.int64)
    loss = reference.correspond(student, teacher, 1, pair, pair)
    assert loss.item() == pytest.approx(-math.sqrt(0.5))
    loss.backward()
    assert student.grad is not None
    assert student.grad[0, 0].tolist() == pytest.approx([0, -math.sqrt(0.5)])
