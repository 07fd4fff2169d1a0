"""Hugging Face's Trainer on a loader: order, resuming, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import RECIPE, make_loader

from patchmill.loaders.common.errors import MillError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate, which Trainer needs, is not installed")
from patchmill.loaders.adapt import LoaderTrainer, as_dicts, as_transformers  # noqa: E402


class Model(torch.nn.Module):
    """Trains a number, and records what identifies the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.ones(()))
        self.sums: list[float] = []

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        self.sums.append(pixel_values.sum().item() + labels.sum().item())
        return {"loss": self.number * pixel_values.mean()}


def sums(count: int) -> list[float]:
    loader = make_loader()
    return [
        batch["view"].sum().item() + batch.labels.sum().item()
        for _ in range(count)
        for batch in loader
    ]


def trainer(folder: Path, **settings: Any) -> Any:
    quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    usual = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "save_steps": 2}
    arguments = transformers.TrainingArguments(folder, **quiet, **{**usual, **settings})
    return LoaderTrainer(Model(), arguments, loader=as_transformers(make_loader(), labels=True))


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3}])
def test_trains_and_resumes_on_the_same_batches(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = trainer(tmp_path, **settings)
    whole.train()
    assert whole.model.sums == pytest.approx(sums(2))
    steps = 12 // settings.get("gradient_accumulation_steps", 1)
    for step in range(2, steps, 2):
        resumed = trainer(tmp_path / "resumed", save_strategy="no", **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert resumed.model.sums == pytest.approx(sums(2)[12 * step // steps :])
        assert resumed.state.global_step == steps
        assert torch.equal(resumed.model.number, whole.model.number)


def test_wrong_use_is_refused_in_a_sentence(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(tmp_path, use_cpu=True, report_to=[])
    with pytest.raises(MillError, match=r"as_transformers\(loader\), or as_dicts, not a Loader"):
        LoaderTrainer(Model(), arguments, loader=make_loader())
    adapted = as_dicts(make_loader(), pixel_values="view")
    with pytest.raises(MillError, match="omit train_dataset"):
        LoaderTrainer(Model(), arguments, loader=adapted, train_dataset=[1])
    with pytest.raises(MillError, match="gradient_accumulation_steps=4 does not divide"):
        trainer(tmp_path, gradient_accumulation_steps=4).train()
    with pytest.raises(MillError, match=r"give each a key, as in .*local_crops='local'"):
        as_transformers(make_loader(recipe=RECIPE))
