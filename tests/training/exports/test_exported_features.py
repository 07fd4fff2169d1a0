"""Every library, by the lines that export.py prints, computes the features of the run's network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from helpers_exports import (
    RESNET,
    SIZE,
    VIT,
    assert_same_features,
    encoder,
    exported,
    images,
    loaded_features,
    of_network,
)
from packaging.version import Version
from safetensors.torch import load_file

from patchmill.loaders.common.errors import MillError
from patchmill.training.methods.emp_ssl import Widened

SMALL_RESNET = {"name": "resnet18", "stem": "cifar"}
MEAN_VIT = {**VIT, "pool": "mean"}
DINO_VIT = {**VIT, "positions": "dino"}

local_dir = pytest.mark.skipif(
    Version(timm.__version__) < Version("1.0.16"), reason="this timm does not read local-dir:"
)


@local_dir
@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (RESNET, (32, 48)),
        ({"name": "resnet10t", "stem": "imagenet"}, (32, 48)),
        (SMALL_RESNET, (16, 24)),
        (VIT, (32, 48)),
        (MEAN_VIT, (32, 48)),
        (DINO_VIT, (32,)),  # elsewhere timm resizes position embeddings in its own way
    ],
)
def test_timm(settings: dict, sizes: tuple[int, ...], tmp_path: Path):
    given = encoder(**settings)
    lines = exported(given, "timm", tmp_path)
    for size in sizes:
        batch = images(size)
        assert_same_features(given, loaded_features(lines, batch), batch)


@local_dir
def test_timm_knows_the_preprocessing_and_adds_a_classifier(tmp_path: Path):
    exported(encoder(**VIT), "timm", tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7)
    assert model(images()).shape == (2, 7)
    config = timm.data.resolve_model_data_config(model)
    assert config["mean"] == pytest.approx((0.485, 0.456, 0.406))
    assert config["crop_pct"] == pytest.approx(32 / 37, abs=1e-3)
    assert tuple(config["input_size"]) == (3, SIZE, SIZE)


@pytest.mark.parametrize("settings", [RESNET, VIT])
def test_timm_loads_the_weights_by_path(settings: dict, tmp_path: Path):
    """checkpoint_path= works with every timm, and is strict."""
    given = encoder(**settings)
    exported(given, "timm", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    path = tmp_path / "model.safetensors"
    model = timm.create_model(
        config["architecture"], num_classes=0, checkpoint_path=path, **config["model_args"]
    )
    with torch.no_grad():
        assert_same_features(given, model.eval()(images()), images())


@pytest.mark.parametrize(
    ("settings", "sizes"), [(RESNET, (32, 48)), (SMALL_RESNET, (16, 24)), (VIT, (32,))]
)
def test_torchvision(settings: dict, sizes: tuple[int, ...], tmp_path: Path):
    given = encoder(**settings)
    lines = exported(given, "torchvision", tmp_path)
    for size in sizes:
        batch = images(size)
        assert_same_features(given, loaded_features(lines, batch), batch)


def test_torchvision_lacks_only_the_classifier(tmp_path: Path):
    import torchvision

    exported(encoder(**RESNET), "torchvision", tmp_path)
    weights = torch.load(tmp_path / "model.pth", weights_only=True)
    missing, unexpected = torchvision.models.resnet18().load_state_dict(weights, strict=False)
    assert missing == ["fc.weight", "fc.bias"] and unexpected == []


@pytest.mark.parametrize(
    "settings", [RESNET, {"name": "resnet26", "stem": "imagenet"}, VIT, MEAN_VIT]
)
def test_transformers(settings: dict, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    given = encoder(**settings)
    lines = exported(given, "hf", tmp_path)
    assert_same_features(given, loaded_features(lines, images()), images())
    options = {} if "resnet" in settings["name"] else {"add_pooling_layer": False}
    model, info = transformers.AutoModel.from_pretrained(
        tmp_path, output_loading_info=True, **options
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if "resnet" in settings["name"]:
        with torch.no_grad():
            h = model(images(48)).pooler_output.flatten(1)
        assert_same_features(given, h, images(48))


def test_transformers_resizes_positions_nearly_as_dino(tmp_path: Path):
    pytest.importorskip("transformers")
    given = encoder(**DINO_VIT)
    lines = exported(given, "hf", tmp_path)
    resizing = [
        line.replace("(images)", "(images, interpolate_pos_encoding=True)") for line in lines
    ]
    h, batch = loaded_features(resizing, images(48)), images(48)
    with torch.no_grad():
        expected = given.backbone(batch)
    assert torch.cosine_similarity(h, expected).min() > 0.999


def test_the_image_processor_makes_the_evaluated_view(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    from PIL import Image
    from torchvision import transforms

    exported(encoder(**RESNET), "hf", tmp_path)
    pixels = torch.randint(256, (60, 80, 3), generator=torch.Generator().manual_seed(0))
    photo = Image.fromarray(pixels.to(torch.uint8).numpy()).resize((240, 180), Image.BICUBIC)
    ours = transforms.Compose(
        [
            transforms.Resize(37),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )(photo)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(photo, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2 / 255 / 0.224)


@pytest.mark.parametrize("settings", [RESNET, VIT])
def test_safetensors_are_the_weights(settings: dict, tmp_path: Path):
    given = encoder(**settings)
    exported(given, "safetensors", tmp_path)
    weights, expected = load_file(tmp_path / "model.safetensors"), given.backbone.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert json.loads((tmp_path / "config.json").read_text())["step"] == 3


def test_a_widened_backbone_is_exported_without_its_wide_layer(tmp_path: Path):
    inner = encoder(**RESNET).backbone
    given = of_network(Widened(inner, 8), "resnet18")
    lines = exported(given, "torchvision", tmp_path / "torchvision")
    assert_same_features(given, loaded_features(lines, images()), images())
    assert any("before the widening layer" in note for note in given.notes)
    exported(given, "safetensors", tmp_path / "whole")
    assert "widen.0.weight" in load_file(tmp_path / "whole" / "model.safetensors")


# ------------------------------------------------------------------------------------ what is not


def _cut() -> torch.nn.Module:
    network = timm.create_model("resnet18", num_classes=0)
    network.layer4 = torch.nn.Identity()
    return network


REFUSED = [
    (
        {"name": "resnet10t", "stem": "imagenet"},
        "torchvision",
        "not a plain ResNet, as it has conv1",
    ),
    ({"name": "resnet10t", "stem": "imagenet"}, "hf", "not a plain ResNet"),
    ({"name": "resnet10t", "stem": "imagenet"}, "detectron2", "not a plain ResNet"),
    ({"name": "resnet26", "stem": "imagenet"}, "torchvision", "it has no model of that name"),
    ({"name": "resnet26", "stem": "imagenet"}, "detectron2", "18, 34, 50, 101 or 152 layers"),
    (
        SMALL_RESNET,
        "hf",
        "the stem for small images .model.stem=cifar.; try to=timm or to=safete",
    ),
    (SMALL_RESNET, "detectron2", "the stem for small images"),
    (VIT, "detectron2", "not a plain ResNet"),
    (MEAN_VIT, "torchvision", "its h is a mean of tokens"),
    ({"name": "deit_tiny_distilled_patch16_224", "depth": 1}, "hf", "as it has dist_token"),
]


@pytest.mark.parametrize(("settings", "library", "message"), REFUSED)
def test_what_a_library_lacks_is_one_sentence(settings: dict, library: str, message: str):
    from patchmill.training.exports.registry import LIBRARIES

    with pytest.raises(MillError, match=message) as caught:
        LIBRARIES[library].export(encoder(**settings))
    assert "cannot load this" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision", "hf", "detectron2"])
@pytest.mark.parametrize("kind", ["cut", "other"])
def test_a_network_that_is_not_timms_is_only_exported_to_safetensors(
    kind: str, library: str, tmp_path: Path
):
    from helpers_methods import Tiny

    from patchmill.training.exports.registry import LIBRARIES

    given = of_network(_cut() if kind == "cut" else Tiny(), "resnet18")
    with pytest.raises(MillError, match=r"cannot load this resnet18.*to=safetensors"):
        LIBRARIES[library].export(given)
    exported(given, "safetensors", tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == given.backbone.state_dict().keys()
