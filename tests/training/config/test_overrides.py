"""Command-line overrides: settings win over recipes, and mistakes are one sentence."""

import dataclasses
import types
import typing
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose, overrides
from patchmill.training.config.settings import Config
from patchmill.training.methods import METHODS

MISTAKES = {
    "optim.lr=1": "say what to train, as in method=dilo",
    "method=mylab.methods": "vicreg; one of your own is module:Class",
    "method=mocco": "there is no method=mocco; did you mean 'moco'?",
    "method=moco data=scene": "there is no data=scene; did you mean 'scenes'?",
    "method=moco data=/my/photos": "data=folder data.root=DIR",
    "method=moco scale=demos": "did you mean 'demo'?",
    "method=moco optim=lards": "did you mean 'lars'?",
    "method=moco model=resnet51": "did you mean 'resnet50'?",
    "method=moco evaluate=knnn": "did you mean 'knn'?",
    "method=moco optm.lr=1": "there is no setting 'optm.lr'; did you mean 'optim.lr'?",
    "method=moco lr=1": "there is no setting 'lr'; did you mean 'optim.lr'?",
    "method=moco batch_size=1": "did you mean 'train.batch_size' or 'evaluate.batch_size'?",
    "method=moco method.qeue=1": "there is no setting 'method.qeue'; did you mean 'method.queue'?",
    "method=moco method.expander=[8]": "there is no setting 'method.expander'",
    "method=moco method_name=tcr": "there is no setting 'method_name'",
    "method=moco hydra.job.name=x": "there is no setting 'hydra.job.name'",
    "method=moco train=3": "train is a section: set one of its keys, as in train.epochs=",
    "method=moco optim.lr": "cannot read 'optim.lr': write key=value",
    "method=moco +optim.lr=1": "cannot read '+optim.lr=1': write key=value",
    "method=moco ~optim.lr=1": "cannot read '~optim.lr=1': write key=value",
    "method=moco optim.lr=abc": "optim.lr must be a number above 0, not 'abc'",
    "method=moco optim.lr='1'": "optim.lr must be a number above 0",
    "method=moco optim.lr={a:1}": "optim.lr must be a number above 0",
    "method=moco optim.lr=0": "optim.lr must be a number above 0, not 0",
    "method=moco optim.lr=nan": "optim.lr must be a number above 0, not nan",
    "method=moco optim.lr=inf": "optim.lr must be a number above 0, not inf",
    "method=moco optim.lr=none": "optim.lr must be a number above 0",
    "method=moco optim.lr=": "optim.lr must be a number above 0, not ''",
    "method=moco optim.lr=1,2": "optim.lr takes one value here, not '1,2'",
    "method=moco optim.momentum=1.5": "optim.momentum must be a number from 0 to 1, not 1.5",
    "method=moco train.epochs=0": "train.epochs must be a whole number of at least 1, not 0",
    "method=moco train.epochs=1.5": "train.epochs must be a whole number of at least 1, not 1.5",
    "method=moco train.epochs=true": "train.epochs must be a whole number of at least 1, not True",
    "method=moco train.compile=1": "train.compile must be true or false, not 1",
    "method=moco optim.name=sdg": "must be sgd | adamw | lars, not 'sdg'; did you mean 'sgd'?",
    "method=moco train.channels_last=maybe": "must be true or false or auto, not 'maybe'",
    "method=moco model.patch=atuo": "must be a whole number of at least 1 or auto, not 'atuo'; did",
    "method=moco optim.betas=[0.9]": "optim.betas must be a list of 2 numbers, not [0.9]",
    "method=moco optim.betas=[0.9,2]": "optim.betas[1] must be a number from 0 to 1, not 2",
    "method=vicreg method.expander=[8,x]": "method.expander[1] must be a whole number",
    "method=vicreg method.expander=8,8": "lists are written [1,2]",
    "method=moco seed=-1": "seed must be a whole number",
    "method=moco seed=1" + 400 * "0": "seed must be a whole number",
    "method=moco name=${nothing}": "cannot fill in name: Interpolation key 'nothing' not found",
    "method=moco name=a/b": "name must be the name of a folder, not 'a/b'",
    "method=moco name=..": "name must be the name of a folder",
    "method=moco method.views=dilu": "method.views: there is no preset 'dilu'; did you mean 'dilo'",
    "method=moco method.views=emp_ssl": "MoCo takes 2 views of an image",
    "method=moco method.views=dino": "takes one group of views",
    "method=moco evaluate.view=evil": "evaluate.view: there is no preset 'evil'",
    "method=moco train.epochs=2 optim.warmup=3": "optim.warmup=3 epochs are more than train.epochs",
    "method=tcr optim.nesterov=true optim.momentum=0": "optim.nesterov=true needs a momentum",
    "method=moco data=folder": "data=folder needs data.root=DIR, the folder that holds train and",
    "method=moco data=shards": "data=shards needs data.train=",
    "method=moco data=imagenet data.root=/nowhere": "data.root=/nowhere holds no train",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(arguments: str):
    with pytest.raises(MillError) as caught:
        compose.compose(arguments.split())
    assert MISTAKES[arguments] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("method.views=dilo(size=32, paste=0.5)", "dilo(size=32, paste=0.5)"),
        ("data.train=scenes(count=50, size=32)", "scenes(count=50, size=32)"),
        ("data.train=shards/a b-{000..004}.tar", "shards/a b-{000..004}.tar"),
        ("out=/tmp/it's=\"here\", [1]", "/tmp/it's=\"here\", [1]"),
        ("name=123", "123"),
        ("name=none", "none"),
        ("data.test=none", None),
        ("optim.lr=1e-3", 1e-3),
        ("optim.lr=1", 1.0),
        ("train.epochs=1e1", 10),
        ("optim.grad_clip=null", None),
        ("optim.milestones=[]", ()),
        ("train.channels_last=True", True),
        ("train.channels_last=auto", "auto"),
        ("train.compile=true", True),
        ("model.patch=8", 8),
        ("model.patch=auto", "auto"),
        ("name=${data.name}-${seed}", "scenes-0"),
    ],
)  # fmt: skip
def test_words_are_parsed_to_values(word: str, value: Any):
    assert reached(compose.compose(["method=dilo", word]), word.partition("=")[0]) == value


