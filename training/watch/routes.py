"""Responses to requests: the page itself, events, drawings and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib import resources
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.training.watch import run_files, thumbnails
from patchmill.training.watch.drawings import Drawings, Subject
from patchmill.training.watch.events import Stream
from patchmill.training.watch.shelf import Run, Shelf

Query = Mapping[str, Sequence[str]]

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FIRST_PAGE = "index.html"


class Answer(NamedTuple):
    kind: str  # media type
    body: bytes


class Refused(Exception):
    """A rejected request; the text is the reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Site:
    """Everything that a page can request: of the runs on a shelf, or of one recipe on some data."""

    def __init__(self, shelf: Shelf | None = None, subject: Subject | None = None) -> None:
        self._shelf, self._subject = shelf, subject
        self._drawings = Drawings()
        if subject is not None:
            self._drawings.open(subject.data)
        self._page = _page_files()

    def answer(self, path: str, query: Query) -> Answer:
        if path.removeprefix("/") in self._page:
            return self._page[path.removeprefix("/")]
        routes = {
            "/views": self._views,
            "/picture": self._picture,
            "/thumbnail": self._thumbnail,
        }
        if path not in routes:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        return routes[path](query)

    def events(self, selected: Sequence[str], wait: Callable[[float], bool]) -> Iterator[str]:
        if self._shelf is not None:
            return Stream(self._shelf, selected).events(wait)
        assert self._subject
        subject = {"data": self._subject.data, "recipe": self._subject.recipe}
        return _only(f"event: subject\ndata: {json.dumps(subject)}\n\n", wait)

    def _views(self, query: Query) -> Answer:
        first = _number(query, "first") or 0
        try:
            if self._subject:
                epoch = _number(query, "epoch") or 0
                drawn = self._drawings.of_data(self._subject, epoch, first)
            else:
                drawn = self._drawings.of_run(self._run(query), _number(query, "step"), first)
        except MillError as error:
            drawn = {"problem": str(error)}
        except OSError as error:
            drawn = {"problem": f"the data cannot be read here: {error.strerror or error}"}
        return Answer("application/json", json.dumps(drawn, allow_nan=False).encode())

    def _picture(self, query: Query) -> Answer:
        run, name = self._run(query), _text(query, "name")
        if name not in run.pictures:
            raise Refused(HTTPStatus.NOT_FOUND, "the run has no such picture")
        try:
            return Answer("image/png", run_files.read(run.folder / name))
        except OSError:
            raise Refused(HTTPStatus.NOT_FOUND, "the picture is gone") from None

    def _thumbnail(self, query: Query) -> Answer:
        id = _number(query, "id")
        found = None
        if id is not None:
            found = thumbnails.thumbnail(self._drawings, self._run(query), id)
        return Answer("image/jpeg", found) if found else Answer(KINDS["svg"], thumbnails.NOTHING)

    def _run(self, query: Query) -> Run:
        runs = self._shelf.runs() if self._shelf else {}
        name = _text(query, "run")
        if name not in runs:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such run")
        return runs[name]


def _page_files() -> dict[str, Answer]:
    """Files of the page by their URL paths, read once."""
    files = {}
    for file in resources.files(__package__).joinpath("page").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind:
            files[file.name] = Answer(kind, file.read_bytes())
    return files | {"": files[FIRST_PAGE]}


def _only(event: str, wait: Callable[[float], bool]) -> Iterator[str]:
    yield event
    while not wait(5.0):
        yield ": still here\n\n"


def _text(query: Query, name: str) -> str:
    return query[name][0] if name in query else ""


def _number(query: Query, name: str) -> int | None:
    """A whole number of up to ten digits, or None."""
    text = _text(query, name)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None
