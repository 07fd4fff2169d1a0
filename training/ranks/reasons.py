"""`reason`: an error's message in a few words, without what torch's libraries put around it."""

from __future__ import annotations

import re

# The line of their source, and the advice that they append.
_SOURCE = re.compile(
    r"^\s*(?:\[(?:enforce fail at )?[^\s\]]*\.(?:cc|cpp|h|hpp|cu):\d+\]\s*\.?\s*)+"
)
_ADVICE = re.compile(
    r"[\s.]*(?:GLHF|This is typically caused|Check the logs of|Exception raised from|"
    r"Most likely caused by|Last error:).*",
    re.S,
)


def reason(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    text = _ADVICE.sub("", _SOURCE.sub("", str(error)))
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
