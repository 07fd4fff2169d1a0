"""GTSA against bok3948/GTSA: geometry, losses, schedules, heads, and the memory that it needs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers_methods import Mapped, Tiny, crops, step
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align

from patchmill.loaders import operations, presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.training.config.settings import Model
from patchmill.training.methods import Progress, gtsa
from patchmill.training.methods.gtsa import GTSA
from patchmill.training.nets import backbones

TEXT = "gtsa(global_size=16, local_size=8, local_crops=3)"
SIZES = {"global": 16, "local": 8}


def make(**changes) -> GTSA:
    torch.manual_seed(0)
    settings = GTSA.Settings(**(dict(dim=5, bins=(4, 2), match_after=0) | changes))
    return GTSA(settings, Mapped())


def at(step: int, steps: int = 20, per_epoch: int = 5) -> Progress:
    return Progress(step, steps, step / per_epoch, steps // per_epoch)


# ------------------------------------------------------------------------------------- geometry


def source_points(box: torch.Tensor, turns: int, size: int, points: torch.Tensor) -> torch.Tensor:
    """Places in the image of points [N, 2] (x, y) of a view that was cropped and then turned."""
    x, y = points.unbind(-1)
    for _ in range(turns):  # undo a counter-clockwise quarter turn of a square of this side
        x, y = size - y, x
    x1, y1, x2, y2 = box
    return torch.stack([x1 + x / size * (x2 - x1), y1 + y / size * (y2 - y1)], -1)


def cells(box: torch.Tensor, bins: int) -> torch.Tensor:
    """Centres of a region's bins, [bins, bins, 2]: row by row."""
    steps = (torch.arange(bins, dtype=box.dtype) + 0.5) / bins
    xs, ys = box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)


def test_a_quarter_turn_is_counter_clockwise():
    image = torch.arange(9).view(3, 3)
    turned = torch.rot90(image)  # the renderers' turn
    corner = torch.tensor([[0.5, 0.5]])
    there = source_points(torch.tensor([0.0, 0, 3, 3]), 1, 3, corner)[0]
    assert turned[0, 0] == image[int(there[1]), int(there[0])]


