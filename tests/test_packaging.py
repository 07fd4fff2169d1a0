"""Installing patchmill gives every package, nothing else, and an import that is light."""

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import patchmill

ROOT = Path(__file__).resolve().parents[1]


def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def folders() -> dict[str, str]:
    """Top-level package -> folder, from package_dir."""
    lines = setup_cfg()["options"]["package_dir"].strip().splitlines()
    return dict([part.strip() for part in line.split("=")] for line in lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that nothing stale in build/ gets in and nothing is left behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in folders().values():
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    made = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_every_package_is_listed():
    listed = setup_cfg()["options"]["packages"].split()
    found = [
        ".".join((package, *init.parent.relative_to(ROOT / folder).parts))
        for package, folder in folders().items()
        for init in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(found)


def test_every_module_lies_in_a_package():
    folders_with_code = {
        path.parent for folder in folders().values() for path in (ROOT / folder).rglob("*.py")
    }
    assert [f for f in folders_with_code if not (f / "__init__.py").exists()] == []


def test_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile):
    info = f"patchmill-{patchmill.__version__}.dist-info/"
    files = {name for name in wheel.namelist() if not name.startswith(info)}
    modules = {
        (Path(package.replace(".", "/")) / path.relative_to(ROOT / folder)).as_posix()
        for package, folder in folders().items()
        for path in (ROOT / folder).rglob("*.py")
    }
    data_files = {
        f"patchmill/{path.relative_to(ROOT).as_posix()}"
        for folder, names in (
            ("training/config", "*.yaml"),
            ("cluster/profiles", "*.yaml"),
            ("training/watch/page", "*.*"),
        )
        for path in (ROOT / folder).rglob(names)
    }
    assert data_files
    assert files == modules | data_files | {"patchmill/py.typed"}


def test_wheel_states_version_licence_and_what_it_needs(wheel: zipfile.ZipFile):
    info = f"patchmill-{patchmill.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {patchmill.__version__}\n" in metadata
    assert "\nLicense: Apache-2.0\n" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    needed = {line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")}
    assert {"torch>=2.8", "numba>=0.61", "simplejpeg>=1.8"} <= needed


def test_wheel_works_where_there_is_no_checkout(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    where = run_python("from patchmill.loaders import recipe; print(recipe.__file__)", tmp_path)
    assert Path(where) == tmp_path / "patchmill" / "loaders" / "recipe.py"


def test_importing_the_loaders_does_not_import_torch():
    loaded = run_python("import sys, patchmill.loaders; print(*sys.modules)", ROOT).split()
    heavy = {"torch", "torchvision", "numba", "nvidia.dali", "ffcv", "timm", "matplotlib"}
    assert heavy & set(loaded) == set()


def run_python(code: str, path: Path) -> str:
    """Return what `code` prints in a fresh interpreter that looks for packages in `path` first."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd="/", check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()
