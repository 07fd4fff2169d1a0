"""On-disk cache of compiled functions: valid exactly while all sources are unchanged."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from numba.core import event as compiling_event

import patchmill
from patchmill.kernels import compiled_code
from patchmill.kernels.common import compiling, jit
from patchmill.kernels.views.cpu import render
from patchmill.loaders.plan import draw

ROOT = Path(__file__).parents[3]

PROGRAM = "from patchmill.kernels.top import run; print(run(3), sum(run.stats.cache_hits.values()))"
MODULES = {
    "top": """
        from patchmill.kernels.common.jit import jit
        from patchmill.kernels.helper import scaled
        from patchmill.kernels.words import Word, shout

        @jit
        def run(x):
            return scaled(x) + 1
        """,
    "helper": """
        from patchmill.kernels import limits
        from patchmill.kernels.common.jit import jit
        from patchmill.kernels.numbers import (
            FACTOR,
            half as _half,
        )

        @jit
        def scaled(x):
            return min(x * FACTOR, limits.most)
        """,
    "numbers": "FACTOR = 10\nhalf = FACTOR / 2\n",
    "limits": "most = 1000\n",
    "words": "class Word: ...\ndef shout(): ...\n",
    "unrelated": "NUMBER = 1\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with this project's `jit` and import name."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "patchmill", root / "patchmill")
    (root / "setup.cfg").touch()
    (root / "kernels").mkdir()
    (root / "kernels" / "__init__.py").touch()
    (root / "kernels" / "common").mkdir()
    (root / "kernels" / "common" / "__init__.py").touch()
    for module in (jit, compiling):
        shutil.copy(module.__file__, root / "kernels" / "common")
    shutil.copy(compiled_code.__file__, root / "kernels")
    for name, text in MODULES.items():
        lines = [line.removeprefix(" " * 8) for line in text.splitlines()]
        (root / "kernels" / f"{name}.py").write_text("\n".join(lines) + "\n")
    return root


def start(checkout: Path, **environment: str) -> subprocess.Popen[str]:
    cache = {"NUMBA_CACHE_DIR": str(checkout / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(checkout)} | cache | environment,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, int, str]:
    """Result of `run`, number of cache hits, and stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result, hits = map(int, out.split())
    return result, hits, err


def edit(path: Path, old: str, new: str) -> None:
    """Change a file but not its size or modification time."""
    status = path.stat()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_code_is_cached_until_one_of_its_sources_changes(checkout: Path):
    assert outcome(start(checkout)) == (31, 0, "")
    assert outcome(start(checkout)) == (31, 1, "")
    edit(checkout / "kernels" / "numbers.py", "10", "20")  # a constant of a function it calls
    assert outcome(start(checkout)) == (61, 0, "")
    edit(checkout / "kernels" / "unrelated.py", "1", "2")
    edit(checkout / "kernels" / "words.py", "Word", "Work")
    (checkout / "kernels" / "words.py").write_text("class Word: ...\ndef shout(): print()\n")
    assert outcome(start(checkout)) == (61, 1, "")
    assert len(list((checkout / "cache").rglob("top.run-*.nbc"))) == 1  # nothing old is left


def test_code_in_a_package_is_part_of_the_cache_key(checkout: Path):
    """Code in `__init__.py` itself, and in a module that it re-exports."""
    kernels = checkout / "kernels"
    (kernels / "numbers").mkdir()
    (kernels / "numbers.py").rename(kernels / "numbers" / "values.py")
    (kernels / "numbers" / "__init__.py").write_text(
        "from patchmill.kernels.common.jit import jit\n"
        "from patchmill.kernels.numbers.values import FACTOR, half\n\n"
        "@jit\ndef more(x):\n    return x + 0\n"
    )
    helper = kernels / "helper.py"
    edit(helper, "(\n    FACTOR,\n    half as _half,\n)", "FACTOR, more")
    edit(helper, "x * FACTOR", "more(x) * FACTOR")
    assert outcome(start(checkout)) == (31, 0, "")
    assert outcome(start(checkout)) == (31, 1, "")
    edit(kernels / "numbers" / "__init__.py", "x + 0", "x + 1")
    assert outcome(start(checkout)) == (41, 0, "")
    edit(kernels / "numbers" / "values.py", "10", "20")
    assert outcome(start(checkout)) == (81, 0, "")


