"""Print a shell completion script: patchmill completion bash|zsh|fish"""

from __future__ import annotations

from collections.abc import Sequence

from patchmill.command.completion.scripts import SCRIPTS
from patchmill.loaders.common.arguments import Parser


def main(arguments: Sequence[str] | None = None) -> None:
    shell = parser().parse_args(arguments).shell
    print(SCRIPTS[shell], end="")


def parser() -> Parser:
    options = Parser(
        "patchmill completion",
        "SHELL",
        "Print a script that makes a shell complete commands, settings and their values, presets, "
        "benchmarks and runs.",
        [
            'eval "$(patchmill completion bash)"      # in ~/.bashrc',
            'eval "$(patchmill completion zsh)"       # in ~/.zshrc, after compinit',
            "patchmill completion fish | source      # in ~/.config/fish/config.fish",
        ],
    )
    options.add_argument(
        "shell", metavar="SHELL", choices=tuple(SCRIPTS), help=f"one of {', '.join(SCRIPTS)}"
    )
    return options
