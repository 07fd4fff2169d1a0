"""The scaling benchmark: formulas against hand-computed cases, origins of inputs, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.benchmarks import scaling
from patchmill.benchmarks.lib.scaling import model
from patchmill.benchmarks.lib.scaling.model import COMPUTE, LIMITS, LOADER, NETWORK, STORE, Cluster
from patchmill.loaders.common.errors import MillError

# A step takes 2 seconds, of which 1 hides the exchange; every node trains on 4 x 10 images in it.
CLUSTER = Cluster(
    ranks=4, loader=1000, batch=10, step=2, overlap=0.5, gradient=100, inside=300, network=75,
    latency=0.125, store=100_000, link=10_000, image=10,
)  # fmt: skip


def test_the_exchange_by_hand():
    alone = replace(CLUSTER, ranks=1)
    assert model.exchange(alone, 1) == 0
    # Inside a node 3 of 4 parts go round twice: 150 bytes.
    assert model.exchange(CLUSTER, 1) == 150 / 300
    # Also between 4 nodes; and messages go up and down a tree of 2 levels.
    assert model.exchange(CLUSTER, 4) == 150 / 300 + 150 / 75 + 4 * 0.125


def test_a_prediction_by_hand():
    one, four = (model.predict(CLUSTER, nodes) for nodes in (1, 4))
    assert one.images_per_s == 20 and one.waiting == 0 and one.of_linear == 1
    # An exchange of 3 seconds, of which 1 is hidden: a step of 2 seconds, and as much waiting.
    assert four.images_per_s == 160 / 4 and four.waiting == 0.5 and four.of_linear == 0.5
    assert one.fed == 1000 / 4 and four.fed == 4000 / 16
    assert four.ceilings == {LOADER: 4000, STORE: 4000, COMPUTE: 80, NETWORK: 40}


@pytest.mark.parametrize(
    ("limit", "change", "images_per_s"),
    [
        (LOADER, {"loader": 2}, 8),
        (STORE, {"store": 300}, 30),
        (STORE, {"link": 50}, 20),
        (NETWORK, {}, 40),
        (NETWORK, {"network": 75e6, "latency": 8}, 160 / (2 + 32.5 - 1)),
        (COMPUTE, {"network": 75e6, "latency": 0}, 80),
    ],
)
def test_the_scarce_resource_is_the_limit(limit, change, images_per_s):
    prediction = model.predict(replace(CLUSTER, **change), 4)
    assert prediction.limit == limit
    assert prediction.images_per_s == pytest.approx(images_per_s, rel=1e-4)


def test_the_limit_changes_with_the_nodes():
    """Every node computes 20 images per second, until the store delivers fewer."""
    cluster = replace(CLUSTER, network=75e6, latency=0, store=2000)
    predicted = [model.predict(cluster, nodes) for nodes in (1, 2, 4, 8, 16, 32)]
    changes = model.limit_changes(predicted)
    assert [(it.nodes, it.limit) for it in changes] == [(1, COMPUTE), (16, STORE)]
    assert [it.images_per_s for it in predicted] == pytest.approx([20, 40, 80, 160, 200, 200])


positive = st.floats(0.01, 100)
clusters = st.builds(
    Cluster, ranks=st.integers(1, 16), batch=st.integers(1, 512), overlap=st.floats(0, 1),
    **dict.fromkeys(
        ("loader", "step", "gradient", "inside", "network", "store", "link", "image"), positive
    ),
    latency=st.floats(0, 0.01),
)  # fmt: skip


@given(clusters, st.integers(2, 1000), st.integers(1, 100))
def test_more_nodes_are_not_slower(cluster, nodes, more):
    """From two nodes on, and while a step takes longer than a message."""
    rate = model.rate(cluster, nodes)
    assert model.rate(cluster, nodes + more) >= rate * (1 - 1e-9)


@given(clusters, st.integers(1, 1000))
def test_doubling_the_limit_helps_most(cluster, nodes):
    prediction = model.predict(cluster, nodes)
    assert prediction.images_per_s == min(prediction.ceilings.values())
    gains = {it: model.rate(model._doubled(cluster, it), nodes) for it in LIMITS}
    assert min(gains.values()) >= prediction.images_per_s * (1 - 1e-9)
    assert gains[prediction.limit] == max(gains.values())
    assert max(gains.values()) <= 2 * prediction.images_per_s * (1 + 1e-9)


# -------------------------------------------------------------------------------------- the command


RATES = {"loading": [100.0, 90.0, 110.0], "computing": [110.0], "training": [90.0]}
MEASURED = {
    "processes": 1, "batch": 16, "workers": 2, "wait": 0.0, "exchange": None, "latency": None,
    "rates": RATES, "gradient": 4_000_000, "image": 5000.0, "device": "cpu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def default_cluster_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps({"measured": [MEASURED]}))
    return str(path)


def error_of(*argv: str) -> str:
    with pytest.raises(MillError) as caught:
        scaling.main(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_input_has_an_origin(earlier, tmp_path, capsys):
    loads, trains = tmp_path / "loads.json", tmp_path / "trains.json"
    rows = [{"name": "loader", "images_per_s": 60.0, "workers": 3}]
    loads.write_text(json.dumps({"rows": rows, "device": "cpu", "images": {"kilobytes": 110.5}}))
    row = {"name": "cached batches", "images_per_s": 32.0}
    trains.write_text(json.dumps({"rows": [row], "batch_size": 64}))
    out = tmp_path / "out.json"
    argv = ["--measured", earlier, "--json", str(out), "--nodes", "1,8"]
    scaling.main(argv)
    inputs = json.loads(out.read_text())["inputs"]
    assert inputs["loader-rate"]["value"] == 400  # 8 cores of the profile, of which 2 gave 100
    assert inputs["loader-rate"]["origin"] == "measured on a CPU, by 2 of 8 cores"
    assert inputs["gradient"]["value"] == 4 and inputs["image"]["value"] == 5
    assert inputs["network"]["origin"] == "assumed"
    more = ["--throughput", str(loads), "--training", str(trains), "--cores", "5", "--network", "3"]
    scaling.main([*argv, *more])
    content = json.loads(out.read_text())
    pairs = {name: (it["value"], it["origin"]) for name, it in content["inputs"].items()}
    assert pairs["loader-rate"] == (100, "loads.json") and pairs["image"] == (110.5, "loads.json")
    assert pairs["step-rate"] == (32, "trains.json") and pairs["batch"] == (64, "trains.json")
    assert pairs["network"] == (3, "--network")
    one, eight = content["predicted"]
    assert one["most"][COMPUTE] == 8 * 32 and eight["most"][LOADER] == 8 * 8 * 100
    printed = capsys.readouterr().out
    assert "25 GB/s between a node and the others, each way (assumed)" in printed
    assert "from 1 node on, the limit is " in printed


def test_the_chart_is_drawn(earlier, tmp_path):
    pytest.importorskip("matplotlib")
    scaling.main(["--measured", earlier, "--plot", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_options_are_one_sentence(earlier, tmp_path):
    assert "--processes must begin with 1" in error_of("--processes", "2,4")
    assert "cannot read --nodes '1,x'" in error_of("--nodes", "1,x")
    assert "--network must be above 0, not -1" in error_of("--network", "-1")
    assert "--overlap is a share" in error_of("--overlap", "2")
    assert "cannot read" in error_of("--measured", str(tmp_path / "nowhere.json"))
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    assert "holds no measurements" in error_of("--measured", str(empty))
    argv = ["--measured", earlier]
    assert "is not a result of benchmarks/training.py" in error_of(*argv, "--training", str(empty))
    assert "no throughput" in error_of(*argv, "--throughput", str(empty))


def test_processes_are_measured_at_once(tmp_path):
    small = [
        "method=moco", "scale=demo", "size=32", "data.train=scenes(count=16, size=32)",
        "method.queue=16", "method.split_bn=0", "train.device=cpu",
    ]  # fmt: skip
    counts = ["--processes", "1,2", "--batch", "4", "--steps", "1", "--rounds", "1"]
    out = tmp_path / "out.json"
    scaling.main([*small, *counts, "--seconds", "0.1", "--json", str(out)])
    content = json.loads(out.read_text())
    one, two = content["measured"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["exchange"] is None and two["exchange"] > 0 < two["latency"]
    assert all(rate > 0 for it in (one, two) for rates in it["rates"].values() for rate in rates)
    assert one["gradient"] == two["gradient"] and one["image"] == two["image"]
    alone, both = content["rows"]
    assert (alone["name"], both["name"]) == ("1", "2") and alone["times_training"] == 1
    ratio = two["rates"]["training"][0] / one["rates"]["training"][0]
    assert both["times_training"] == pytest.approx(ratio, rel=0.01)
