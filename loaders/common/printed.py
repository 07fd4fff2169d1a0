"""`printable`: names and messages from outside as text that a terminal only shows.

A file may be called anything but `/` and NUL: with escape sequences in it, its name could move the
cursor, change the window's title or hide what was printed before.
"""

from __future__ import annotations

import re
import reprlib

# Control characters, those that turn the direction of writing, and halves of characters, as which
# Python reads bytes of a name that are not UTF-8.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
LONGEST = 200  # characters of a value in a message
_IN_A_LINE = re.compile(f"[{_STEERING}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_STEERING}]")


def printable(text: object, lines: bool = False) -> str:
    """Show as `\\x1b` what would steer a terminal or cannot be written; `lines` keeps line ends."""
    return (_IN_LINES if lines else _IN_A_LINE).sub(_escaped, str(text))


def brief(value: object) -> str:
    """The value as in Python, cut where it is long, for a message that must stay a sentence."""
    try:
        text = _REPR.repr(value)
    except Exception:  # such as an integer with more digits than Python writes
        text = f"a {type(value).__name__}"
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _repr() -> reprlib.Repr:
    made = reprlib.Repr()
    made.maxstring = made.maxother = LONGEST
    made.maxdict = made.maxlist = made.maxtuple = 12
    return made


_REPR = _repr()


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def say(text: object) -> None:
    """Print lines that may have names from outside in them."""
    print(printable(text, lines=True), flush=True)
