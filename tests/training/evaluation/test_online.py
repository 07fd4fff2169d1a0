"""RankMe against hand-computed spectra, the linear classifier, and collapse seen in training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import helpers_runs
import helpers_trained
import pytest
import torch
from helpers_methods import Tiny
from helpers_trained import tiny  # noqa: F401  (a fixture)
from torch import nn

from patchmill.loaders.common.errors import MillError
from patchmill.training import data, evaluate
from patchmill.training.config.settings import Evaluate
from patchmill.training.evaluation import knn, online, spectrum
from patchmill.training.evaluation.features import Features, extract
from patchmill.training.methods.moco import MoCo
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import collapse, display, records

FIGURES = [f"{kind}_{space}" for space in ("h", "z") for kind in ("rankme", "spread", "collapsed")]


class Constant(Tiny):
    """A network that has collapsed: its features do not depend on the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(x) + torch.arange(1.0, 7.0)


def features(rows: torch.Tensor, labels: torch.Tensor) -> Features:
    return Features(rows, labels, torch.arange(len(rows)))


# ------------------------------------------------------------------------------------------- RankMe


def by_hand(singular_values: list[float]) -> float:
    p = [value / sum(singular_values) + 1e-7 for value in singular_values]
    return math.exp(-sum(share * math.log(share) for share in p))


def test_rankme_of_one_direction_is_one_and_of_orthonormal_rows_their_number():
    rank1 = torch.outer(torch.arange(1.0, 41.0), torch.tensor([3.0, -1.0, 0.5, 2.0]))
    assert spectrum.rankme(rank1) == pytest.approx(1, abs=1e-4)
    orthonormal, _ = torch.linalg.qr(torch.randn(64, 16, generator=torch.manual_seed(0)))
    assert spectrum.rankme(orthonormal) == pytest.approx(16, abs=1e-3)
    assert spectrum.rankme(orthonormal.T) == pytest.approx(16, abs=1e-3)
    assert spectrum.rankme(100 * orthonormal) == pytest.approx(16, abs=1e-3)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_rankme_of_a_known_spectrum(shape):
    values = [5.0, 2.0, 1.0, 0.25]
    generator = torch.manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(shape[0], 4, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(shape[1], 4, generator=generator))
    rows = left @ torch.diag(torch.tensor(values)) @ right.T
    assert spectrum.rankme(rows) == pytest.approx(by_hand(values), rel=1e-4)


def test_rankme_of_degenerate_rows():
    assert spectrum.rankme(torch.zeros(5, 3)) == 0
    assert math.isnan(spectrum.rankme(torch.tensor([[1.0, float("inf")], [0, 1]])))


def test_spread_is_one_for_uniform_directions_and_none_for_one():
    rows = torch.randn(4000, 32, generator=torch.manual_seed(2))
    assert spectrum.spread(rows) == pytest.approx(1, abs=0.02)
    assert spectrum.spread(rows * torch.rand(4000, 1)) == pytest.approx(1, abs=0.02)
    assert spectrum.spread(rows[:1].expand(50, -1) * torch.rand(50, 1)) < 1e-3


def test_rows_are_evenly_spaced(monkeypatch):
    rows = torch.arange(10.0)[:, None].expand(-1, 3)
    assert torch.equal(spectrum.subsample(rows), rows)
    monkeypatch.setattr(spectrum, "MOST_ROWS", 4)
    assert spectrum.subsample(rows)[:, 0].tolist() == [0, 2, 5, 7]
    monkeypatch.setattr(spectrum, "MOST_NUMBERS", 7)
    assert spectrum.subsample(rows)[:, 0].tolist() == [0, 5]


# ------------------------------------------------------------------------------- linear classifier


def test_separable_features_are_classified_at_any_scale():
    generator = torch.manual_seed(3)
    labels = torch.arange(300) % 3
    rows = torch.randn(300, 5, generator=generator)
    rows[:, :3] += 8 * torch.eye(3)[labels]
    rows = rows * torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0]) + 50
    rows[:, 4] = 7.0  # a dead dimension
    bank, tests = features(rows[:200], labels[:200]), features(rows[200:], labels[200:])
    assert online.linear_accuracy(bank, tests) == 1
    assert online.linear_accuracy(bank, tests._replace(labels=(tests.labels + 1) % 3)) == 0


