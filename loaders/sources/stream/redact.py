"""Hide credentials in URLs and commands, for logs, ledgers and messages."""

from __future__ import annotations

import re

_HIDDEN = "..."
_USER = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s'\"]*)@", re.IGNORECASE)
_QUERY = re.compile(r"(://[^\s'\"?#]*)\?([^\s'\"#]*?)(?=\)*(?:[\s'\"#]|$))")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|cookie|x-[\w-]+)(\s*:\s*)[^'\"\n]+")
_SECRET = r"[\w-]*(?:key|token|secret|password|credential|signature)[\w-]*"
_ASSIGNED = re.compile(rf"(?i)(--{_SECRET}[= ]|{_SECRET}=)[^\s'\"&;|]+")
_USER_OPTION = re.compile(r"(\s(?:-u|--user)[= ]?)\S+")


def redact(text: str) -> str:
    """Replace user names, passwords, query strings and anything like a secret with `...`.

    A query value is kept if it names a tar, as in `get?file=train-0.tar&token=...`.
    """
    text = _QUERY.sub(_hide_query, _USER.sub(_hide_user, text))
    text = _ASSIGNED.sub(rf"\1{_HIDDEN}", _HEADER.sub(rf"\1\2{_HIDDEN}", text))
    return _USER_OPTION.sub(rf"\1{_HIDDEN}", text) if text.startswith("pipe:") else text


def _hide_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    if scheme.startswith("abfs") and ":" not in user:
        return match[0]  # a container, not a user
    return f"{scheme}://"


def _hide_query(match: re.Match[str]) -> str:
    pairs = [pair.partition("=") for pair in match[2].split("&")]
    shown = [name + equals + value for name, equals, value in pairs if _names_tar(value)]
    hidden = [_HIDDEN] if len(shown) < len(pairs) else []
    return f"{match[1]}?{'&'.join(shown + hidden)}"


def _names_tar(value: str) -> bool:
    return bool(re.fullmatch(r"[\w./%-]*\.(tar|tgz)", value))
