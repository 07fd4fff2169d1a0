"""Shards read by webdataset, DALI and Python's tarfile."""

import io
import json
import tarfile
from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.prepare import write_shards
from patchmill.loaders.prepare.images import Image as Prepared
from patchmill.loaders.prepare.journal import PreparedSample
from patchmill.loaders.sources.folder import Folder

ENDINGS = ("jpg", "png", "webp", "tif")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Folder, list[Path]]:
    """Thirty photos of three classes in several shards, in the source's order."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    files = {f"c{i % 3}/{i}.jpg": making.jpeg(i, 300, 500) for i in range(60)}
    source = Folder(making.write_folder(tmp_path / "src", files))
    making.prepare(source, tmp_path / "out", seed=None, shard_size=1_000_000)
    found = sorted((tmp_path / "out").glob("*.tar"))
    assert len(found) > 1
    return source, found


def test_webdataset_reads_them(prepared: tuple[Folder, list[Path]]):
    import webdataset

    source, paths = prepared
    urls = [f"file:{path}" for path in paths]
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["jpg"] for sample in found] == [source.read(i) for i in range(60)]
    assert source.labels is not None
    assert [int(sample["cls"]) for sample in found] == source.labels.tolist()
    assert [sample["__key__"] for sample in found] == [f"{i:09d}" for i in range(60)]
    first = json.loads(found[0]["json"])
    assert first == {"path": "c0/0.jpg"}


def test_dali_reads_them(prepared: tuple[Folder, list[Path]]):
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    source, paths = prepared

    @dali.pipeline_def(batch_size=60, num_threads=1, device_id=None)
    def pipeline():
        images, labels = dali.fn.readers.webdataset(
            paths=[str(path) for path in paths],
            ext=["jpg", "cls"],
            missing_component_behavior="error",
        )
        return images, labels

    built = pipeline()
    built.build()
    images, labels = built.run()
    assert [bytes(np.asarray(image)) for image in images] == [source.read(i) for i in range(60)]
    assert source.labels is not None
    assert [int(bytes(np.asarray(label))) for label in labels] == source.labels.tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**12),
            st.integers(0, 3000),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.text(max_size=700),
            st.sampled_from(ENDINGS),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda sample: sample[0],
    )
)
def test_pythons_tarfile_reads_them(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, int | None, str, str]]
):
    """And the writer's size of a sample is exact."""
    folder = tmp_path_factory.mktemp("tar")
    expected: dict[str, bytes] = {}
    output, room = write_shards.ShardOutput(folder, "data", 10**9, ()), 0
    labelled = all(label is not None for _, _, label, _, _ in drawn)
    for id, size, label, path, ending in drawn:
        data = making.bulky(id % 2**32, size + 30)
        sample = PreparedSample(
            id, label if labelled else None, Prepared(data, ending, ()), 0, 0, path
        )
        output.add(sample)
        room += write_shards._tar_bytes(sample) - 1024
        expected[f"{id:09d}.{ending}"] = data
        expected[f"{id:09d}.json"] = json.dumps({"path": path}).encode()
        if labelled:
            expected[f"{id:09d}.cls"] = str(label).encode()
    about = output.commit()
    made = folder / about["name"]
    with tarfile.open(made) as tar:
        members = tar.getmembers()
        assert {m.name: tar.extractfile(m).read() for m in members} == expected  # type: ignore[union-attr]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.type) for m in members} == {
            (0, 0, 0, 0o644, tarfile.REGTYPE)
        }
    assert abs(room + 1024 - made.stat().st_size) <= 512 * len(drawn)
    assert about["bytes"] == made.stat().st_size


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_members_are_named_by_the_type_of_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    data = making.by_pil(Image.fromarray(making.pixels(1)), format)
    making.write_folder(tmp_path / "src", {"wrong.jpg": data})
    making.prepare(tmp_path / "src", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data-000000.tar") as tar:
        (name, _) = tar.getnames()
        ending = {"JPEG": "jpg", "TIFF": "tif"}.get(format, format.lower())
        assert name == f"000000000.{ending}"
        member = tar.extractfile(name)
        assert member is not None
        assert Image.open(io.BytesIO(member.read())).format == format
