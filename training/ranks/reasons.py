"""`reason`: the essence of an error's message, without the noise of torch's libraries."""

from __future__ import annotations

import re

# Their source location, and the advice that they append.
_SOURCE = re.compile(
    r"^\s*(?:\[(?:enforce fail at )?[^\s\]]*\.(?:cc|cpp|h|hpp|cu):\d+\]\s*\.?\s*)+"
)
_ADVICE = re.compile(
    r"[\s.]*(?:GLHF|This is typically caused|Check the logs of|Exception raised from|"
    r"Most likely caused by|Last error:).*",
    re.S,
)


def reason(error: BaseException) -> str:
    """Return the first informative line of an error's message."""
    text = _ADVICE.sub("", _SOURCE.sub("", str(error)))
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
