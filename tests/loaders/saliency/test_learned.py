"""Networks of all file types as estimators; the small U2-Net learns, and goes on where it was."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_saliency import plain, separation
from safetensors.torch import load_file, save_file
from torch import nn

from patchmill.loaders import saliency
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.saliency import train
from patchmill.loaders.saliency.learned.u2net import U2Net

SIZE = 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: on so little work, synchronisation costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Redness(nn.Module):
    """Logits, as a list of maps that begins with the best."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        best = 8 * (x[:, :1] - x[:, 1:2])
        return [best, best * 0]


def by(path: Path, **more: object) -> str:
    settings = ", ".join(f"{k}={v!r}" for k, v in {"size": SIZE, **more}.items())
    return f"learned(weights={str(path)!r}, {settings})"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("kind", [".ts", ".onnx"])
def test_any_program_is_an_estimator(kind: str, tmp_path: Path) -> None:
    path, seen = tmp_path / f"net{kind}", torch.zeros(1, 3, SIZE, SIZE)
    if kind == ".ts":
        torch.jit.script(Redness()).save(path)
    else:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        torch.onnx.export(Redness().eval(), (seen,), path)
    image, mask = plain(100, 140)
    found = saliency.estimate(image, by(path))
    assert found.plane.shape == (100, 140)
    assert separation(found.plane, mask) > 0.8 and not found.degenerate
    assert saliency.estimate(image, by(path), longest=20).plane.shape == (14, 20)


def test_the_small_u2net_has_the_size_of_the_authors() -> None:
    network = U2Net()
    assert sum(p.numel() for p in network.parameters()) == 1_131_181
    assert {"stage1.rebnconv6d.conv_s1.weight", "stage6.rebnconv4.bn_s1.running_var"} <= set(
        network.state_dict()
    )
    maps = network.eval()(torch.zeros(1, 3, 41, 56))
    assert [tuple(m.shape) for m in maps] == [(1, 1, 41, 56)] * 7


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_weights_of_either_kind_are_the_same_estimator(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = U2Net().state_dict()
    path = tmp_path / f"w{kind}"
    save_file(state, path) if kind == ".safetensors" else torch.save(state, path)
    image, _ = plain(64, 64)
    first = saliency.estimate(image, by(path))
    network = U2Net().eval()
    network.load_state_dict(state)
    from patchmill.loaders.saliency.learned.network import MEAN, STD
    from patchmill.loaders.saliency.resample import resize
    from patchmill.loaders.saliency.thresholds import minmax_normalise

    pixels = (resize(image, SIZE, SIZE) / np.float32(255) - MEAN) / STD
    with torch.inference_mode():
        best = network(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0]
    wanted = np.rint(minmax_normalise(torch.sigmoid(best)[0, 0].numpy()) * 255).astype(np.uint8)
    wanted = resize(wanted[..., None], 64, 64)[..., 0]
    assert abs(first.plane.astype(int) - wanted).max() <= 1


def test_equal_weights_have_equal_fingerprints_wherever_they_lie(tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    state = U2Net().state_dict()
    save_file(state, paths[0])
    save_file(state, paths[1])
    save_file(U2Net().state_dict(), paths[2])
    a, b, c = (saliency.estimator(by(path)).fingerprint for path in paths)
    assert a == b != c


class Pickled:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_files_that_are_no_network_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    evil = tmp_path / "evil.pth"
    torch.save(Pickled(), evil)
    junk = [tmp_path / f"junk{kind}" for kind in (".ts", ".safetensors", ".pth")]
    for path in junk:
        path.write_bytes(b"no network")
    told = {
        other: "something other than the small U2-Net",
        evil: "cannot open",
        tmp_path / "none.ts": "cannot read weights",
        tmp_path / "net.pt2": "cannot recognise the format",
        **dict.fromkeys(junk, "cannot open"),
    }
    for path, words in told.items():
        with pytest.raises(MillError, match=words):
            saliency.estimator(by(path))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_more_than_one_map_is_one_sentence(tmp_path: Path) -> None:
    class Colours(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = tmp_path / "net.ts"
    torch.jit.script(Colours()).save(path)
    with pytest.raises(MillError, match="not one map"):
        saliency.estimate(plain()[0], by(path))


# ---------------------------------------------------------------------------------------- training


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


def settings(steps: int) -> train.Settings:
    return train.Settings("scenes(count=6, size=48)", steps, batch=4, size=SIZE, seed=3)


def test_training_learns_and_its_weights_can_be_used(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    losses = train.train(settings(10), out, "cpu")
    assert np.mean(losses[-3:]) < 0.85 * losses[0]
    assert saliency.estimate(plain()[0], by(out)).plane.shape == (200, 260)
    assert [p.name for p in tmp_path.glob("w.*")] == ["w.safetensors"]


def test_an_interrupted_training_ends_where_the_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    all_losses = train.train(settings(6), whole, "cpu")
    monkeypatch.setattr(train, "_SAVE_EVERY", 2)
    loss, seen = train.deep_supervision_loss, []

    def interrupted(*inputs: object) -> object:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return loss(*inputs)

    monkeypatch.setattr(train, "deep_supervision_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(settings(6), parts, "cpu")
    monkeypatch.setattr(train, "deep_supervision_loss", loss)
    rest = train.train(settings(6), parts, "cpu")
    np.testing.assert_allclose(rest, all_losses[2:], rtol=1e-4)
    a, b = load_file(whole), load_file(parts)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_a_checkpoint_of_other_arguments_is_not_continued(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    network = U2Net()
    adam = torch.optim.Adam(network.parameters())
    checkpoint = tmp_path / "w.safetensors.checkpoint"
    train.save_checkpoint(checkpoint, settings(5), network, adam, 2)
    other = train.Settings("scenes(count=6, size=48)", 5, batch=2, size=SIZE, seed=3)
    with pytest.raises(MillError, match="other arguments"):
        train.train(other, out, "cpu")
    checkpoint.write_bytes(b"x")
    with pytest.raises(MillError, match="not a checkpoint"):
        train.train(other, out, "cpu")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["scenes:4", "--out", "w.pt"], "safetensors"),
        (["scenes:4", "--out", "w.safetensors", "--steps", "0"], "--steps"),
        (["scenes:4", "--out", "w.safetensors", "--size", "8"], "--size"),
        (["folder", "--out", "w.safetensors"], "masks"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "folder" / "a.png")
    with pytest.raises(MillError, match=told):
        train.main(arguments)