def test_a_damaged_cache_is_rebuilt(checkout: Path):
    outcome(start(checkout))
    for number, path in enumerate((checkout / "cache").rglob("*.nbc")):
        path.write_bytes(path.read_bytes()[: 100 * (number % 2)])
    assert outcome(start(checkout)) == (31, 0, "")
    assert outcome(start(checkout)) == (31, 1, "")


def test_many_processes_may_start_concurrently_without_a_cache(checkout: Path):
    processes = [start(checkout) for _ in range(4)]
    assert [outcome(process)[0] for process in processes] == [31] * 4
    assert outcome(start(checkout)) == (31, 1, "")
    assert not list((checkout / "cache").rglob("*.tmp"))


def test_without_a_writable_folder_it_compiles_each_time_and_warns(checkout: Path):
    (checkout / "file").touch()
    nowhere = {
        "NUMBA_CACHE_DIR": str(checkout / "file" / "cache"),
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
    }
    result, hits, stderr = outcome(start(checkout, **nowhere))
    assert (result, hits) == (31, 0)
    assert stderr.count("compiled kernels cannot be cached") == 1


# ------------------------------------------------------------------- sources of a compiled function


def names_of(path: Path) -> set[str]:
    return {file.stem for file in jit.sources(path)}


def test_constants_modules_and_compiled_code_count_but_classes_and_plain_functions_do_not(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patchmill, "__path__", [str(checkout)])
    jit._source.cache_clear()
    try:
        assert names_of(checkout / "kernels" / "top.py") == {
            "top",
            "jit",
            "compiling",
            "compiled_code",
            "helper",
            "limits",
            "numbers",
        }
    finally:
        jit._source.cache_clear()


def test_sources_of_the_renderer():
    names = names_of(Path(render.__file__))
    assert {"render", "resize", "colour", "encode", "simd", "decisions", "jit"} <= names
    assert not names & {"reference", "gpu", "plan", "recipe"}


def test_sources_of_the_plan():
    names = names_of(Path(draw.__file__))
    assert {"draw", "laws", "philox", "decisions", "jit"} <= names
    assert not names & {"recipe", "settings", "errors", "cpu"}


# --------------------------------------------------------------------------------------- the notice


def notice_logged(
    caplog: pytest.LogCaptureFixture, work: Callable[[], object], after_s: float
) -> bool:
    caplog.clear()
    compiling.announce.cache_clear()
    with caplog.at_level(logging.WARNING, "patchmill"), compiling.announce_compilation(after_s):
        work()
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer) and after_s < 1:
                thread.join(60)
    return compiling.NOTICE in caplog.text


def test_the_notice_is_logged_for_slow_compilation_only(caplog: pytest.LogCaptureFixture):
    import numba

    @numba.njit
    def small(x):
        return x + 1

    assert not notice_logged(caplog, lambda: small(1), after_s=1000)
    assert notice_logged(caplog, lambda: small(1.0), after_s=0)
    assert not notice_logged(caplog, lambda: small(2.0), after_s=0)  # compiled already


def test_the_notice_is_logged_once_per_process(caplog: pytest.LogCaptureFixture):
    import numba

    compiling.announce.cache_clear()
    for value in (1, 1.0, 1j):
        function = numba.njit(lambda x: x * 2)
        with caplog.at_level(logging.WARNING, "patchmill"), compiling.announce_compilation(0):
            function(value)
            for thread in threading.enumerate():
                if isinstance(thread, threading.Timer):
                    thread.join(60)
    assert caplog.text.count(compiling.NOTICE) == 1