def test_of_two_words_for_one_setting_the_last_holds():
    config = compose.compose(["method=simclr", "optim.lr=1", "method=moco", "optim.lr=2"])
    assert (config.method_name, config.optim.lr) == ("moco", 2.0)


# ------------------------------------------------------------------------- any setting, any value


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Strategy for values that an annotation allows."""
    if len(typed.union_members(kind)) > 1:
        return st.one_of(*map(values, typed.union_members(kind)))
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return numbers(of[0], of[1])
    if origin is Literal:
        return st.sampled_from(of)
    if origin is list or (origin is tuple and of[-1] is Ellipsis):
        return st.lists(values(of[0]), min_size=1, max_size=4).map(origin)
    if origin is tuple:
        return st.tuples(*map(values, of))
    return {bool: st.booleans(), types.NoneType: st.none(), str: TEXT}[kind]


def numbers(kind: type, span: typed.Bounds) -> st.SearchStrategy[Any]:
    low, high = max(span.least, span.above), min(span.most, 1e6)
    if kind is int:
        return st.integers(int(low), int(high))
    return st.floats(low, high, exclude_min=span.above == low)


# Not what stands for something else: an interpolation, an end of the name, none, true and false.
TEXT = st.text("abz059 =,.:;[]{}()'\"#+-_~&é", min_size=3, max_size=12)
CHECKED = {
    "method.views",
    "data.cache",
    "method.masked",
    "size",
    "evaluate.view",
    "data.root",
    "data.train",
    "optim.warmup",
}


def reached(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_setting_of_any_value_wins_and_comes_back_from_plain_data(data: st.DataObject):
    method = data.draw(st.sampled_from(sorted(METHODS)))
    scale = data.draw(st.sampled_from(list(overrides.choices("scale"))))
    known = overrides.keys(Config) | overrides.keys(METHODS[method].Settings, "method.")
    free = sorted(set(known) - CHECKED - {"method", "method_name", "scale", "optim.nesterov"})
    keys = data.draw(st.lists(st.sampled_from(free), unique=True, max_size=6))
    wanted = {key: data.draw(values(known[key]), label=key) for key in keys}
    wanted.setdefault("train.epochs", 100)
    wanted["optim.warmup"] = 1
    wanted.setdefault("optim.momentum", 0.5)
    if not wanted["optim.momentum"]:
        wanted["optim.nesterov"] = False
    arguments = [f"{key}={written(value)}" for key, value in wanted.items()]
    config = compose.compose([f"method={method}", f"scale={scale}", *arguments])
    for key, value in wanted.items():
        assert reached(config, key) == value, key
    assert compose.from_plain(compose.plain(config)) == config


def test_no_setting_is_left_without_a_comment_or_a_type():
    from patchmill.training.config import usage

    for cls in (Config, *(method.Settings for method in METHODS.values())):
        annotations = typed.field_annotations(cls).values()
        parts = [cls, *filter(dataclasses.is_dataclass, annotations)]
        for part in parts:
            assert all(
                about or dataclasses.is_dataclass(typed.field_annotations(part)[name])
                for name, about in usage.comments(part).items()
            ), part
