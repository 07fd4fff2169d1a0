"""Every method on every data set at every scale gives a complete, checked configuration."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training.config import compose, overrides
from patchmill.training.config.recipes import evaluation_recipe, training_recipe
from patchmill.training.methods import METHODS

METHOD_CHOICES = list(overrides.choices("method"))
SCALES = list(overrides.choices("scale"))
DATA = list(overrides.choices("data"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for part in ("train", "val", "test", "unlabeled"):
        (folder / part).mkdir()
    return folder


def words_for(data: str, root: Path) -> list[str]:
    if "scenes" in data:
        return [f"data={data}"]
    where = f"data.train={root / 'train'}" if data == "shards" else f"data.root={root}"
    return [f"data={data}", where]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data", DATA)
def test_methods_data_and_scales_in_pairs(data: str, every: int, root: Path):
    """Composing takes a tenth of a second: a third of all triples holds every pair.

    A third of those has every method and every data set at every scale.
    """
    place = DATA.index(data)
    for i, method in enumerate(METHOD_CHOICES):
        if (i + place) % every:
            continue
        scale = SCALES[(i // every + place // every) % 3]
        config = compose.compose([f"method={method}", f"scale={scale}", *words_for(data, root)])
        assert config.scale == scale
        assert config.name == f"{method}-{root.name if data == 'folder' else data}-{scale}"
        assert isinstance(config.method, METHODS[config.method_name].Settings)
        assert compose.from_plain(compose.plain(config)) == config


def test_every_method_can_be_chosen():
    assert {compose.compose([f"method={m}"]).method_name for m in METHOD_CHOICES} == set(METHODS)


def test_dilo_is_moco_with_other_views_and_nothing_else():
    for scale in SCALES:
        arguments = [f"scale={scale}", "name=x"]
        moco = compose.plain(compose.compose(["method=moco", *arguments]))
        dilo = compose.plain(compose.compose(["method=dilo", *arguments]))
        views, pasted = moco["method"].pop("views"), dilo["method"].pop("views")
        assert (moco.pop("method_name"), dilo.pop("method_name")) == ("moco", "dilo")
        assert moco == dilo
        (plain,), (group,) = load_recipe(views).views, load_recipe(pasted).views
        assert group.paste and replace(group, paste=None) == plain


@pytest.mark.parametrize(
    ("data", "scale", "size"), [("scenes", "demo", 32), ("cifar10", "cifar", 32),
     ("cifar100", "cifar", 32), ("stl10", "cifar", 96), ("imagenette", "cifar", 128),
     ("imagenet", "paper", 224), ("folder", "paper", 224)]
)  # fmt: skip
def test_data_brings_a_scale_and_a_size_of_its_own(data: str, scale: str, size: int, root: Path):
    config = compose.compose(["method=moco", *words_for(data, root)])
    assert (config.scale, config.size) == (scale, size)
    assert training_recipe(config).views[0].size == size
    assert evaluation_recipe(config).views[0].size == size


def test_a_scale_that_is_asked_for_wins_over_that_of_the_data():
    config = compose.compose(["method=moco", "data=scenes", "scale=paper"])
    assert (config.scale, config.model.name, config.train.epochs) == ("paper", "resnet50", 200)
    assert "size=224" in config.data.train


def test_size_reaches_all_that_name_it():
    config = compose.compose(["method=dilo", "size=48"])
    assert config.method.views == "dilo_v1(size=48, scale=(0.4, 1.0))"
    assert config.data.train == "scenes(count=4000, size=64)"
    assert config.evaluate.view == "eval(size=48, short_side=48)"
    paper = compose.compose(["method=dilo", "scale=paper", "size=160"])
    assert paper.evaluate.view == "eval(size=160, short_side=183)"


def test_groups_win_over_recipes_and_settings_over_groups():
    config = compose.compose(["optim.lr=7e-3", "method=moco", "optim=adamw", "model=vit_small"])
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adamw", 7e-3, 0.04)
    assert config.model.name == "vit_small_patch16_224"
    assert compose.compose(["method=moco", "evaluate=never"]).evaluate.knn_every == 0


def test_published_recipes():
    """Recipes of the papers' authors; the YAML gives the source."""
    moco = compose.compose(["method=moco", "scale=paper"])
    assert (moco.optim.lr, moco.optim.weight_decay, moco.optim.exclude) == (0.03, 1e-4, False)
    assert (moco.train.batch_size, moco.train.epochs, moco.method.queue) == (256, 200, 65536)
    v1 = compose.compose(["method=moco_v1", "scale=paper"])
    assert (v1.method.hidden, v1.method.temperature, v1.optim.schedule) == (0, 0.07, "steps")
    assert v1.optim.milestones == (120.0, 160.0)
    emp = compose.compose(["method=emp_ssl", "scale=cifar", "size=32"])
    assert (emp.optim.lr, emp.optim.eta, emp.optim.nesterov) == (0.3, 0.005, True)
    assert (emp.train.batch_size, emp.method.weight, emp.method.dim) == (100, 200.0, 1024)
    vicreg = compose.compose(["method=vicreg", "scale=paper"])
    assert (vicreg.method.expander, vicreg.optim.lars) == ([8192, 8192, 8192], "vicreg")
    assert (vicreg.optim.lr, vicreg.optim.scaled, vicreg.optim.final) == (0.2, True, 0.001)


def test_queues_are_whole_numbers_of_batches():
    for method in ("moco", "moco_v1", "dilo"):
        for scale in SCALES:
            config = compose.compose([f"method={method}", f"scale={scale}"])
            assert config.method.queue % config.train.batch_size == 0


# ---------------------------------------------------------------------------------------- on disk


def test_a_configuration_survives_saving_and_loading(tmp_path: Path):
    config = compose.compose(
        ["method=vicreg", "optim.betas=[0.8,0.99]", "train.channels_last=true"]
    )
    compose.save(config, tmp_path)
    assert compose.load(tmp_path) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == compose.plain(config)
    assert "${" not in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is .* the folder of a run"),
        ("a: [", "is not valid YAML"),
        ("- 1", "not the configuration of a run"),
        ("method_name: mocco\nmethod: {}", "no method 'mocco'; did you mean 'moco'"),
        ("method_name: moco\nmethod: {dims: 3}", "no setting method.dims; did you mean 'dim'"),
        ("method_name: moco\nmethod: {}\noptim: {lr: fast}", "optim.lr must be a number above 0"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(MillError, match=message):
        compose.load(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    with pytest.raises(MillError, match="cannot write"):
        compose.save(compose.compose(["method=moco"]), tmp_path / "nowhere")


def test_composing_a_run_loads_no_networks():
    """--show, --help and submit.py start without the seconds that timm and torchvision take."""
    program = (
        "import sys; from patchmill.training.config import compose; "
        "from patchmill.training.evaluation import registry; "
        "compose.compose(['method=gtsa', 'data=scenes']); "
        "print([name for name in ('timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