def test_the_linear_classifier_is_ridge_regression(monkeypatch):
    generator = torch.manual_seed(4)
    rows, labels = torch.randn(60, 4, generator=generator), torch.randint(4, (60,))
    x = rows.double()[:40]
    mean, std = x.mean(0), x.std(0, correction=0)
    x = torch.cat([(x - mean) / std, torch.ones(40, 1)], 1)
    penalty = 0.1 * 40 * torch.diag(torch.tensor([1.0, 1, 1, 1, 0])).double()  # none on the bias
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ torch.eye(4).double()[labels[:40]])
    x = torch.cat([(rows.double()[40:] - mean) / std, torch.ones(20, 1)], 1)
    expected = ((x @ weights).argmax(1) == labels[40:]).double().mean().item()
    bank, tests = features(rows[:40], labels[:40]), features(rows[40:], labels[40:])
    assert online.linear_accuracy(bank, tests) == pytest.approx(expected)
    monkeypatch.setattr(online, "CHUNK", 7)
    assert online.linear_accuracy(bank, tests) == pytest.approx(expected)


# -------------------------------------------------------------------------------- during training


@pytest.mark.parametrize("space", ["h", "z"])
def test_one_extraction_gives_all_metrics(space, tmp_path, monkeypatch):
    config = helpers_runs.config(tmp_path, evaluate="moco", evaluate__space=space)
    torch.manual_seed(0)
    method = MoCo(config.method, Tiny()).train()
    seen: list[Any] = []
    extractions: list[int] = []
    monkeypatch.setattr(knn, "accuracy", lambda bank, tests, k, t: seen.extend([bank, k, t]) or 0.5)
    monkeypatch.setattr(online, "extract", lambda *its: extractions.append(1) or extract(*its))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    measured = online.measure(method, config, World())
    assert len(extractions) == 2  # of the bank, and of the test images
    assert list(measured) == ["knn", "linear_online", *FIGURES]
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())
    bank, *rest = seen
    assert rest == [200, 0.1]
    h = extract(method.backbone, data.open_evaluation(config, World(), "train")).rows
    z = method.eval().projector(h).detach()
    torch.testing.assert_close(bank.rows, h if space == "h" else z)
    for name, rows in (("h", h), ("z", z)):
        expected = by_hand(torch.linalg.svdvals(rows.double()).tolist())
        assert measured[f"rankme_{name}"] == pytest.approx(expected, rel=1e-4)


def test_without_a_projector_there_is_no_z(tmp_path):
    rows = torch.randn(20, 3, generator=torch.manual_seed(5))
    bank = features(rows, torch.arange(20) % 2)
    measured = online.figures(bank, bank, None, Evaluate(k=3))
    assert list(measured) == ["knn", "linear_online", *FIGURES[:3]]
    config = helpers_runs.config(tmp_path, evaluate="moco")
    method = MoCo(config.method, Tiny())
    method.projector = None
    with pytest.raises(MillError, match="space=z: MoCo has no projector"):
        online.measure(method, config, World())


def test_metrics_that_are_not_finite_are_omitted():
    rows = torch.full((6, 2), float("inf"))
    bank = features(torch.randn(6, 2), torch.arange(6) % 2)
    projector = nn.Identity()
    projector.forward = lambda x: rows[: len(x)]  # type: ignore[method-assign]
    measured = online.figures(bank, bank, projector, Evaluate(k=1))
    assert "rankme_z" not in measured and "rankme_h" in measured


