"""A run of plain charges: of a slice, what can be charged without asking for anything unusual.

Native code goes as far as it can, then Python is asked for the one record it left: by the same rules
(`domain/plain_charge.py`), which know more. What both leave is decided by `Charging`.
"""

from typing import Any

from ..domain.charging import FUTURE_MAX, UsageCharged
from ..domain.events import encode
from ..domain.plain_charge import PlainCharges
from ..domain.refusals import InvariantBroken
from .asking import UsageOutcome
from .native import using

LEFT_MAX = 3
"""Records in a row that native code leaves; then Python is asked alone for the rest of the slice."""


class Fresh:
    """What was decided and is not in a group yet: a list for each thing known of every event."""

    __slots__ = ("keys", "states", "topics")

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.states: list[bytes] = []
        self.keys: list[bytes | None] = []

    def __len__(self) -> int:
        return len(self.states)

    def add(self, topic: str, state: bytes, key: bytes | None) -> None:
        self.topics.append(topic)
        self.states.append(state)
        self.keys.append(key)


class PlainRun:
    """The plain charges of one slice, in order, between what is not plain."""

    def __init__(
        self,
        plain: PlainCharges,
        prepared: using.Ready,
        actors: list[str],
        now: int,
        fresh: Fresh,
        first_seq: int,
    ) -> None:
        self.keys: list[bytes] = []
        """Of what was charged, with its digests."""
        self.digests: list[bytes] = []
        self._plain = plain
        self._prepared = prepared
        self._actors = actors
        self._now = now
        self._fresh = fresh
        self._first_seq = first_seq
        self._native = using.native()
        if self._native is not None and isinstance(prepared, list):
            self._prepared = self._native.prepared(prepared)
        self._left = 0

    def charge(self, outcomes: list[Any]) -> None:
        """Charge on from the first without an outcome, as far as it is plain."""
        try:
            while len(outcomes) < len(self._prepared):
                if self._native is not None:
                    self._charge_natively(self._native, outcomes)
                if len(outcomes) == len(self._prepared) or not self._charge_one(outcomes):
                    return
        except InvariantBroken:
            raise
        except Exception as error:
            raise half_applied(error) from error

    def _charge_natively(self, native: using.Slices, outcomes: list[Any]) -> None:
        before, fresh = len(outcomes), self._fresh
        keys: list[bytes] = []
        native.charge(
            self._plain,
            self._prepared,
            before,
            self._actors,
            self._plain.oldest(self._now),
            self._now + FUTURE_MAX,
            self._first_seq + len(fresh),
            outcomes,
            fresh.states,
            keys,
            self.digests,
        )
        fresh.keys += keys
        fresh.topics += [UsageCharged.topic] * len(keys)
        self.keys += keys
        self._left = 0 if keys else self._left + 1
        if self._left == LEFT_MAX:
            self._native = None

    def _charge_one(self, outcomes: list[Any]) -> bool:
        """The next, in Python; False where it is not plain."""
        ready = self._prepared[len(outcomes)]
        if ready is None:
            return False
        record, key, digest, token, sealed = ready
        charged = self._plain.charge(record, token, sealed, self._now)
        if charged is None:
            return False
        actor, fresh = self._actors[len(outcomes)], self._fresh
        outcomes.append(UsageOutcome("charged", "", self._first_seq + len(fresh), "", charged.amount))
        fresh.add(charged.topic, encode(charged, actor, digest), key)
        self.keys.append(key)
        self.digests.append(digest)
        return True


def half_applied(error: Exception) -> InvariantBroken:
    """What cannot be applied has left half of itself behind: that is no state to go on with."""
    return InvariantBroken("what was decided can be applied", error=repr(error))
