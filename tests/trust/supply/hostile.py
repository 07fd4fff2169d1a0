"""Hostile supply-chain inputs: each is rejected or harmless, and leaves no trace outside."""

from __future__ import annotations

import io
import logging
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from patchmill.kernels.common import jit
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from patchmill.loaders.files import cache
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_data
from trust.check import Check, Outcome, Task

Attack = Callable[[Path, Path], None]  # takes a working folder and a file that must not appear


class Evil:
    """Create a file when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return Path.touch, (self.trace,)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    return file.getvalue()


def names(trace: Path) -> Iterator[str]:
    """Names of members that would escape a folder, or control a terminal."""
    yield str(trace)
    yield from ("../trace", "a/../../trace", "./../trace", "\x1b]0;x\x07.png", "a\nb.png", "-rf")
    yield from ("con\udce9.png", "x" * 3000, "\u202egnp.png", "$(touch trace).png", "a;touch trace")


def tar(folder: Path, trace: Path) -> None:
    """Members that would escape the folder, links, devices and pipes."""
    path = folder / "evil.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as file:
        for name in names(trace):
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(picture())
            file.addfile(member, io.BytesIO(picture()))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"special{kind.decode()}.png")
            member.type, member.linkname = kind, str(trace)
            file.addfile(member)
    read_all(path)


def zipped(folder: Path, trace: Path) -> None:
    path = folder / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names(trace):
            file.writestr(f"{name.encode('utf-8', 'replace').decode()}.png", picture())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, str(trace))
    read_all(path)


def listed(folder: Path, trace: Path) -> None:
    """A list that names commands, formulas and devices as images."""
    path = folder / "evil.csv"
    rows = ("=cmd|'/c x'!A1", f"pipe:touch {trace}", "/dev/zero", "/proc/self/mem", "a\x1b[2J.png")
    path.write_text("path,label\n" + "".join(f'"{row}",1\n' for row in rows))
    read_all(path)


def read_all(data: Path) -> None:
    source = open_data(data)
    for index in range(len(source)):
        try:
            source.read(index)
        except OSError:
            pass
        assert printable(source.where(index)).isprintable()


def yaml(folder: Path, trace: Path) -> None:
    """Tags that would call functions."""
    path = folder / "evil.yaml"
    for tag in ("python/object/apply:os.system", "python/object/new:os.system", "python/name:os"):
        path.write_text(f"views: !!{tag} ['touch {trace}']\n")
        try:
            load_recipe(path)
        except MillError:
            continue
        raise AssertionError(f"{tag} was loaded")


def words(folder: Path, trace: Path) -> None:
    """Nested calls in recipes."""
    for text in (
        f"dino(local_crops=__import__('os').system('touch {trace}'))",
        f"eval(open({str(trace)!r}, 'w'))",
        f"open({str(trace)!r}, 'w')",
    ):
        try:
            load_recipe(text)
        except MillError:
            continue
        raise AssertionError(f"{text} was evaluated")


def pickles(folder: Path, trace: Path) -> None:
    """Pickles as images, weights, checkpoints, labels and compiled code."""
    import torch

    from patchmill.training.runtime import checkpoint

    evil = pickle.dumps(Evil(trace))
    for name in ("evil.png", "evil.beton", "evil.zip", "evil.tar", "evil.csv", "evil.yaml"):
        (folder / name).write_bytes(evil)
        try:
            load_recipe(folder / name) if name.endswith("yaml") else open_data(folder / name)
        except (MillError, OSError):
            pass
    torch.save({"method": Evil(trace)}, folder / "step-00000001.pt")
    try:
        checkpoint.load(folder / "step-00000001.pt")
    except MillError:
        pass
    files = jit._VariantFiles(folder, "kernel", "0" * 16, beside_source=False)
    files._path("key").write_bytes(evil)
    files._path("key").chmod(0o666)
    assert files.load("key") is None


def links(folder: Path, trace: Path) -> None:
    """Links where locks, temporary files and compiled code would be."""
    precious = folder / "precious"
    precious.write_text("precious")
    for name in ("cache.lock", ".new.part"):
        (folder / name).symlink_to(precious)
    try:
        with cache.lock(folder / "cache.lock"):
            raise AssertionError("a lock followed a link")
    except MillError:
        pass
    from patchmill.loaders.files.writing import write_atomic

    write_atomic(folder / "new", "new")
    images = folder / "images"
    images.mkdir()
    (images / "0.png").write_bytes(picture())
    os.mkfifo(images / "1.png")
    (images / "2.png").symlink_to(images)
    (images / "3.png").symlink_to("/dev/zero")
    (images / "4.png").symlink_to(folder / "nowhere")
    loader = build(images, "eval(size=16, short_side=16)", 1, ledger=folder / "bad.jsonl")
    for _ in loader:
        pass
    loader.close()
    assert precious.read_text() == "precious", "a link's target was written to"


ATTACKS: tuple[Attack, ...] = (tar, zipped, listed, yaml, words, pickles, links)


def hostile(task: Task) -> Outcome:
    logging.getLogger("patchmill").setLevel(logging.ERROR)
    outcome = Outcome()
    for index in range(task.tries):
        attack = ATTACKS[index % len(ATTACKS)]
        folder, trace = task.folder / str(index), task.folder / "trace"
        folder.mkdir()
        outcome.tried(attack.__name__)
        try:
            attack(folder, trace)
        except MillError as error:
            if not printable(str(error), lines=True):
                outcome.failed(f"{attack.__name__}: no one-sentence error")
        except Exception as error:
            outcome.failed(f"{attack.__name__}: {type(error).__name__} ({str(error)[:200]})")
        places = (trace, Path("trace"), task.folder.parent / "trace")
        left = [path for path in places if path.exists()]
        if left:
            outcome.failed(f"{attack.__name__} left {left[0]}")
    return outcome


CHECKS = (
    Check(
        "supply-hostile",
        "hostile tars, zips, lists, YAML, words, pickles and links",
        hostile,
        len(ATTACKS),
        10 * len(ATTACKS),
        10 * len(ATTACKS),
        30,
    ),
)