def test_a_collapse_is_reported_during_and_after_training(tmp_path: Path, capsys):
    config = helpers_runs.config(tmp_path, evaluate="knn", train__epochs=1)
    folder = helpers_runs.train(config, Constant)
    rows = records.evaluations(folder)
    assert [row["step"] for row in rows] == [0, helpers_runs.EPOCH]
    for row in rows:
        assert row["rankme_h"] == pytest.approx(1, abs=1e-4) and row["spread_h"] < 1e-3
        assert row["collapsed_h"] == row["collapsed_z"] == 1
    sentence = "h has collapsed: RankMe 1.0, spread "
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(said) == 2 and all(sentence in line and "z has collapsed" in line for line in said)
    assert sentence in display.summary(folder)
    page = (folder / "report.html").read_text()
    assert sentence in page and "Collapse" in page and "Spread of directions" in page


def test_a_network_that_has_not_collapsed_is_not_reported(tmp_path: Path, capsys):
    config = helpers_runs.config(tmp_path, evaluate="knn", train__epochs=1)
    folder = helpers_runs.train(config)
    row = records.evaluations(folder)[-1]
    assert list(row) == ["step", "epoch", "knn", "linear_online", *FIGURES]
    said = capsys.readouterr().err
    assert f"epoch 1: kNN {row['knn']:.1%}, linear {row['linear_online']:.1%}, RankMe " in said
    healthy = row | {"collapsed_h": 0, "collapsed_z": 0}
    assert "collapsed" not in online.text(healthy) + collapse.sentence(healthy)


@pytest.mark.parametrize(
    ("rankme", "spread", "most", "collapsed"),
    [(1.0, 0.5, 8, True), (1.2, 0.5, 8, False), (4.9, 0.5, 512, True), (5.2, 0.5, 512, False),
     (300, 0.019, 512, True), (300, 0.021, 512, False), (float("nan"), 0.5, 512, False)],
)  # fmt: skip
def test_thresholds_of_a_collapse(rankme, spread, most, collapsed):
    assert collapse.has_collapsed(rankme, spread, most) is collapsed


def test_a_killed_run_measures_a_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = helpers_runs.config(tmp_path, evaluate="knn", train__epochs=2)
    calls: list[int] = []
    measure = online.measure

    def count(*its: Any) -> dict[str, float]:
        calls.append(1)
        return measure(*its)

    monkeypatch.setattr(online, "measure", count)
    folder = helpers_runs.train(config)
    rows = (folder / "evaluations.jsonl").read_text()
    assert len(calls) == 3
    for path in (folder / "checkpoints").glob("*"):
        if f"{helpers_runs.EPOCH:08d}" not in path.name:
            path.unlink()
    helpers_runs.train(config)  # from the end of epoch 1
    assert (folder / "evaluations.jsonl").read_text() == rows
    assert len(calls) == 4


# --------------------------------------------------------------------------------- evaluate=online


@pytest.mark.usefixtures("tiny")
def test_a_finished_run_is_compared_with_its_untrained_networks(tmp_path: Path, capsys):
    overrides = {"train__epochs": 1, "evaluate": "knn"}
    folder = helpers_runs.train(helpers_runs.config(tmp_path, **overrides))
    start, end = records.evaluations(folder)
    evaluate.main([f"run={folder}", "evaluate=online"])
    written = json.loads((folder / "online.json").read_text())
    for when, row in ((online.AFTER, end), (online.BEFORE, start)):
        for name, value in written["figures"][when].items():
            assert value == pytest.approx(row[name], rel=1e-3), (when, name)
    last = records.evaluations(folder)[-1]
    assert last["knn_h"] == written["figures"][online.AFTER]["knn"] and "knn" not in last
    text = capsys.readouterr().out
    for row in ("kNN", "linear classifier on h", "RankMe in z", "spread in h", "collapsed in h"):
        assert f"\n{row} " in text
    assert "Accuracies, rank and spread" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("tiny")
def test_a_run_that_never_evaluated_can_be_evaluated(tmp_path: Path):
    folder = helpers_trained.write(helpers_trained.settings(tmp_path))
    evaluate.main([f"run={folder}", "evaluate=online"])
    assert json.loads((folder / "online.json").read_text())["bank"] == 14