@pytest.mark.parametrize("group", ["global", "local"])
def test_bins_of_teacher_and_student_show_the_same_places(group):
    """f(x, y) = (x, y), sampled continuously: regions agree after the teacher's are turned."""
    batch, bins = crops(20, TEXT), 5
    maps = [torch.zeros(1, 1, side // 2, side // 2) for side in (16, SIZES[group])]
    pairs = gtsa._pairs(batch, "global", group, *maps)
    count = {"global": 2, "local": 6}[group]
    assert len(pairs.student) == count * len(batch)
    seen = set()
    for r in range(len(pairs.student)):
        view, image = divmod(int(pairs.student[r]), len(batch))
        q, also = divmod(int(pairs.teacher[r]), len(batch))
        assert image == also and not pairs.mirrors[r]
        seen.add((image, q, view))
        places = []
        for name, index, box in (
            (group, view, pairs.in_student[r]),
            ("global", q, pairs.in_teacher[r]),
        ):
            geometry = batch.geometry[name]
            points = cells(2 * box.double(), bins)  # maps have a stride of 2
            crop, turns = geometry.box[image, index].double(), int(geometry.turns[image, index])
            places.append(
                source_points(crop, turns, SIZES[name], points.view(-1, 2)).view(bins, bins, 2)
            )
        turned = torch.rot90(places[1], int(pairs.turns[r]))
        scale = batch.shapes[image].max()
        torch.testing.assert_close(places[0] / scale, turned / scale, rtol=0, atol=1e-5)
    assert len(seen) == len(pairs.student)
    if group == "global":
        assert all(q != view for _, q, view in seen)


# --------------------------------------------------------------------------------------- losses


def official_losses(method: GTSA, batch, student: GTSA, teacher: nn.Module) -> dict[str, float]:
    """The release's losses, pair by pair, with torchvision's RoI-align and all similarities."""
    images, bins = len(batch), {"global": 4, "local": 2}
    maps, features, turns = {}, {}, {}
    for name in ("global", "local"):
        views = batch.views[name]
        for view in range(views.shape[1]):
            turns[name, view] = batch.geometry[name].turns[:, view]
        flat = student.backbone.forward_intermediates(batch.flat(name))[0]
        projected = student.predictor(student.map_projector(flat))
        for view, (one, two) in enumerate(
            zip(projected.split(images), flat.split(images), strict=True)
        ):
            maps[name, view], features[name, view] = one, two
    with torch.no_grad():
        targets = teacher(batch.flat("global")).split(images)
    crop, match, rotation = [], [], []
    for (name, view), maps_v in maps.items():
        logits = student.rotation_head(features[name, view].flatten(2).mean(2))
        rotation.append(F.cross_entropy(logits, turns[name, view]))
        for q, maps_q in enumerate(targets):
            if (name, view) == ("global", q):
                continue
            crop.append(official_crop(batch, name, view, q, maps_v, maps_q, bins[name]))
            s, t = (F.normalize(m.flatten(2).mT, dim=-1) for m in (maps_v, maps_q))
            similarity = s @ t.mT
            keep = similarity.shape[1] // 2
            best = [similarity.max(dim).values.topk(keep).values.mean() for dim in (2, 1)]
            match.append(-(best[0] + best[1]) / 2)
    return {
        "crop": torch.stack(crop).mean(),
        "match": torch.stack(match).mean(),
        "rotation": torch.stack(rotation).mean(),
    }


def official_crop(batch, name, view, q, maps_v, maps_q, bins):
    """Boxes by METHODS' table of turned rectangles; the teacher's grid turned by v - q."""
    losses = []
    for image in range(len(batch)):
        geometry = {"v": (batch.geometry[name], view), "q": (batch.geometry["global"], q)}
        boxes = {key: g.box[image, index].tolist() for key, (g, index) in geometry.items()}
        turned = {key: int(g.turns[image, index]) for key, (g, index) in geometry.items()}
        (a1, b1, a2, b2), (c1, d1, c2, d2) = boxes.values()
        overlap = max(a1, c1), max(b1, d1), min(a2, c2), min(b2, d2)
        grids = {}
        for key, maps in (("v", maps_v), ("q", maps_q)):
            side = maps.shape[-1]
            box = in_view(overlap, boxes[key], turned[key], side)
            index = torch.tensor([[float(image), *box]])
            grids[key] = roi_align(maps, index, bins, aligned=True)[0]
        target = torch.rot90(grids["q"], (turned["v"] - turned["q"]) % 4, (1, 2))
        losses.append(-F.cosine_similarity(grids["v"], target, dim=0).mean())
    return torch.stack(losses).mean()


def in_view(overlap, crop, turns: int, side: float) -> tuple[float, ...]:
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    x1, x2 = ((overlap[i] - crop[0]) / width * side for i in (0, 2))
    y1, y2 = ((overlap[i] - crop[1]) / height * side for i in (1, 3))
    return {
        0: (x1, y1, x2, y2),
        1: (y1, side - x2, y2, side - x1),
        2: (side - x2, side - y2, side - x1, side - y1),
        3: (side - y2, x1, side - y1, x2),
    }[turns]


def test_losses_and_gradients_are_the_official_ones():
    method = make()
    official = copy.deepcopy(method)
    batch = crops(6, TEXT)
    expected = official_losses(method, batch, official, official.teacher.module)
    total = expected["crop"] + 0.5 * expected["match"] + 0.5 * expected["rotation"]
    method.on_step_start(at(7))  # of the second epoch
    losses = method(batch)
    for name, value in expected.items():
        torch.testing.assert_close(losses.metrics[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.loss, total, rtol=1e-4, atol=1e-5)
    losses.loss.backward()
    total.backward()
    for (name, mine), theirs in zip(method.named_parameters(), official.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(
                mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=f"{name} differs"
            )
        else:
            assert mine.grad is None and name.startswith("teacher")


@pytest.mark.parametrize("only", ["crop", "match", "rotation"])
def test_a_weight_of_zero_disables_a_loss(only):
    weights = {name: float(name == only) for name in ("crop", "match", "rotation")}
    method = make(**weights)
    method.on_step_start(at(7))
    losses = method(crops(4, TEXT))
    torch.testing.assert_close(losses.loss.detach(), losses.metrics[only])
    losses.loss.backward()
    reached = {
        "map_projector": only != "rotation",
        "predictor": only != "rotation",
        "rotation_head": only == "rotation",
        "backbone": True,
    }
    for part, expected in reached.items():
        gradients = [param.grad for param in getattr(method, part).parameters()]
        assert all(gradient is not None for gradient in gradients)
        assert any(gradient.any() for gradient in gradients) == expected


def test_patches_are_matched_from_the_twelfth_epoch_on():
    method = make(match_after=10)
    for epoch, weight in ((0, 0.0), (10, 0.0), (11, 0.5), (99, 0.5)):
        method.on_step_start(Progress(epoch * 5, 500, float(epoch), 100))
        losses = method(crops(4, TEXT))
        assert (losses.metrics["match"] != 0) == bool(weight)
        expected = (
            losses.metrics["crop"]
            + weight * losses.metrics["match"]
            + 0.5 * losses.metrics["rotation"]
        )
        torch.testing.assert_close(losses.loss, expected)


def test_the_teacher_follows_before_its_forward_pass():
    """The student of the step before, by a momentum that rises from 0.996 to 1."""
    method = make(momentum=0.75)
    teacher = [param.clone() for param in method.teacher.parameters()]
    momenta = 1 + 0.5 * (0.75 - 1) * (1 + np.cos(np.pi * np.arange(20) / 20))
    for number in range(3):
        method.on_step_start(at(number))
        student = [param.detach().clone() for param in method._student().parameters()]
        m = momenta[number]
        teacher = [
            m * mine + (1 - m) * theirs for mine, theirs in zip(teacher, student, strict=True)
        ]
        for mine, theirs in zip(method.teacher.parameters(), teacher, strict=True):
            torch.testing.assert_close(mine, theirs.detach())
        step(method, crops(4, TEXT, seed=number))
        method.after_update(at(number))


# ------------------------------------------------------------------------------ networks, memory


def test_heads_are_those_of_the_release():
    torch.manual_seed(0)
    method = GTSA(GTSA.Settings(), backbones.build(Model("vit_small_patch16_224", depth=1), 224))
    shapes = {name: tuple(p.shape) for name, p in method.map_projector.named_parameters()}
    assert [s for s in shapes.values() if len(s) == 4] == [
        (384, 384, 3, 3),
        (384, 384, 3, 3),
        (768, 384, 1, 1),
    ]
    assert [tuple(p.shape) for p in method.predictor.parameters() if p.ndim == 4] == [
        (768, 768, 3, 3),
        (768, 768, 1, 1),
    ]
    assert [tuple(p.shape) for p in method.rotation_head.parameters() if p.ndim == 2] == [
        (768, 384),
        (768, 768),
        (128, 768),
        (4, 128),
    ]
    for layer in (*method.map_projector.modules(), *method.predictor.modules()):
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert not layer.bias.any()


def test_a_block_is_a_convolution_a_norm_over_channels_and_gelu():
    method = make()
    block = method.map_projector[0]
    x = torch.randn(2, 6, 4, 4)
    out = block.conv(x)
    centred = out - out.mean(1, keepdim=True)
    expected = F.gelu(centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt())
    torch.testing.assert_close(block(x), x + expected)
    torch.testing.assert_close(method.predictor[0].residual, False)
    assert not make(first_residual=False).map_projector[0].residual


class Shapes(TorchDispatchMode):
    """Records the size of the largest result of each operation, outside of kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.results.append((str(func), tuple(one.shape)))
        return out


def test_no_matrix_of_tokens_and_no_map_of_a_pair_is_held():
    torch.manual_seed(0)
    backbone = backbones.build(
        Model("vit_small_patch16_224", depth=1, positions="dino", pool="mean"), 224
    )
    method = GTSA(GTSA.Settings(match_after=0), backbone)
    method.on_step_start(at(10))
    batch = crops(2, "gtsa")
    with Shapes() as shapes:
        method(batch).loss.backward()
    weights = {tuple(param.shape) for param in method.parameters()}
    largest = max(np.prod(s) for _, s in shapes.results if s and s not in weights)
    assert largest < 2 * 18 * 768 * 196 / 2  # half of the teacher's maps, one for each pair
    matrices = [(n, s) for n, s in shapes.results if len(s) > 1 and min(s[-2:]) >= 36]
    tokens = {36, 37, 196, 197}
    assert not [n for n, s in matrices if set(s[-2:]) <= tokens]


# ------------------------------------------------------------------------------------- bad input


def test_views_without_overlap_or_turns_are_errors():
    with pytest.raises(MillError, match="global of dino has no min_overlap or no turns: use gtsa"):
        GTSA.check(GTSA.Settings(), presets.dino())
    with pytest.raises(MillError, match="takes 2 views of an image, but alone makes 8"):
        GTSA.check(GTSA.Settings(), Recipe(presets.gtsa().views[1:], "alone"))
    GTSA.check(GTSA.Settings(), presets.gtsa(local_crops=0))
    GTSA.check(GTSA.Settings(), operations.add(presets.gtsa(), operations.RandomErasing()))
    with pytest.raises(MillError, match="Rotation in global's extra moves what they show"):
        GTSA.check(GTSA.Settings(), operations.add(presets.gtsa(), operations.Rotation()))


def test_a_run_without_losses_is_an_error():
    weights = dict(crop=0.0, match=0.0, rotation=0.0)
    with pytest.raises(MillError, match="leaves GTSA no loss to learn from: give one of them"):
        GTSA.check(GTSA.Settings(**weights), presets.gtsa())


def test_views_of_a_single_place_are_an_error():
    model, recipe = (
        Model(name="resnet10t", stem="cifar"),
        presets.gtsa(global_size=32, local_size=8),
    )
    with pytest.raises(
        MillError, match="resnet10t has a single position for local views of 8 pixels: use"
    ):
        GTSA.make_backbone(GTSA.Settings(), model, recipe)
    GTSA.make_backbone(GTSA.Settings(match=0.0), model, recipe)
    GTSA.make_backbone(GTSA.Settings(), model, presets.gtsa(global_size=32, local_size=16))


def test_a_backbone_without_maps_is_an_error():
    with pytest.raises(MillError, match="no feature maps"):
        GTSA(GTSA.Settings(), Tiny())


def test_the_teacher_is_evaluated():
    method = make()
    assert method.encoder() is method.teacher.module.backbone
    assert method.encoder("student") is method.backbone
    assert method.networks()[1] is None
