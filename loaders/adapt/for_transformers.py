"""`as_transformers` and `LoaderTrainer`: loaders for Hugging Face's Trainer and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchmill.loaders.adapt.adapted import Adapted, check_loader
from patchmill.loaders.adapt.forms import as_dicts
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

try:
    import transformers
    from transformers.trainer_callback import ExportableState, TrainerCallback
except ModuleNotFoundError:
    raise MillError("transformers is not installed: pip install transformers accelerate") from None


def as_transformers(loader: Loader, *, labels: bool = False) -> Adapted:
    """Batches as {"pixel_values": views}, with {"labels": labels} if `labels`.

    Views are [B, 3, size, size] for a recipe of one view, else [B, count, 3, size, size].
    """
    groups = check_loader(loader).recipe.views
    if len(groups) > 1:
        raise MillError(
            f"pixel_values are one tensor, but the recipe {loader.recipe.name} has the view groups "
            f"{', '.join(group.name for group in groups)}: give each a key, as in "
            f"as_dicts(loader, pixel_values={groups[0].name!r}, {groups[1].name}_crops="
            f"{groups[1].name!r})"
        )
    return as_dicts(loader, pixel_values=groups[0].name, **({"labels": "labels"} if labels else {}))


class LoaderTrainer(transformers.Trainer):
    """`transformers.Trainer` that trains on a loader, adapted to dicts, instead of a dataset.

    Accelerate neither shards nor dispatches its batches again: a loader already reads its rank's
    share. The position is in trainer_state.json, so that `resume_from_checkpoint` continues in the
    middle of an epoch without replaying batches.
    """

    def __init__(self, *args: Any, loader: Adapted, **settings: Any) -> None:
        if not isinstance(loader, Adapted):
            raise MillError(
                "LoaderTrainer takes a loader whose batches are dicts: as_transformers(loader), or "
                f"as_dicts, not a {type(loader).__name__}"
            )
        if settings.get("train_dataset") is not None:
            raise MillError("LoaderTrainer trains on its loader: omit train_dataset")
        super().__init__(*args, **settings)
        self.loader = loader
        self.args.ignore_data_skip = True  # the loader restores its own position
        self.add_callback(LoaderPosition(loader))

    def get_train_dataloader(self) -> Any:
        together = self.args.gradient_accumulation_steps
        if len(self.loader) % together:
            raise MillError(
                f"an epoch has {len(self.loader)} batches, which gradient_accumulation_steps="
                f"{together} does not divide: a resumed run would skip some"
            )
        return self.loader


class LoaderPosition(TrainerCallback, ExportableState):
    """Keeps a loader's position in the trainer's state."""

    def __init__(self, loader: Adapted) -> None:
        self._loader = loader

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"position": self._loader.state_dict()}}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved and state.global_step:
            self._loader.load_state_dict(saved["attributes"]["position"])