@pytest.mark.parametrize(("saved", "slow_s", "said"), [(1, 0, True), (0, 0, False), (1, 99, False)])
def test_slow_compilation_that_is_saved_is_reported_after_the_notice(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    saved: int,
    slow_s: float,
    said: bool,
):
    import numba

    monkeypatch.setattr(compiling.TURN, "saved", 0)
    compiling.announce.cache_clear()
    with (
        caplog.at_level(logging.WARNING, "patchmill"),
        compiling.announce_compilation(after_s=0, slow_s=slow_s),
    ):
        numba.njit(lambda x: x * 3)(1.0)
        compiling.TURN.saved += saved
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join(60)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == compiling.NOTICE
    assert [message for message in messages if "the next start loads them" in message] == (
        messages[1:] if said else []
    )
    assert len(messages) == 1 + said


def test_old_objects_are_not_collected_while_functions_compile():
    import numba

    before, during = gc.get_threshold(), []

    class Look(compiling_event.Listener):
        def on_start(self, event: object) -> None:
            during.append(gc.get_threshold())

        def on_end(self, event: object) -> None: ...

    with compiling_event.install_listener("numba:compile", Look()):
        numba.njit(lambda x: x * 5)(1.0)
    assert during[0][:2] == before[:2] and during[0][2] == compiling.NO_FULL_COLLECTION
    assert gc.get_threshold() == before


# ----------------------------------------------------------------------------- several processes

STARTS = """
import sys, time
from numba.core import event
from pathlib import Path

class Count(event.Listener):
    def on_start(self, event):
        print(event.data["dispatcher"].py_func.__name__, event.data["args"])

    def on_end(self, event): pass

event.register("numba:compile", Count())
from patchmill.loaders.order import permutation
Path(sys.argv[1]).touch()
while len(list(Path(sys.argv[1]).parent.glob("ready-*"))) < 3:
    time.sleep(0.01)
permutation.Order(1000, 7).ids(0, 0, 10)
"""


def test_processes_that_start_together_compile_once(tmp_path: Path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", STARTS, str(tmp_path / f"ready-{number}")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    printed = [process.communicate(timeout=240)[0].split("\n") for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    compiled = sorted(line for lines in printed for line in lines if line)
    assert compiled and len(compiled) == len(set(compiled))


def test_a_killed_process_releases_its_turn(tmp_path: Path):
    holder = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(holder, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    turn, missing = compiling.Turn(), tmp_path / "function"
    compiling_event.unregister("numba:compile", turn)
    taken = threading.Thread(target=turn.take, args=(tmp_path, missing.is_file))
    taken.start()
    taken.join(0.3)
    assert taken.is_alive()
    process.kill()
    process.wait()
    taken.join(60)
    assert not taken.is_alive() and turn._file is not None
    os.close(turn._file)


HOLD = """
import sys, time
from pathlib import Path
from patchmill.kernels.common.compiling import TURN
TURN.take(Path(sys.argv[1]), lambda: False)
print("held", flush=True)
time.sleep(600)
"""


def test_waiting_for_a_turn_ends_once_the_function_is_cached(tmp_path: Path):
    turns = [compiling.Turn(), compiling.Turn()]
    for turn in turns:
        compiling_event.unregister("numba:compile", turn)
    turns[0].take(tmp_path, lambda: False)
    answers = iter([False, False, True])
    turns[1].take(tmp_path, lambda: next(answers))
    assert turns[0]._file is not None and turns[1]._file is None
    os.close(turns[0]._file)


VIEWS = """
import hashlib
from patchmill import loaders
digest = hashlib.sha256()
for recipe in ("dilo(size=96)", "dino(global_size=96, local_size=48, local_crops=2)"):
    for batch in loaders.build("scenes:48", recipe, 24, workers=1, seed=5):
        for crop in batch.crops():
            digest.update(crop.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow  # compiles for most of a minute; tests/test_packaging.py does so for one recipe
def test_freshly_compiled_and_loaded_code_render_the_same_views(tmp_path: Path):
    """A function may be used as a copy compiled into another function: rounding must agree."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    run = [sys.executable, "-c", VIEWS]
    compiled, loaded = (
        subprocess.run(run, env=environment, stdout=subprocess.PIPE, check=True).stdout
        for _ in range(2)
    )
    assert compiled == loaded
