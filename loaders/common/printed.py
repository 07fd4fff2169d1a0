"""`printable`: names and messages from outside as text that a terminal only shows.

A file may be called anything but `/` and NUL: with escape sequences in it, its name could move the
cursor, change the window's title or hide what was printed before.
"""

from __future__ import annotations

import re

# Control characters, those that turn the direction of writing, and halves of characters, as which
# Python reads bytes of a name that are not UTF-8.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_A_LINE = re.compile(f"[{_STEERING}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_STEERING}]")


def printable(text: object, lines: bool = False) -> str:
    """Show as `\\x1b` what would steer a terminal or cannot be written; `lines` keeps line ends."""
    return (_IN_LINES if lines else _IN_A_LINE).sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def say(text: object) -> None:
    """Print lines that may have names from outside in them."""
    print(printable(text, lines=True), flush=True)
