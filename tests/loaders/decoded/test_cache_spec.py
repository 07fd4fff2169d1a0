"""Each `cache=` that cannot be used is refused in one sentence, before an image is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers_decoded import Noise

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import places, spec
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.files import host


@pytest.mark.parametrize(
    ("text", "kind", "folder", "capacity"),
    [
        ("ram:32GB", "ram", None, 32 * 10**9),
        (" ram: 1.5 gib ", "ram", None, 3 << 29),
        ("disk:/scratch/me:200GB", "disk", "/scratch/me", 200 * 10**9),
        ("disk:C:/scratch: 2TiB", "disk", "C:/scratch", 2 << 40),
        ("disk:here:500MB", "disk", "here", 500 * 10**6),
        ("ram:7B", "ram", None, 7),
    ],
)
def test_places_and_sizes(text: str, kind: str, folder: str | None, capacity: int) -> None:
    parsed = spec.parse(text)
    assert (parsed.kind, parsed.capacity) == (kind, capacity)
    assert parsed.folder == (None if folder is None else Path(folder))
    assert spec.parse(str(parsed)).folder == parsed.folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (7, "cache must be text such as"),
        ("", "cache must be"),
        ("ram", "cache must be"),
        ("32GB", "cache must be"),
        ("ram:/folder:32GB", "cache must be"),
        ("disk:32GB", "cache must be"),
        ("disk::32GB", "names no folder"),
        ("ram:32", "'32' is not a size: write a number and a unit"),
        ("ram:-1GB", "'-1GB' is not a size"),
        ("ram:0GB", "not a possible size of images"),
        ("ram:9999999999TB", "not a possible size of images"),
        ("disk:/a:lots", "'lots' is not a size"),
        ("tape:9GB", "cache must be"),
    ],
)
def test_invalid_caches(text: Any, message: str) -> None:
    with pytest.raises(MillError, match=message):
        spec.parse(text)


@pytest.mark.parametrize("size", [1, 999, 1000, 113_400_000, 52 * 10**9, 1_500_000_000_000])
def test_formatted_sizes_can_be_parsed(size: int) -> None:
    assert spec.parse_size(spec.size_text(size), "size") == pytest.approx(size, rel=0.01)


def test_more_than_the_disk_has(tmp_path: Path) -> None:
    with pytest.raises(MillError, match=r"is larger than the free space: /.* has .* free; use"):
        open_store(f"disk:{tmp_path}:100000TB", Noise(3))


def test_more_than_the_memory_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(host, "free_memory", lambda: 10**6)
    with pytest.raises(MillError, match="this machine, or its container, has 1MB free; use cache"):
        open_store("ram:2MB", Noise(3))
    assert list(places.ram_folder().iterdir()) == []
    assert open_store("ram:500KB", Noise(3)) is not None


def test_existing_bytes_of_a_store_count_as_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "free_memory", lambda: 500_000)
    (tmp_path / "store").write_bytes(bytes(600_000))
    wanted = spec.parse("ram:900KB")
    places.check_free_space(wanted, tmp_path / "store")
    with pytest.raises(MillError, match="is larger than the free space"):
        places.check_free_space(wanted, tmp_path / "none")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MillError, match=r"cannot keep decoded images in .*: Permission denied"):
        open_store(f"disk:{tmp_path}:1MB", Noise(3))


def test_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *more: Any) -> int:
        if str(path).startswith(str(tmp_path)) and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(MillError, match=r"cannot keep decoded images in .*: Read-only file system"):
        open_store(f"disk:{tmp_path}:1MB", Noise(3))


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MillError, match=r"cannot keep decoded images in .*file: "):
        open_store(f"disk:{tmp_path / 'file'}:1MB", Noise(3))


def test_someone_elses_folder_in_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)
    places.ram_folder().mkdir(mode=0o755)
    with pytest.raises(MillError, match="is not private to you"):
        open_store("ram:1MB", Noise(3))
    places.ram_folder().rmdir()
    (tmp_path / "elsewhere").mkdir()
    places.ram_folder().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MillError, match="is not private to you"):
        open_store("ram:1MB", Noise(3))


def test_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path / "none")
    with pytest.raises(MillError, match="which does not exist: use cache='disk:FOLDER:1MB'"):
        open_store("ram:1MB", Noise(3))


def test_machines_that_share_a_disk_have_separate_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.host_part(tmp_path) == ""
    monkeypatch.setattr(host, "file_system", lambda path: "nfs4")
    monkeypatch.setattr("socket.gethostname", lambda: "node 7")
    assert places.host_part(tmp_path) == "-node_7"


def test_streams_have_no_numbers_to_keep_images_under(tmp_path: Path) -> None:
    class Streamed:
        name, sample_count = "http://host/a.tar", None

    with pytest.raises(MillError, match=r"keeps numbered images, but .* is streamed"):
        open_store(f"disk:{tmp_path}:1MB", Streamed())  # type: ignore[arg-type]
