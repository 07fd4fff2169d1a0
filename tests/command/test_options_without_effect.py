"""Every command refuses options without effect, in one sentence."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from PIL import Image

from patchmill.loaders.common.errors import MillError

REFUSED = [
    ("loaders.prepare", "photos out --quality 80", "--quality is for images that --max-side"),
    ("loaders.prepare", "photos out --quality=80 --keep", "--quality is for images that"),
    ("loaders.prepare", "photos x.beton --shard-size 9MB", "--shard-size is for shards"),
    ("loaders.prepare", "photos out --size 9GB", "--size is for --format decoded"),
    ("loaders.prepare", "photos out --format decoded --quality 90", "--quality is not for --form"),
    ("loaders.prepare", "photos out --format decoded --no-shuffle", "--no-shuffle is not for"),
    ("loaders.preview", "photos --masks --recipe dino", "--recipe is for views"),
    ("loaders.preview", "photos --method rbd --backgrounds photos", "--backgrounds is for views"),
    ("loaders.preview", "photos --ids 0 --count 3", "--count shows the first samples"),
    ("training.watch", ". --seed 3", "--seed is for the views that --recipe shows"),
    ("cluster.status", ". --follow", "--follow is for a log: add --tail RUN"),
    ("cluster.status", "--tail . --json", "--json does not go with --tail"),
    ("cluster.status", "--cancel . --best knn", "--best is for the table of runs"),
    (
        "cluster.submit",
        "--local --partition a method=moco",
        "--partition is for SLURM, and --local",
    ),
    ("cluster.submit", "--local --probe method=moco", "--probe is for SLURM"),
    ("cluster.submit", "--dry-run --follow method=moco", "--follow has no logs to print"),
    ("cluster.submit", "prepare photos out --local --mem 9G", "--mem is for SLURM"),
]


@pytest.mark.parametrize(("command", "argv", "sentence"), REFUSED)
def test_an_option_without_effect_is_refused(
    command: str, argv: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.new("RGB", (8, 8)).save("photos/0.png")
    names = {
        "loaders.prepare": ".command",
        "loaders.preview": ".command",
        "training.watch": ".command",
    }
    module = importlib.import_module(f"patchmill.{command}{names.get(command, '')}")
    with pytest.raises(MillError) as raised:
        module.main(argv.split())
    assert str(raised.value).startswith(sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("ids", ["9" * 5000, "²", "1,x", ""])
def test_numbers_of_samples_are_numbers(ids: str):
    from patchmill.loaders.preview import command

    with pytest.raises(MillError, match=r"cannot read --ids .* write sample numbers with commas"):
        command.main(["scenes:4", "--ids", ids])
    from patchmill.loaders.sources import open_data

    with pytest.raises(MillError, match="write scenes:10000 for ten thousand"):
        open_data(f"scenes:{ids}")
