"""A group on its way, held by the event loop itself: no thread is woken, and none has to win the interpreter.

The connection is nobody else's until the answer is there. It goes back clean, or closed. Where the
server says nothing for long, a thread goes on waiting, as patiently as every connection is waited for.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

from ..tenants.isolation import AtHand
from .inserting import conversation

if TYPE_CHECKING:
    from .log import Group


class Sending:
    """One group, from the first byte to what became of it."""

    def __init__(self, at_hand: AtHand, group: "Group", settle: Callable[[Exception | None], None]) -> None:
        self._at_hand = at_hand
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._socket = at_hand.connection.pgconn.socket
        self._talk = conversation(at_hand.connection, group)
        self._writing = False
        self._ended = False
        self._in_thread = False
        self._waits_for = Wait.R
        self._silence = self._loop.call_later(at_hand.connection.patience.silent_seconds, self._hand_over)

    def start(self) -> None:
        self._loop.add_reader(self._socket, self._go_on, Ready.R)
        self._go_on(None)

    def abandon(self) -> None:
        """Hear no more of it, unless it is over: it may be stored or not."""
        if not (self._ended or self._in_thread):
            self._end(psycopg.OperationalError("nobody waits for it any more"))

    def _go_on(self, ready: Ready | None) -> None:
        try:
            waits_for = next(self._talk) if ready is None else self._talk.send(ready)
        except StopIteration:
            self._end(None)
        except Exception as error:  # noqa: BLE001  (it is told to whoever waits)
            self._end(error)
        else:
            self._waits_for = waits_for
            self._watch_writing(bool(waits_for & Wait.W))

    def _hand_over(self) -> None:
        """Let a thread wait for the rest, and find out whether anybody is there."""
        self._in_thread = True
        self._watch_writing(writing=False)
        self._loop.remove_reader(self._socket)
        connection, rest = self._at_hand.connection, _rest(self._talk, self._waits_for)
        waiting = self._loop.run_in_executor(None, lambda: connection.wait(rest))
        waiting.add_done_callback(self._heard_in_thread)

    def _heard_in_thread(self, waiting: "asyncio.Future[None]") -> None:
        error = asyncio.CancelledError() if waiting.cancelled() else waiting.exception()
        if error is not None and not isinstance(error, Exception):
            error = psycopg.OperationalError("nobody waits for it any more")
        self._end(error)

    def _watch_writing(self, writing: bool) -> None:
        if writing and not self._writing:
            self._loop.add_writer(self._socket, self._go_on, Ready.W)
        elif self._writing and not writing:
            self._loop.remove_writer(self._socket)
        self._writing = writing

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._silence.cancel()
        self._watch_writing(writing=False)
        self._loop.remove_reader(self._socket)
        if error is not None:
            self._at_hand.connection.close()
        self._at_hand.give_back()
        self._settle(error)


def _rest(talk: PQGen[None], waits_for: Wait) -> PQGen[None]:
    """What is left of a conversation, for somebody else to hold."""
    try:
        while True:
            waits_for = talk.send((yield waits_for))
    except StopIteration:
        return
