"""Means over patches: of h and of z, in the order of images, for any chunk size."""

from __future__ import annotations

from pathlib import Path

import helpers_ranks
import helpers_trained
import numpy as np
import pytest
import torch
from helpers_trained import tiny  # noqa: F401  (a fixture)
from torch.nn.functional import cosine_similarity

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Centre, Crop, Spread, Window
from patchmill.training import data
from patchmill.training.evaluation import linear
from patchmill.training.evaluation.patches import evaluation, neighbours, patch_means, patch_views
from patchmill.training.evaluation.patches.evaluation import Settings
from patchmill.training.evaluation.patches.patch_means import extract_first, extract_means

pytestmark = pytest.mark.usefixtures("tiny")


def embedded(run, recipe):
    """Image -> h and z of each of its patches, one at a time."""
    loader, found = data.open_evaluation(run.config, run.world, "test", recipe, 2), {}
    backbone, projector = run.method.eval().backbone, run.method.projector
    with torch.no_grad():
        for batch in loader:
            (group,) = batch.views
            for image, views in zip(batch.ids.tolist(), batch.views[group], strict=True):
                h = torch.cat([backbone(view[None]) for view in views])
                found[image] = h, torch.cat([projector(row[None]) for row in h])
    return found


def test_means_are_those_of_each_patchs_h_and_z(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    recipe = patch_views.grid(run.config, 4)
    found, expected, of_mean = extract_means(run, recipe, "test"), embedded(run, recipe), []
    for at, image in enumerate(found["h"].ids.tolist()):
        h, z = expected[image]
        torch.testing.assert_close(found["h"].rows[at], h.mean(0))
        torch.testing.assert_close(found["z"].rows[at], z.mean(0))
        of_mean.append(run.method.projector(h.mean(0)[None])[0])
        # and not a mean of directions
        unit = torch.nn.functional.normalize(h, dim=1).mean(0)
        assert not torch.allclose(found["h"].rows[at], unit, rtol=0.01)
    assert not torch.allclose(found["z"].rows, torch.stack(of_mean))  # nor z of the mean h


@pytest.mark.parametrize(("forward", "rendered"), [(1, 1), (16 * 16 * 3 * 5, 1), (10**9, 10**9)])
def test_chunk_sizes_do_not_change_the_means(
    forward: int, rendered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = helpers_trained.run(tmp_path)
    recipe = patch_views.grid(run.config, 9)
    expected = extract_means(run, recipe, "test")
    monkeypatch.setitem(patch_means.FORWARD, "cpu", forward)
    monkeypatch.setattr(patch_means, "RENDERED", rendered)
    found = extract_means(run, recipe, "test")
    for space in ("h", "z"):
        torch.testing.assert_close(found[space].rows, expected[space].rows)


def test_means_of_the_first_patches_come_with_those_of_all(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    recipe = patch_views.grid(run.config, 9)
    means, each = extract_first(run, recipe, [4, 1, 9], "test"), embedded(run, recipe)
    assert list(means) == [1, 4, 9]
    for count, spaces in means.items():
        for at, image in enumerate(spaces["h"].ids.tolist()):
            for space, rows in zip("hz", each[image], strict=True):
                torch.testing.assert_close(spaces[space].rows[at], rows[:count].mean(0))


def test_random_patches_are_the_first_of_more(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    chosen = Settings(counts=[1, 4], probe="none", sampling="random", curve=4, neighbours=0)
    curve = evaluation.evaluate(run, chosen).data["curve"]
    drawn = extract_first(run, patch_views.random(run.config, 4), [2, 4], "test", 4)
    cosine = cosine_similarity(drawn[2]["h"].rows, drawn[4]["h"].rows).mean().item()
    assert curve["patches"] == [1, 2, 4] and curve["h_to_most"][1] == pytest.approx(cosine)


def test_the_enlarged_image_is_magnified_like_the_patches(tmp_path: Path):
    by_area, windows = (
        helpers_trained.settings(tmp_path, method__views=f"bagssl(size=16, {more})")
        for more in ("scale=0.25", "short_side=24")
    )
    for config, side in ((by_area, 32), (windows, 24)):
        (view,) = patch_views.enlarged(config).views
        assert (view.size, view.crop) == (side, Centre(side))
    chosen = Settings(counts=[1], probe="none", curve=0, neighbours=0, enlarged=True)
    run = helpers_trained.run(tmp_path)
    assert [row[0] for row in evaluation.evaluate(run, chosen).rows] == [
        "central",
        "enlarged",
        "1 patch",
    ]


def test_one_patch_of_the_whole_image_is_the_central_view(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    one = extract_means(run, patch_views.grid(run.config, 1, area=1.0), "test")
    central = extract_means(run, patch_views.central(run.config), "test")
    patch = extract_means(run, patch_views.grid(run.config, 1), "test")
    torch.testing.assert_close(one["h"].rows, central["h"].rows)
    assert not torch.allclose(patch["h"].rows, central["h"].rows)


def test_the_result_has_a_row_for_each_count_and_a_curve_that_ends_at_one(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    chosen = Settings(counts=[16, 1], probe="none", curve=4, neighbours=2)
    found = evaluation.evaluate(run, chosen)
    assert [row[0] for row in found.rows] == ["central", "1 patch", "16 patches"]
    assert found.columns == ["views", "knn in h", "knn in z"]
    curve = found.data["curve"]
    assert curve["patches"] == [1, 4, 9, 16]
    assert curve["h_to_most"][-1] == pytest.approx(1) and curve["h_to_most"][0] < 1
    central = extract_means(run, patch_views.central(run.config), "test", 4)["z"].rows
    most = extract_means(run, patch_views.grid(run.config, 16), "test", 4)["z"].rows
    cosine = cosine_similarity(central, most).mean().item()
    assert curve["z_to_central"][-1] == pytest.approx(cosine)
    whole, rows = (torch.nn.functional.normalize(it, dim=1) for it in (central, most))
    matrix = rows @ whole.T
    others = [matrix[a, b].item() for a in range(4) for b in range(4) if a != b]
    assert curve["z_to_others"][-1] == pytest.approx(sum(others) / 12)
    assert curve["z_found"][-1] == (matrix.argmax(1) == torch.arange(4)).float().mean().item()
    assert found.data["untrained_curve"]["h_to_central"] != curve["h_to_central"]
    assert (run.folder / found.data["neighbours"]).exists()
    assert set(found.data["locality"]) == {"h", "z"}
    assert set(found.scalars) == {
        f"{name}_{space}_knn" for name in ("central", "1_patch", "16_patches") for space in "hz"
    }


def test_a_probe_is_reported_besides_knn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = linear.PROTOCOLS["emp_ssl"]._replace(epochs=3)
    monkeypatch.setitem(linear.PROTOCOLS, "emp_ssl", short)
    run = helpers_trained.run(tmp_path)
    found = evaluation.evaluate(run, Settings(counts=[1], curve=0, neighbours=0, images=8))
    assert found.columns[1:] == ["knn in h", "linear in h", "knn in z", "linear in z"]
    scores = found.data["columns"]["1 patch"]["h"]
    assert found.rows[1][2] == f"{scores['linear']:.1%}" and scores["linear_best"] <= 1


def test_evaluation_by_patches_has_no_side_effects(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    run.method.train()
    before = {name: value.clone() for name, value in run.method.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    evaluation.evaluate(run, Settings(counts=[1], probe="none", curve=2, neighbours=2))
    assert torch.equal(torch.rand(2), expected) and run.method.training
    for name, value in run.method.state_dict().items():
        assert torch.equal(value, before[name])


RANKS = """
    from pathlib import Path
    from helpers_methods import Tiny
    from patchmill.training.nets import backbones
    from patchmill.training.ranks import distributed
    backbones.build = lambda settings, size, **_: Tiny()
    from patchmill.training.evaluation import single_view, trained_run
    from patchmill.training.evaluation.patches import patch_views
    from patchmill.training.evaluation.patches.patch_means import extract_first, extract_means
    world = distributed.connect("cpu")
    config = trained_run.load_config(Path({folder!r}))
    run = trained_run.load(Path({folder!r}), config, world)
    found = extract_means(run, patch_views.grid(config, 4), "test")["z"]
    print(found.ids.tolist(), found.labels.tolist())
    print(*(f"{{value:.5f}}" for value in found.rows.flatten().tolist()))
    print(single_view.evaluate_knn(run, single_view.KNN()).scalars)
"""


def test_two_ranks_get_the_results_of_one(tmp_path: Path):
    outputs = []
    for size in (1, 2):
        folder = helpers_trained.write(helpers_trained.settings(tmp_path / str(size)))
        outputs += helpers_ranks.run_well(RANKS.format(folder=str(folder)), tmp_path, size)
    assert outputs[0] and outputs[0] == outputs[1] == outputs[2]


# ------------------------------------------------------------------------------- views of patches


def test_a_grid_has_the_scale_of_training(tmp_path: Path):
    by_area, windows = (
        helpers_trained.settings(tmp_path, method__views=f"bagssl(size=16, {more})")
        for more in ("scale=0.3", "short_side=24")
    )
    assert patch_views.grid(by_area, 9).views[0].crop == Spread(3, 3, 0.3)
    assert patch_views.grid(windows, 4).views[0].crop == Spread(2, 2, short_side=24)
    assert patch_views.random(by_area, 5).views[0].crop == Crop((0.3, 0.3), (1.0, 1.0))
    assert patch_views.random(windows, 5).views[0].crop == Window(24)


def test_random_patches_have_training_s_colours_only_if_asked(tmp_path: Path):
    config = helpers_trained.settings(tmp_path, method__views="bagssl(size=16, short_side=24)")
    (plain,), (coloured,) = (patch_views.random(config, 5, it).views for it in (False, True))
    assert (plain.colour, plain.blur, plain.solarise) == (None, None, 0.0)
    assert plain.count == coloured.count == 5 and coloured.colour
    assert coloured.blur and coloured.blur.p == (1.0, 0.1, 1.0, 0.1, 1.0)


def test_counts_that_are_no_square_and_unknown_scales_are_errors(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    with pytest.raises(MillError, match=r"20 patches make no square grid: use 16 or 25, or"):
        patch_views.grid(config, 20)
    config = helpers_trained.settings(tmp_path, method__views="simclr(size=16)")
    with pytest.raises(MillError, match=r"was not trained on patches of one scale: .* area=0.2"):
        patch_views.grid(config, 16)
    assert patch_views.grid(config, 16, 0.1).views[0].crop == Spread(4, 4, 0.1)


# -------------------------------------------------------------------------------------- neighbours


def test_neighbours_are_of_other_images_and_the_nearest_first():
    angle = torch.tensor([0.0, 0.1, 0.2, 0.4, 3.0, 0.05])
    rows = torch.stack([angle.cos(), angle.sin()], 1) * torch.arange(1, 7)[:, None]
    images = torch.tensor([0, 0, 1, 1, 2, 3])
    found = neighbours.nearest(rows, images, torch.tensor([0, 4]), 3)
    assert found.tolist() == [[5, 2, 3], [3, 2, 1]]


def test_locality_is_one_for_embeddings_of_places_and_own_for_those_of_images():
    images, cells = torch.arange(20).repeat_interleave(4), torch.arange(4).repeat(20)
    of_place, of_image = torch.eye(4)[cells], torch.eye(20)[images]
    of_class = torch.eye(2)[images % 2]
    patches = neighbours.EmbeddedPatches(
        np.zeros((80, 1, 1, 3), np.uint8),
        images,
        cells,
        images % 2,
        {"h": torch.cat([of_place, 0.1 * of_image], 1), "z": torch.cat([of_image, of_class], 1)},
    )
    found = neighbours.locality(patches)
    assert found["h"]["place"] == pytest.approx(1) and found["h"]["own"] == 0
    assert found["z"]["own"] == 1 and found["z"]["class"] == 1
    assert found["z"]["place"] < 0.5 and found["h"]["class"] < 0.9


def test_the_picture_has_a_row_for_each_query(tmp_path: Path):
    run = helpers_trained.run(tmp_path)
    recipe = patch_views.grid(run.config, neighbours.PER_IMAGE)
    patches = neighbours.collect(run, recipe)
    three, five = (neighbours.draw(patches, count) for count in (3, 5))
    assert five.height - three.height == 2 * (neighbours.SIDE + neighbours.GAP)
