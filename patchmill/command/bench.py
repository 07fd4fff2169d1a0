"""Benchmarks by name: patchmill bench [NAME] ...; throughput by default."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from importlib.abc import InspectLoader

from patchmill.loaders.common.arguments import describe
from patchmill.loaders.common.errors import MillError
from patchmill.script import idle_threads_sleep

DEFAULT = "throughput"
ABOUT = """\
Run a benchmark on this machine, by default throughput. patchmill bench NAME --help lists a
benchmark's options."""
EXAMPLES = (
    "patchmill bench --data photos --recipe 'dino(local_crops=6)'",
    "patchmill bench decoders --json decoders.json",
    "patchmill bench list",
)


def main(arguments: Sequence[str]) -> None:
    word, *rest = arguments or (DEFAULT,)
    if word in ("--help", "-h"):
        print(f"usage: patchmill bench [NAME] [options]\n\n{describe(ABOUT, EXAMPLES)}\n")
        print("options:\n  -h, --help  show this help message and exit\n\nbenchmarks:")
        word = "list"
    if word == "list":
        print("\n".join(f"  {name:<15} {title(name)}" for name in names()))
        return
    if word.startswith("-"):
        word, rest = DEFAULT, list(arguments)
    if word.replace("_", "-") not in names():
        from patchmill.loaders.common.calls import nearest

        raise MillError(f"there is no benchmark {word!r}{nearest(word, dict.fromkeys(names()))}")
    if word == "training":
        idle_threads_sleep()
    importlib.import_module(module(word)).main(rest)


def names() -> list[str]:
    """Names of all benchmarks: the modules in benchmarks/, then those in benchmarks/papers/."""
    from patchmill import benchmarks
    from patchmill.benchmarks import papers

    return [
        *_modules(benchmarks.__path__),
        *(f"papers/{name}" for name in _modules(papers.__path__)),
    ]


def _modules(folders: Iterable[str]) -> list[str]:
    modules = pkgutil.iter_modules(folders)
    return sorted(info.name.replace("_", "-") for info in modules if not info.ispkg)


def module(name: str) -> str:
    return f"patchmill.benchmarks.{name.replace('-', '_').replace('/', '.')}"


def title(name: str) -> str:
    """The first line of the benchmark's docstring, read without importing torch."""
    line = source(name).partition('"""')[2].partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:] if line.split(" ")[0].istitle() else line


def source(name: str) -> str:
    """The source of a benchmark."""
    spec = importlib.util.find_spec(module(name))
    loader = spec.loader if spec else None
    text = loader.get_source(module(name)) if isinstance(loader, InspectLoader) else None
    return text or ""
