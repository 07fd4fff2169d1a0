"""Lightning's Trainer on a loader: order, resuming, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import GLANCE, RECIPE, Pictures, make_loader

from patchmill.loaders.adapt import as_tuples
from patchmill.loaders.common.errors import MillError

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from patchmill.loaders.adapt import LightningDataModule  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def without_other_packages_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """stable-pretraining gives every trainer callbacks that inspect the machine for seconds."""
    connector = "lightning.pytorch.trainer.connectors.callback_connector"
    monkeypatch.setattr(f"{connector}._load_external_callbacks", lambda group: [])


class Notes(pl.LightningModule):
    """Trains a number, and records the ids of all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.ones(()))
        self.ids: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        crops, _labels = batch
        self.ids.append(batch.ids.tolist())
        return self.number * crops[0].mean()

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated += batch.ids.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, **settings: Any) -> Any:
    usual = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet = {"enable_model_summary": False, "num_sanity_val_steps": 0}
    saved = {"enable_checkpointing": False} if "callbacks" not in settings else {}
    return pl.Trainer(default_root_dir=folder, **usual, **quiet, **saved, **settings)


def module(**settings: Any) -> Any:
    return LightningDataModule(Pictures(24), GLANCE, 4, workers=1, **settings)


def epochs(count: int) -> list[list[int]]:
    loader = make_loader()
    return [batch.ids.tolist() for _ in range(count) for batch in loader]


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    notes = Notes()
    trainer(tmp_path, max_epochs=3).fit(notes, datamodule=module())
    assert notes.ids == epochs(3)


@pytest.mark.parametrize("step", [4, 6, 8])
def test_resumes_where_a_checkpoint_was_saved(tmp_path: Path, step: int) -> None:
    saver = pl.callbacks.ModelCheckpoint(
        tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1, save_on_train_epoch_end=False
    )
    trainer(tmp_path, max_epochs=2, callbacks=[saver]).fit(Notes(), datamodule=module())
    resumed = Notes()
    trainer(tmp_path, max_epochs=2).fit(
        resumed, datamodule=module(), ckpt_path=str(tmp_path / f"step={step}.ckpt")
    )
    assert resumed.ids == epochs(2)[step:]


def test_resumes_after_an_epoch_that_was_cut_short(tmp_path: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True)
    cut = {"limit_train_batches": 4}
    trainer(tmp_path, max_epochs=1, callbacks=[saver], **cut).fit(Notes(), datamodule=module())
    resumed = Notes()
    trainer(tmp_path, max_epochs=2, **cut).fit(
        resumed, datamodule=module(), ckpt_path=str(tmp_path / "end.ckpt")
    )
    assert resumed.ids == epochs(2)[6:10]


def test_validation_sees_every_image_once(tmp_path: Path) -> None:
    notes = Notes()
    validation = {"data": Pictures(10), "recipe": RECIPE}
    trainer(tmp_path, max_epochs=1).fit(notes, datamodule=module(validation=validation))
    assert sorted(notes.validated) == list(range(10))


def test_the_form_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    class Pairs(Notes):
        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            assert type(batch) in (tuple, list) and len(batch) == 2
            return self.number * batch[0][0].mean()

    trainer(tmp_path, max_epochs=1).fit(Pairs(), datamodule=module(form=as_tuples))


def test_a_loader_itself_is_a_dataloader_for_lightning(tmp_path: Path) -> None:
    notes = Notes()
    trainer(tmp_path, max_epochs=1).fit(notes, make_loader())
    assert notes.ids == epochs(1)


def test_settings_of_torchs_dataloader_are_refused() -> None:
    with pytest.raises(MillError, match="num_workers is not one of them"):
        module(num_workers=4)
    with pytest.raises(MillError, match="shuffle is not one of them"):
        module(validation={"shuffle": False})


def test_overfit_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MillError, match="use limit_train_batches"):
        trainer(tmp_path, max_epochs=1, overfit_batches=2).fit(Notes(), datamodule=module())
