"""Settings that may change when a run resumes."""

import pytest

from patchmill.loaders.common import settings as typed
from patchmill.training.config import changes, compose, overrides
from patchmill.training.config.settings import Config

RUN = compose.compose(["method=moco", "data=scenes"])


def test_a_run_resumes_with_its_own_configuration():
    assert compose.difference(RUN, RUN) is None
    assert compose.difference(compose.plain(RUN), RUN) is None


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("optim.lr=0.5", "optim.lr"),
        ("method.queue=4096", "method.queue"),
        ("method.views=moco_v2(size=64, scale=(0.5, 1.0))", "method.views"),
        ("train.epochs=99", "train.epochs"),
        ("train.batch_size=96", "train.batch_size"),
        ("train.accumulate=2", "train.accumulate"),
        ("train.sync_bn=true", "train.sync_bn"),
        ("model=resnet18", "model.name"),
        ("seed=1", "seed"),
        ("optim.betas=[0.5,0.6]", "optim.betas"),
        ("data.steps=3", "data.steps"),
        ("method=dilo", "method_name"),
    ],
)
def test_what_is_learnt_may_not_change(word: str, field: str):
    before = compose.plain(RUN)
    found = compose.difference(before, compose.compose(["method=moco", "data=scenes", word]))
    assert found is not None
    assert found.field == field
    assert str(found).startswith(f"{field} was {found.before!r} and is ")


def test_where_and_how_fast_it_runs_may_change():
    arguments = [
        "train.workers=1",
        "train.log_every=7",
        "train.keep=9",
        "out=elsewhere",
        "name=other",
    ]
    arguments += [
        "resume=never",
        "log.wandb=project",
        "evaluate.k=5",
        "evaluate=never",
        "log.tensorboard=false",
    ]
    arguments += [
        "train.precision=bf16",
        "train.pipeline=threads",
        "train.device=cpu",
        "data.test=none",
    ]
    now = compose.compose(["method=moco", "data=scenes", *arguments])
    assert compose.difference(RUN, now) is None


def test_the_first_of_several_differences_is_named():
    now = compose.compose(
        ["method=moco", "data=scenes", "seed=1", "optim.lr=0.5", "model.stem=cifar"]
    )
    found = compose.difference(RUN, now)
    assert found is not None and found == ("model.stem", "imagenet", "cifar")


def test_a_setting_that_one_of_them_lacks_is_a_difference():
    before = compose.plain(RUN)
    del before["optim"]["gamma"]
    found = compose.difference(before, RUN)
    assert found is not None and (found.field, found.before) == ("optim.gamma", None)


def test_every_free_setting_exists():
    known = overrides.keys(Config)
    for free in changes.MAY_CHANGE:
        assert free in known or free in typed.field_annotations(Config)
