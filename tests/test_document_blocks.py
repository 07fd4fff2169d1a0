"""Code in documents works: Python runs, commands exist and accept their arguments.

`helpers_documents` describes the comments that control how a block is tested. Every page has its
own folder, with the class folders photos/train and photos/val, and photos/flat.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import helpers_commands
import pytest
import yaml
from helpers_documents import ROOT, Block, blocks, documents

PAGES = {path.relative_to(ROOT).as_posix(): blocks(path) for path in documents()}
RUN = [  # tests/test_readme.py runs the README's Python
    page
    for page, found in PAGES.items()
    if page != "README.md" and any(b.language == "python" or b.marker == "run" for b in found)
]
COMMANDS = [
    pytest.param(command, id=f"{block.place}: {command[:60]}")
    for found in PAGES.values()
    for block in found
    if block.language in ("", "console", "bash", "sh") and block.marker != "run"
    for command in block.commands
]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes as JPEGs: train and val in class folders, flat without."""
    from patchmill.loaders.sources.scenes.source import Scenes

    folder, scenes = tmp_path_factory.mktemp("documents"), Scenes(count=72, size=64)
    assert scenes.labels is not None
    for index, label in enumerate(scenes.labels):
        part = folder / ("train" if index < 64 else "val") / scenes.classes[label]
        for place in (part, folder / "flat"):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:03}.jpg").write_bytes(scenes.read(index))
    return folder


@pytest.mark.parametrize("page", RUN)
def test_pages_run(page: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules = set(sys.modules)
    namespace: dict[str, object] = {"__name__": "__main__"}
    try:
        for block in PAGES[page]:
            if block.marker == "file":
                path = tmp_path / block.argument
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.code)
            elif block.marker == "run":
                for command in block.commands:
                    run_command(command, block)
            elif block.language == "python":
                run_python(block, namespace)
    finally:
        for name in set(sys.modules) - modules:  # modules that the page wrote
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if origin.startswith(str(tmp_path)):
                del sys.modules[name]


def run_python(block: Block, namespace: dict[str, object]) -> None:
    """Run a block, unless it needs a missing package or must not be run."""
    tree = ast.parse(block.code, block.place)
    check_imports(tree, block)
    if block.marker != "not run" and not missing_packages(tree):
        code = "\n" * block.line + block.code
        exec(compile(code, str(block.document), "exec"), namespace)


def missing_packages(tree: ast.AST) -> list[str]:
    names = {name.partition(".")[0] for name, _ in imports(tree)}
    return [name for name in sorted(names) if importlib.util.find_spec(name) is None]


def imports(tree: ast.AST) -> list[tuple[str, list[str]]]:
    """Imported modules, and the names imported from each."""
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, [alias.name for alias in node.names]))
    return found


def check_imports(tree: ast.AST, block: Block) -> None:
    """Check in the source that imported names exist, without importing them."""
    for module, names in imports(tree):
        if not module.startswith("patchmill"):
            continue
        path = ROOT.joinpath(*module.split(".")[1:])
        if module == "patchmill":
            path = ROOT
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = source.read_text() if source.is_file() else ""
        assert path.is_dir() or text, f"{block.place}: there is no module {module}"
        defined = names_in(text)
        for name in names:
            there = name in defined or (path / name).is_dir() or (path / f"{name}.py").is_file()
            assert there, f"{block.place}: {module} has no {name}"


def names_in(source: str) -> set[str]:
    """Names that a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def run_command(command: str, block: Block) -> None:
    """Run a command of the page in its folder: ours in this process, user scripts in another."""
    argv = shlex.split(command)
    if not {"train", "patchmill.training.run", "training/run.py"}.isdisjoint(argv):
        argv += shlex.split(block.argument)
    variables, argv = helpers_commands.split_variables(argv)
    module, arguments = helpers_commands.module_of(argv)
    if module and not variables:
        helpers_commands.run(module, arguments)
        return
    programs = {"python": [], "torchrun": ["-m", "torch.distributed.run"]}
    # Threads of torch's process group sometimes abort a rank that has ended: see ranks/signals.py.
    tries = 3 if argv[0] == "torchrun" else 1
    argv[:1] = [sys.executable, *programs[argv[0]]]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | variables
    for _ in range(tries):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=environment)
        if not done.returncode:
            break
    assert done.returncode == 0, f"{block.place}: {command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_their_arguments(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in helpers_commands.PLACEHOLDERS:
        (tmp_path / name).mkdir()
        for part in ("train", "val", "test", "flat"):
            (tmp_path / name / part).symlink_to(photos / part.replace("test", "val"))
    monkeypatch.chdir(tmp_path)
    helpers_commands.check(command, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_data_in_blocks_is_well_formed(page: str):
    for block in PAGES[page]:
        if block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "json":
            json.loads(block.code)
        known = ("", "python", "console", "bash", "sh", "yaml", "json", "text", "toml", "diff")
        assert block.language in known, f"{block.place}: {block.language}"
        if block.marker == "not run":
            assert block.argument, f"{block.place}: say why it is not run"
