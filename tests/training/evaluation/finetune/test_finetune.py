"""evaluate=finetune: training, repeatability, reported results, and mistakes."""

from __future__ import annotations

import copy
import json
import random
import statistics

import helpers_finetune
import helpers_trained
import numpy as np
import pytest
import torch
from helpers_finetune import evaluate
from helpers_methods import Tiny
from helpers_trained import tiny  # noqa: F401  (a fixture)

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.training import evaluate as command
from patchmill.training.evaluation.finetune import evaluation, protocols, score, train
from patchmill.training.evaluation.settings import FinetuneName
from patchmill.training.methods import METHODS

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def fitted(monkeypatch):
    """Networks that were fine-tuned, after their training, and the losses of each."""
    networks = []

    def fit(network, *others):
        before = copy.deepcopy(network.state_dict())
        losses = original(network, *others)
        networks.append((before, network.state_dict(), losses))
        return losses

    original = train.fit
    monkeypatch.setattr(train, "fit", fit)
    return networks


def test_the_whole_network_learns(tmp_path, fitted):
    run = helpers_finetune.run(tmp_path)
    weights = copy.deepcopy(run.method.state_dict())
    result = evaluate(run, epochs=8, lr=0.05, labels=1.0)
    ((before, after, losses),) = fitted
    assert losses.last < losses.first
    for name in ("backbone.conv.weight", "backbone.norm.running_mean", "head.1.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert torch.equal(before["backbone.conv.weight"], weights["backbone.conv.weight"])
    for name, values in run.method.state_dict().items():
        assert torch.equal(values, weights[name]), name  # the run's own network is as it was
    row = result.data["finetuned"]["fine-tuned on 100 % of the labels"]
    assert row["images"] == 60 and row["final_loss"] == losses.last
    assert result.scalars == {"finetune_100pct": row["top1"]}


def generators():
    numpy = np.random.get_state()[1]  # noqa: NPY002
    return random.getstate(), numpy.tolist(), torch.get_rng_state().tolist()


def test_scores_repeat_bit_by_bit(tmp_path, fitted):
    settings = {"mixup": 0.8, "cutmix": 1.0, "erase": 0.5, "smoothing": 0.1, "baseline": True}
    state = generators()
    for name in ("a", "b"):
        evaluate(helpers_finetune.run(tmp_path / name), **settings)
    first, baseline, again, baseline_again = fitted
    assert first[2] == again[2] and baseline[2] == baseline_again[2] != first[2]
    for name, values in first[1].items():
        assert torch.equal(values, again[1][name]), name
    assert generators() == state  # as if nothing had been drawn


def test_finished_seeds_are_not_trained_again(tmp_path, fitted):
    run = helpers_finetune.run(tmp_path)
    first = evaluate(run, seeds=[0, 1])
    assert len(fitted) == 2
    assert evaluate(run, seeds=[0, 1]) == first and len(fitted) == 2
    evaluate(run, seeds=[0, 1, 2])
    assert len(fitted) == 3
    evaluate(run, epochs=1)  # other settings
    assert len(fitted) == 4
    with torch.no_grad():
        run.method.backbone.conv.weight.mul_(2)  # other weights
    evaluate(run)
    assert len(fitted) == 5


def test_mean_and_standard_deviation_over_seeds(tmp_path, monkeypatch):
    scores = iter([0.5, 0.6, 0.8, 0.3, 0.3, 0.3])
    monkeypatch.setattr(train, "fit", lambda *_: train.Losses(2.0, 1.0))
    monkeypatch.setattr(train, "test", lambda *_: {"top1": next(scores)})
    result = evaluate(helpers_finetune.run(tmp_path), seeds=[0, 1, 2], baseline=True)
    row = result.data["finetuned"]["fine-tuned on 50 % of the labels"]
    assert row["top1"] == pytest.approx(1.9 / 3)
    assert row["top1_std"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.8]))
    assert row["top1_of_seeds"] == [0.5, 0.6, 0.8]
    assert result.rows == [
        ["fine-tuned on 50 % of the labels", "31", "63.3% ± 15.3"],
        ["from scratch on 50 % of the labels", "31", "30.0% ± 0.0"],
    ]
    assert result.about.endswith("; mean and standard deviation over seeds 0, 1, 2")
    assert result.scalars["finetune_50pct_baseline"] == pytest.approx(0.3)
    assert evaluation.format_mean({"top1": 0.5, "top1_std": None}, "top1") == "50.0%"


def test_runs_share_subsets_and_the_baseline_begins_from_scratch(tmp_path, fitted):
    for name, seed in (("a", 0), ("b", 5)):
        evaluate(helpers_finetune.run(tmp_path / name, seed=seed), baseline=True)
    files = [path for path in tmp_path.rglob("subset-*.txt")]
    assert len(files) == 2 and files[0].read_bytes() == files[1].read_bytes()
    _, baseline, _, other = fitted
    for name, values in baseline[1].items():
        assert torch.equal(values, other[1][name]), name  # of any run of that method


