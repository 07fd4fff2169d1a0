"""Pages about Python files, for the site: what a module offers, from its docstrings, and its code.

griffe reads the files; nothing is imported. Docstrings here are Markdown in which a line
`name: text` describes a parameter.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import griffe

PACKAGES = ("loaders", "kernels", "training", "cluster", "benchmarks", "patchmill")


def page(root: Path, path: Path) -> str:
    """Markdown for one file: of the package its public names, of any other its code alone."""
    relative = path.relative_to(root)
    code = path.read_text(encoding="utf-8")
    listing = f"```python\n{code}```\n"
    if relative.parts[0] not in PACKAGES:
        return f"# {relative}\n\n{listing}"
    module = _module(root, relative)
    name = module.path if module.path.startswith("patchmill") else f"patchmill.{module.path}"
    parts = [f"# {name}", _prose(module)]
    parts += [_function(member, "##") for member in _public(module) if member.is_function]
    parts += [_class(member) for member in _public(module) if member.is_class]
    return "\n\n".join([part for part in parts if part] + ["## The code", listing])


def _module(root: Path, file: Path) -> griffe.Module:
    package, *names = file.with_suffix("").parts
    module: Any = _package(root, package)
    for name in names:
        module = module if name == "__init__" else module.members[name]
    return module


@functools.cache
def _package(root: Path, name: str) -> griffe.Module:
    """A whole package, for only then griffe knows the parameters of dataclasses."""
    return griffe.load(name, search_paths=[root], allow_inspection=False)  # type: ignore


def _public(owner: griffe.Module | griffe.Class) -> list[griffe.Object]:
    """The members that have docstrings or whose names say that they are public, but no imports."""
    return [
        member
        for name, member in owner.members.items()
        if not name.startswith("_") and isinstance(member, griffe.Object)
    ]


def _class(cls: griffe.Object) -> str:
    assert isinstance(cls, griffe.Class)
    parts = [f"## {cls.name}", _signature(cls.signature()), _prose(cls), _fields(cls)]
    methods = [member for member in _public(cls) if member.is_function and member.has_docstring]
    properties = [member for member in _public(cls) if "property" in member.labels]
    parts += [_function(method, "###") for method in methods]
    lines = [f"* `{p.name}`: {_first_line(p)}" for p in properties if p.has_docstring]
    return "\n\n".join(part for part in [*parts, "\n".join(lines)] if part)


def _function(function: griffe.Object, heading: str) -> str:
    assert isinstance(function, griffe.Function)
    return "\n\n".join(
        [f"{heading} {function.name}", _signature(function.signature()), _prose(function)]
    )


def _fields(cls: griffe.Class) -> str:
    """Fields of a dataclass with the comments beside them, which are their documentation."""
    if "dataclass" not in cls.labels:
        return ""
    found = re.findall(r"^    (\w+): [^#\n]*# (.+)$", cls.source, re.MULTILINE)
    return "\n".join(f"* `{name}`: {about}" for name, about in found)


def _signature(signature: str) -> str:
    """A signature as a block of code, an argument a line where it is long."""
    signature = re.sub(r"\(self(, )?", "(", signature)
    if len(signature) > 88:
        head, _, rest = signature.partition("(")
        arguments, _, result = rest.rpartition(")")
        inner = ",\n    ".join(_split(arguments))
        signature = f"{head}(\n    {inner},\n){result}"
    return f"```python\n{signature}\n```"


def _split(arguments: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _prose(documented: griffe.Object) -> str:
    """The docstring, with its lines `name: text` as a list."""
    text = documented.docstring.value if documented.docstring else ""
    return re.sub(r"^(\w+(?:, \w+)*): (?=\S)", r"* `\1`: ", text, flags=re.MULTILINE).replace(
        "\n* ", "\n\n* ", 1
    )


def _first_line(documented: griffe.Object) -> str:
    return documented.docstring.value.splitlines()[0] if documented.docstring else ""
