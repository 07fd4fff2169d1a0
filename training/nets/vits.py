"""timm's vision transformers, with DINO's position embeddings if the settings ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.training.config.settings import Model

SMALL_PATCH = 4  # side in pixels of the patches of small images


def options(settings: Model, size: int, small: bool) -> dict[str, Any]:
    """Return the arguments of timm.create_model for a ViT on images of size x size."""
    chosen: dict[str, Any] = {"img_size": size, "dynamic_img_size": True}
    if settings.patch != "auto" or small:
        chosen["patch_size"] = SMALL_PATCH if settings.patch == "auto" else settings.patch
    if settings.depth is not None:
        chosen["depth"] = settings.depth
    return chosen


def check_size(model: nn.Module, name: str, size: int) -> None:
    """Raise a MillError if views of size x size cannot be cut into the patches of a ViT."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch is None or size % patch[0] == 0:
        return
    raise MillError(
        f"method.views: {name} views of {size} pixels cannot be cut into patches of {patch[0]}: "
        f"make views of {size // patch[0] * patch[0] or patch[0]} pixels, or change model.patch"
    )


def finish(model: nn.Module, settings: Model) -> None:
    """Set pooling and position embeddings of a timm model if it is a ViT."""
    from timm.models.vision_transformer import VisionTransformer

    from patchmill.training.nets.dino_vit import DinoViT

    if not isinstance(model, VisionTransformer):
        return
    if settings.pool == "mean":
        model.global_pool = "avg"  # of the patch tokens, after the final norm
    if settings.positions == "dino":
        if model.pos_embed is None or model.cls_token is None or model.reg_token is not None:
            raise MillError(
                f"model.positions=dino is for a ViT with a class token, position embeddings and no "
                f"registers, which {settings.name} is not: use model.positions=timm"
            )
        model.__class__ = DinoViT  # timm has no option for it
        nn.init.trunc_normal_(model.cls_token, std=0.02)
