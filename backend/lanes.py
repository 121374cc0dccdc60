"""What waits for the writer: lanes of requests, and the parts of them that are decided in one slice.

Requests of one item are collected into runs as they come: the callers who are most have a place in a
list and a future each, and are taken, decided and answered together. In a lane the order is that of
asking, whatever the size of a request.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from .asking import Outcome, Slice

RUN_MAX = 500
"""Requests of one item that are collected: no more than fit into a slice."""

Answered = asyncio.Future[list[Any]]
"""What one caller waits for: an outcome for each item."""


class Share:
    """What is decided in one slice of what one caller, or a run of them, asks for."""

    __slots__ = ("before", "goes_first", "outcomes", "size")

    def __init__(self, size: int, *, goes_first: bool) -> None:
        self.size = size
        self.goes_first = goes_first
        self.outcomes: list[Outcome] = []
        self.before: list[Outcome | None] = []
        """What it was decided to be before its commit failed, if that may be stored."""

    def take_back(self, *, unheard: bool) -> None:
        """It is decided again. What was known to be stored since before still is; more only where unheard."""
        if unheard:
            self.before = [*self.outcomes]
        else:
            found = zip(self.before, self.outcomes, strict=False)
            self.before = [before if before is outcome else None for before, outcome in found]

    def enter(self, slice: Slice) -> None:
        raise NotImplementedError

    def answer(self) -> None:
        """Tell whoever asked what became of it: it is stored."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        raise NotImplementedError


class Lane:
    """Requests in the order they came, to be taken from the front."""

    __slots__ = ("_asked", "_goes_first", "_run")

    def __init__(self, *, goes_first: bool) -> None:
        self._goes_first = goes_first
        self._asked: deque[_Request | _Run] = deque()
        self._run: _Run | None = None
        """At the end of the lane, where the next request of one item has its place."""

    def __bool__(self) -> bool:
        return bool(self._asked)

    def add_one(self, item: Any, actor: str, position: str, answered: Answered) -> None:
        run = self._run
        if run is None:
            run = self._run = _Run()
            self._asked.append(run)
        items = run.items
        items.append(item)
        run.actors.append(actor)
        run.positions.append(position)
        run.answered.append(answered)
        if len(items) == RUN_MAX:
            self._run = None

    def add(self, items: list[Any], actor: str, positions: Sequence[str], answered: Answered) -> None:
        self._run = None
        self._asked.append(_Request(items, actor, positions, answered))

    def take(self, room: int) -> list[Share]:
        """The next, in order; a request may be taken in parts."""
        taken: list[Share] = []
        while room and self._asked:
            asked = self._asked[0]
            share = asked.take(room, goes_first=self._goes_first)
            taken.append(share)
            room -= share.size
            if asked.is_taken:
                self._asked.popleft()
                if asked is self._run:
                    self._run = None
        return taken

    def fail(self, error: Exception) -> None:
        """Tell all who wait in it, and be empty."""
        for asked in self._asked:
            asked.fail(error)
        self._asked.clear()
        self._run = None


class _Run:
    """Requests of one item each, one after the other; a list for each thing known of every one."""

    __slots__ = ("actors", "answered", "items", "next", "positions")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.actors: list[str] = []
        self.positions: list[str] = []
        self.answered: list[Answered] = []
        self.next = 0

    @property
    def is_taken(self) -> bool:
        return self.next == len(self.items)

    def take(self, room: int, *, goes_first: bool) -> "_Callers":
        first, upto = self.next, min(len(self.items), self.next + room)
        self.next = upto
        return _Callers(self, first, upto, goes_first=goes_first)

    def fail(self, error: Exception) -> None:
        _fail(self.answered, error)


class _Callers(Share):
    """Some of a run: its callers are answered one by one."""

    __slots__ = ("_actors", "_answered", "_items", "_positions")

    def __init__(self, run: _Run, first: int, upto: int, *, goes_first: bool) -> None:
        super().__init__(upto - first, goes_first=goes_first)
        self._items = run.items[first:upto]
        self._actors = run.actors[first:upto]
        self._positions = run.positions[first:upto]
        self._answered = run.answered[first:upto]

    def enter(self, slice: Slice) -> None:
        slice.add_run(self._items, self._actors, self.before, self._positions)

    def answer(self) -> None:
        for answered, outcome in zip(self._answered, self.outcomes, strict=True):
            if not answered.done():
                answered.set_result([outcome])

    def fail(self, error: Exception) -> None:
        _fail(self._answered, error)


class _Request:
    """What one caller asks for, more than one item."""

    __slots__ = ("_left", "_next", "_outcomes", "actor", "answered", "items", "positions")

    def __init__(self, items: list[Any], actor: str, positions: Sequence[str], answered: Answered) -> None:
        self.items = items
        self.actor = actor
        self.positions = positions
        self.answered = answered
        self._outcomes: list[Any] = []
        self._left = len(items)
        self._next = 0

    @property
    def is_taken(self) -> bool:
        return self._next == len(self.items)

    def take(self, room: int, *, goes_first: bool) -> "_Part":
        first, upto = self._next, min(len(self.items), self._next + room)
        self._next = upto
        return _Part(self, first, upto, goes_first=goes_first)

    def answer(self, first: int, outcomes: list[Any]) -> None:
        """Take in what became of a part; with the last the caller is answered."""
        if len(outcomes) == len(self.items):
            self._outcomes = outcomes
        else:
            self._outcomes = self._outcomes or [None] * len(self.items)
            self._outcomes[first : first + len(outcomes)] = outcomes
        self._left -= len(outcomes)
        if not self._left and not self.answered.done():
            self.answered.set_result(self._outcomes)

    def fail(self, error: Exception) -> None:
        _fail([self.answered], error)


class _Part(Share):
    """A part of one request, or all of it."""

    __slots__ = ("_first", "_request", "_upto")

    def __init__(self, request: _Request, first: int, upto: int, *, goes_first: bool) -> None:
        super().__init__(upto - first, goes_first=goes_first)
        self._request, self._first, self._upto = request, first, upto

    def enter(self, slice: Slice) -> None:
        request, first, upto = self._request, self._first, self._upto
        if self.size == len(request.items):
            slice.add(request.items, request.actor, self.before, request.positions)
            return
        slice.add(request.items[first:upto], request.actor, self.before, request.positions[first:upto])

    def answer(self) -> None:
        self._request.answer(self._first, self.outcomes)

    def fail(self, error: Exception) -> None:
        self._request.fail(error)


def _fail(answered: Sequence[Answered], error: Exception) -> None:
    for one in answered:
        if not one.done():
            one.set_exception(error)
