"""Outcomes of parsers: a result, or one printable sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from trust.check import Outcome

# Values that settings, lists and names do not expect.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**64), 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "\x1b[2J", "a\nb", "\ud800", "é" * 300),
    *("x" * 100_000, [], [[]], {}, {"kind": "crop"}, [None] * 1000, {"": None}, ["0"] * 4),
)
ODD_WORDS = (
    *("", "null", "~", "true", "[]", "{}", "[[[[[]]]]]", "{a: {b: {c: 1}}}", "-1", "1e999", ".nan"),
    *("0x" + "f" * 4000, "1" * 5000, "1_0", "!!float x", "!!int x", "!!binary x", "!!set {a}"),
    *("!!python/object:os.system {}", "2001-99-99", "1:99:99", "&a [*a]", "*a", "<<: {a: 1}", "\0"),
    *(
        "'",
        '"',
        "(",
        ")",
        "dino(",
        "__import__('os')",
        "lambda: 0",
        "1if 1else 1",
        "f'{1}'",
        "=",
        "\\",
    ),
    *(
        "\x1b]0;x\x07",
        "\u202e",
        "\ufeff",
        "٣",
        "²",
        "9" * 30,
        "(" * 300,
        "[" * 2000,
        "-" * 2000 + "1",
    ),
)


def tried(outcome: Outcome, do: Callable[[], object], label: str) -> None:
    """Count a try: passed if it returns or ends in one sentence; `label` names the input."""
    try:
        do()
    except MillError as error:
        outcome.tried("one sentence")
        text = str(error)
        if "\n" in text or len(text) > 1500 or "Traceback" in text or not text:
            outcome.failed(f"a bad error message: {printable(text[:200])}: {label}")
    except Exception as error:
        outcome.tried()
        outcome.failed(f"{type(error).__name__} ({printable(str(error)[:160])}): {label}")
    else:
        outcome.tried("made")


def with_odd_word(text: str, draw: random.Random) -> str:
    """Replace, double or remove a word of the text, one to four times."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        words = list(re.finditer(r"[\w.]+|[^\w\s]", text))
        if not words:
            return draw.choice(ODD_WORDS)
        word = draw.choice(words)
        new = draw.choice((draw.choice(ODD_WORDS), draw.choice(words)[0], word[0] * 2, ""))
        text = text[: word.start()] + new + text[word.end() :]
    return text


def with_odd_value(data: Any, draw: random.Random) -> Any:
    """Plain data with one value replaced, at any depth, or a key removed or renamed."""
    if not isinstance(data, dict | list) or not data or draw.random() < 0.15:
        return draw.choice(ODD)
    if isinstance(data, list):
        place = draw.randrange(len(data))
        return [with_odd_value(v, draw) if i == place else v for i, v in enumerate(data)]
    key = draw.choice(list(data))
    if draw.random() < 0.1:
        rest = {k: v for k, v in data.items() if k != key}
        return rest if draw.random() < 0.5 else {**rest, str(draw.choice(ODD))[:300]: data[key]}
    return {k: with_odd_value(v, draw) if k == key else v for k, v in data.items()}