def test_as_a_command(tmp_path, capsys):
    config = helpers_trained.settings(tmp_path, **helpers_finetune.OVERRIDES)
    folder = helpers_trained.write(config)
    overrides = [
        f"{k}={v}" for k, v in helpers_finetune.SHORT.items() if k not in ("labels", "seeds")
    ]
    shared = tmp_path / "subsets"
    overrides += ["labels=[0.2,1.0]", "seeds=[0,3]", "baseline=true", f"subsets={shared}"]
    command.main([f"run={folder}", "evaluate=finetune", *overrides])
    result = json.loads((folder / "finetune.json").read_text())
    assert list(result["finetuned"]) == [
        f"{how} on {share} % of the labels"
        for share in (20, 100)
        for how in ("fine-tuned", "from scratch")
    ]
    assert result["protocol"] == "demo" and result["protocols"]["demo"]["epochs"] == 2
    assert sorted(path.name for path in shared.iterdir()) == [
        f"subset-{share}pct-seed{seed}.txt" for share in (100, 20) for seed in (0, 3)
    ]
    line = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
    assert {"finetune_20pct", "finetune_100pct_baseline"} <= set(line)
    assert "from scratch on 100 % of the labels" in capsys.readouterr().out
    assert "from scratch on 100 % of the labels" in (folder / "report.html").read_text()


