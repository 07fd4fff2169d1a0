"""Installing patchmill installs every package, nothing else, and importing it is cheap."""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import patchmill
from patchmill.kernels.common import compiling

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
    """Build from an sdist, as installers do if there is no wheel."""
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("build")))


def build_wheel(folder: Path) -> Path:
    """Build from a copy, so that no stale build/ is included and nothing is left behind."""
    copy = folder / "checkout"
    for name in folders().values():
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    run_setuptools("sdist", copy)
    shutil.unpack_archive(next((copy / "dist").glob("*.tar.gz")), folder)
    unpacked = folder / f"patchmill-{patchmill.__version__}"
    run_setuptools("wheel", unpacked)
    return next((unpacked / "dist").glob("*.whl"))


def run_setuptools(kind: str, folder: Path) -> None:
    build = f"from setuptools.build_meta import build_{kind}; build_{kind}('dist')"
    made = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


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


def test_wheel_metadata_has_version_licence_and_requirements(wheel: zipfile.ZipFile):
    info = f"patchmill-{patchmill.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {patchmill.__version__}\n" in metadata
    assert "\nLicense: Apache-2.0\n" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    needed = {line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")}
    assert {"torch>=2.8", "numba>=0.61", "simplejpeg>=1.8"} <= needed


def test_wheel_works_without_a_checkout(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    where = run_python("from patchmill.loaders import recipe; print(recipe.__file__)", tmp_path)
    assert Path(where) == tmp_path / "patchmill" / "loaders" / "recipe.py"


def test_the_wheel_installs_in_its_own_environment(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Install with pip, next to its dependencies; then the command and a loader work.

    The first start compiles, and logs it; the next one renders the same views with loaded code.
    """
    venv.create(tmp_path / "env", symlinks=True)
    binaries = tmp_path / "env" / "bin"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # Dependencies are used from here, except the patchmill that is installed here.
    (site / "needed.pth").write_text(str(Path(torch_folder()).parent))
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(wheel.filename)], check=True, cwd="/")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PATCHMILL_CACHE": str(tmp_path / "cache")}
    said = []
    for command, expected in (
        ([binaries / "patchmill"], "train        train"),
        ([binaries / "patchmill", "train", "--help"], "method="),
        ([binaries / "python", "-c", INSTALLED], f"{site / 'patchmill'} 4 batches of dino:"),
        ([binaries / "python", "-c", INSTALLED], f"{site / 'patchmill'} 4 batches of dino:"),
    ):
        done = subprocess.run(command, env=environment, cwd="/", text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        said.append((done.stdout, done.stderr))
    (compiled, notices), (loaded, nothing) = said[-2:]
    assert compiled == loaded and nothing == ""
    notice, *more = notices.splitlines()
    assert notice == compiling.NOTICE
    # One more line if it took longer than a few seconds.
    assert len(more) <= 1 and all("the next start loads them" in line for line in more)


INSTALLED = """
import hashlib
from pathlib import Path
from patchmill import loaders
recipe = "dino(global_size=96, local_size=48, local_crops=2)"
loader = loaders.build("scenes:16", recipe, 4, workers=1, seed=5)
digest = hashlib.sha256()
for batch in loader:
    for crop in batch.crops():
        digest.update(crop.numpy().tobytes())
print(Path(loaders.__file__).parents[1], len(loader), "batches of", loader.recipe)
print(digest.hexdigest())
"""


def torch_folder() -> str:
    spec = importlib.util.find_spec("torch")
    assert spec and spec.origin
    return str(Path(spec.origin).parent)


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == patchmill.__version__
    assert citation["license"] == setup_cfg()["metadata"]["license"]


def test_importing_the_loaders_does_not_import_torch():
    loaded = run_python("import sys, patchmill.loaders; print(*sys.modules)", ROOT).split()
    heavy = {"torch", "torchvision", "numba", "nvidia.dali", "ffcv", "timm", "matplotlib"}
    assert heavy & set(loaded) == set()


def run_python(code: str, path: Path) -> str:
    """Return the output of `code` in a fresh interpreter that searches `path` first."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd="/", check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()
