"""Every model with every method and at every scale, and the sizes of the networks."""

from __future__ import annotations

import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose, overrides
from patchmill.training.config.recipes import training_recipe
from patchmill.training.config.settings import Model
from patchmill.training.nets import backbones

METHODS = list(overrides.choices("method"))
SCALES = list(overrides.choices("scale"))
MODELS = list(overrides.choices("model"))
TRANSFORMERS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}  # and their width
PARAMETERS = {"vit_tiny": 5.7, "vit_small": 22, "vit_base": 86}  # millions, with 1000 classes


@pytest.mark.parametrize("model", MODELS)
def test_every_model_at_every_scale_with_some_of_the_methods(model: str):
    """Composing takes a tenth of a second; together the models meet every method."""
    first, names = MODELS.index(model), set()
    for i in range(-(-len(METHODS) // len(MODELS)) + 2):
        method, scale = METHODS[(first + i * len(MODELS)) % len(METHODS)], SCALES[i % 3]
        config = compose.compose([f"method={method}", f"scale={scale}", f"model={model}"])
        size = training_recipe(config).views[0].size
        with torch.device("meta"):
            network = backbones.build(config.model, size)
        assert network.num_features == TRANSFORMERS.get(model, network.num_features)
        names.add(config.model.name)
    (name,) = names
    assert name.startswith(model)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_leaves_nothing_of_the_recipes_that_does_not_fit_it(model: str):
    """lejepa's is a ViT-L/14, the scale's a ResNet with a CIFAR stem."""
    config = compose.compose(["method=lejepa", "scale=cifar", f"model={model}"])
    chosen = config.model
    assert (chosen.patch, chosen.depth) == ("auto", None)
    assert chosen.drop_path == (0.1 if model in TRANSFORMERS else 0)
    assert chosen.stem == ("imagenet" if model == "resnet10" else "auto")
    with torch.device("meta"):
        backbones.build(chosen, config.size)


@pytest.mark.parametrize("model", PARAMETERS)
def test_transformers_have_the_published_number_of_parameters(model: str):
    name = compose.compose(["method=moco", "scale=paper", f"model={model}"]).model.name
    with torch.device("meta"):
        network = backbones.build(Model(name), 224)
    head = 1000 * (network.num_features + 1)
    millions = (sum(it.numel() for it in network.parameters()) + head) / 1e6
    assert PARAMETERS[model] <= millions < PARAMETERS[model] * 1.01
    assert network.num_features == TRANSFORMERS[model] and len(network.blocks) == 12


@pytest.mark.parametrize(("size", "patch", "other"), [(32, 4, 16), (64, 4, 32), (96, 16, 48),
                                                      (224, 16, 96)])  # fmt: skip
@pytest.mark.parametrize("positions", ["timm", "dino"])
def test_views_of_two_sizes_go_through_one_transformer(size, patch, other, positions):
    config = compose.compose(
        ["method=moco", "model=vit_tiny", f"size={size}", "model.depth=2",
         f"model.positions={positions}"]
    )  # fmt: skip
    network = backbones.build(config.model, size).eval()
    assert network.patch_embed.patch_size == (patch, patch)
    assert network.patch_embed.grid_size == (size // patch, size // patch)
    for side in (size, other):
        views = torch.randn(2, 3, side, side, generator=torch.manual_seed(0))
        tokens = network.forward_features(views)
        assert tokens.shape == (2, 1 + (side // patch) ** 2, 192)
        h = network(views)
        torch.testing.assert_close(h, tokens[:, 0])  # the class token
        assert not torch.allclose(h[0], h[1])


def test_a_patch_that_is_asked_for_wins():
    config = compose.compose(["method=moco", "model=vit_tiny", "size=32", "model.patch=8"])
    assert backbones.build(config.model, 32).patch_embed.patch_size == (8, 8)
    with pytest.raises(MillError, match=r"model.patch must be .* or auto, not 'atuo'"):
        compose.compose(["method=moco", "model=vit_tiny", "model.patch=atuo"])
    with pytest.raises(MillError, match=r"model.patch must be .* or auto, not 0"):
        compose.compose(["method=moco", "model=vit_tiny", "model.patch=0"])