MISTAKES = {
    "labels=0": r"labels must be a number above 0 and at most 1 or a list of .*, not 0",
    "labels=1.5": r"labels must be a number above 0 and at most 1 or .*, not 1.5",
    "labels=[0.1,2]": r"labels.* must be",
    "labels=0.01": r"labels=0.01 selects no image of class .*: use at least labels=0.0",
    "seeds=[]": r"seeds=\[\] must be one or more different numbers",
    "seeds=[1,1]": r"seeds=\[1, 1\] must be one or more different numbers",
    "list=gone.txt": r"cannot read the list gone.txt",
    "batch=100": r"60 samples of scenes.* has 60 samples, fewer than batch=100: use a smaller",
    "batch=7 mixup=0.8": r"batch=7 makes 7 on each rank: use batch=8, or mixup=0 cutmix=0",
    "epochs=2 warmup=3": r"warmup=3 is longer than epochs=2: shorten the warm-up, too",
    "protocol=moco": r"protocol must be auto \| vicreg",
    "variant=resnet": r"variant=resnet: BagSSL has one network to fine-tune; omit variant=",
    "views=gtsa": r"views: fine-tuning takes one group of views, but there are gtsa: ",
    "views=": r"views: ",
    "drop_path=0.1": r"drop_path=0.1 is for residual blocks, but Tiny has none",
    "layer_decay=0.5": r"layer_decay=0.5 is for networks whose layers timm numbers",
    "lr=1e30 warmup=0": r"fine-tuning diverged in epoch \d: .* use a lower rate than lr=1e\+30",
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_mistakes_are_one_sentence(overrides, tmp_path):
    folder = helpers_trained.write(helpers_trained.settings(tmp_path, **helpers_finetune.OVERRIDES))
    by_key = {"labels": "labels=1.0", "seeds": "seeds=[0]"}
    by_key |= {override.partition("=")[0]: override for override in overrides.split()}
    if "list" in by_key:
        del by_key["labels"]
    with pytest.raises(MillError, match=MISTAKES[overrides]) as error:
        command.main([f"run={folder}", "evaluate=finetune", *by_key.values()])
    assert "\n" not in str(error.value)


def test_labels_and_a_list_are_one_too_many(tmp_path):
    with pytest.raises(MillError, match="give only one of the two"):
        evaluate(helpers_finetune.run(tmp_path), list="x.txt")


def test_a_run_without_labels_is_an_error(tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    run = helpers_finetune.run(tmp_path / "out", data__bank=tmp_path)
    with pytest.raises(MillError, match=r"has no labels to learn from: .* data.bank=DIR"):
        evaluate(run)


def test_few_labels_may_take_as_many_steps_as_many(tmp_path, fitted):
    run = helpers_finetune.run(tmp_path)
    result = evaluate(run, labels=[0.3, 1.0], epochs=None, steps=15)  # of 8 images each
    few, all_labels = result.data["finetuned"].values()
    assert (few["images"], few["epochs"]) == (18, 8)  # 2 steps each
    assert (all_labels["images"], all_labels["epochs"]) == (60, 3)  # 7 steps each
    assert "3 to 8 epochs" in result.about
    with pytest.raises(MillError, match="epochs= and steps= both set the length"):
        evaluate(run, epochs=2, steps=15)


def test_a_list_names_the_images(tmp_path, fitted):
    run = helpers_finetune.run(tmp_path)
    ids = [1, 4, 7, 11, 20, 23, 31, 50]
    file = tmp_path / "few.txt"
    file.write_text("\n".join(map(str, ids)))
    result = evaluate(run, labels=None, list=str(file), seeds=[0, 1])
    row = result.data["finetuned"]["fine-tuned on the labels listed in few.txt"]
    assert row["images"] == 8 and len(row["top1_of_seeds"]) == len(fitted) == 2
    assert list(result.scalars) == ["finetune_list"]


def test_accuracies_among_one_and_five_guesses(tmp_path):
    run = helpers_finetune.run(tmp_path)
    labels = open_source(run.config.data.test).labels

    class Guesses(torch.nn.Module):
        """Guesses class 1, then 6, 5, 0 and 4 for every image."""

        classes = 7

        def forward(self, views):
            return torch.tensor([2.0, 9, 0, 1, 1.5, 3, 4]).expand(len(views), 7)

    assert train.test(Guesses(), run, "tests") == {
        "top1": pytest.approx((labels == 1).mean()),
        "top5": pytest.approx((labels < 2).mean()),
    }


def test_protocols_are_those_of_their_sources():
    assert set(protocols.PROTOCOLS) | {"auto", "vicreg"} == set(FinetuneName.__args__)
    for name, (lr, head_lr) in {"vicreg_1pct": (0.03, 0.08), "vicreg_10pct": (0.01, 0.1)}.items():
        protocol = protocols.PROTOCOLS[name]
        assert (protocol.epochs, protocol.batch, protocol.optim.weight_decay) == (20, 256, 0)
        assert (protocol.optim.lr, protocol.head_lr, protocol.optim.schedule) == (
            lr,
            head_lr,
            "cosine",
        )
    swav = protocols.PROTOCOLS["swav"]
    assert (swav.epochs, swav.optim.lr, swav.head_lr) == (20, 0.01, 0.2)
    assert (swav.optim.schedule, swav.optim.milestones, swav.optim.gamma) == (
        "steps",
        (12, 16),
        0.2,
    )
    gtsa, base = protocols.PROTOCOLS["gtsa"], protocols.PROTOCOLS["gtsa_base"]
    assert (gtsa.optim.lr, gtsa.optim.scaled) == (1.4e-4, False)
    assert (base.optim.lr, base.optim.scaled) == (5e-4, True)
    for one in (gtsa, base):
        assert (one.epochs, one.batch, one.optim.warmup) == (300, 1024, 5)
        assert (one.layer_decay, one.optim.weight_decay, one.drop_path) == (0.65, 0.05, 0.1)
        assert (one.smoothing, one.mixup, one.cutmix, one.erase) == (0.1, 0.8, 1.0, 0.25)
        assert one.head.pool == "patches" and one.head.norm and one.head.std == 2e-5


@pytest.mark.parametrize(
    ("overrides", "share", "name"),
    [
        ({}, 0.1, "demo"),
        ({"scale": "cifar"}, 0.1, "selfie"),
        ({"scale": "paper"}, 0.1, "vicreg_10pct"),
        ({"scale": "paper"}, 0.01, "vicreg_1pct"),
    ],
)
def test_auto_is_a_protocol_for_the_size_of_images(overrides, share, name, tmp_path):
    config = helpers_trained.settings(tmp_path, **helpers_finetune.OVERRIDES)
    config.scale = overrides.get("scale", "demo")
    config.size = 224 if config.scale == "paper" else 32
    assert protocols.resolve(config, "auto", share)[0] == name
    config.method_name = "gtsa"
    expected = "demo" if config.scale == "demo" else "gtsa"
    assert protocols.resolve(config, "auto", share)[0] == expected


def test_changes_override_a_protocol():
    selfie = protocols.PROTOCOLS["selfie"]
    changed = protocols.override(selfie, {"epochs": 7, "lr": 0.3, "name": "lars", "mixup": 0.2})
    assert (changed.epochs, changed.optim.lr, changed.optim.name, changed.mixup) == (
        7,
        0.3,
        "lars",
        0.2,
    )
    assert changed.optim.nesterov and changed.batch == 128
    scratch = protocols.for_baseline(changed)
    assert scratch.optim.lr == 0.2 and scratch.epochs == 7
    assert protocols.for_baseline(protocols.PROTOCOLS["swav"]) == protocols.PROTOCOLS["swav"]
    assert set(evaluation.CHANGES) < set(vars(evaluation.Settings()))


def test_scores_are_in_the_runs_folder(tmp_path):
    run = helpers_finetune.run(tmp_path)
    evaluate(run)
    (entry,) = json.loads((run.folder / score.FOLDER / score.FILE).read_text()).values()
    assert {"top1", "first_loss", "final_loss"} == set(entry)  # no top-5 among three classes


def test_a_method_chooses_the_network_to_fine_tune(tmp_path, monkeypatch):
    run, asked = helpers_finetune.run(tmp_path), []

    def finetune_network(self, variant="auto"):
        assert self is not run.method  # what is fine-tuned is a copy's
        asked.append(variant)
        return self.backbone

    monkeypatch.setattr(type(run.method), "finetune_network", finetune_network)
    evaluate(run, variant="deep", epochs=1, baseline=True)
    evaluate(run, epochs=1)
    run.config.evaluate.encoder = "student"
    evaluate(run, epochs=1)
    assert asked == ["deep", "deep", "auto", "student"]


def test_methods_fine_tune_the_network_that_is_evaluated():
    method = METHODS["byol"](METHODS["byol"].Settings(hidden=8, dim=4), Tiny())
    for variant in ("auto", "student", "teacher"):
        assert method.finetune_network(variant) is method.encoder(variant)
