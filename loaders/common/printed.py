"""`printable`: untrusted names and messages as text that is safe to print on a terminal.

A file name may contain any character except `/` and NUL: escape sequences in it could move the
cursor, change the window's title or hide earlier output.
"""

from __future__ import annotations

import re
import reprlib

# Control characters, those that change the text direction, and surrogates, which Python uses for
# bytes of a name that are not UTF-8.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
LONGEST = 200  # characters of a value in a message
_IN_A_LINE = re.compile(f"[{_STEERING}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_STEERING}]")


def printable(text: object, lines: bool = False) -> str:
    """Escape as `\\x1b` what would control a terminal or cannot be encoded.

    `lines` keeps line breaks.
    """
    return (_IN_LINES if lines else _IN_A_LINE).sub(_escaped, str(text))


def brief(value: object) -> str:
    """The value's repr, shortened if it is long, for use in a one-sentence message."""
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
    """Print lines that may contain untrusted names."""
    print(printable(text, lines=True), flush=True)
