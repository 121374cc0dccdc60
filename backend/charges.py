"""Charges as they stand in the log, for those who make them again: read in parts, beside the writer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..domain.charging import UsageCharged, UsageRejected
from ..domain.emergency import is_emergency
from ..domain.events import Recorded
from ..domain.rating_job import Scope
from ..domain.remaking import counting_of
from ..domain.rerated import Again, UsageCorrected, UsageRerated
from ..domain.tenant import Event, Tenant
from ..domain.usage import UsageRecord, unpack_personal
from ..domain.withdrawn import AS_IT_WAS, SUSPENDED, Standing, standing
from ..tenants.sealing import Sealer
from .folding import apply_piece, pieces
from .keys import replacing_keys
from .log import PostgresLog, reachable, recorded
from .rerated_chain import events_at, held_in
from .snapshots import Snapshots, collector_paused

READ_MAX = 5_000
"""Events looked at in one go."""
TOPICS = frozenset(event.topic for event in (UsageCharged, UsageRerated, UsageCorrected))
DENIED = TOPICS | {UsageRejected.topic}


class Opened(NamedTuple):
    """The personal part of a charge, and under which line's key it was sealed; none where it was erased."""

    token: bytes
    line: str
    counterpart: str


class _NoKeys:
    """Whoever only looks remembers no keys."""

    def add(self, *_: Any) -> None:
        pass

    def add_all(self, *_: Any) -> None:
        pass

    def gather(self, *_: Any) -> None:
        pass


def state_at(log: PostgresLog, snapshots: Snapshots, upto: int) -> Tenant:
    """A state of one's own, as of a seq: from the newest snapshot where that is not later. Blocks."""
    kept = snapshots.structure()
    after, state = kept if kept is not None and kept[0] <= upto else (0, Tenant())
    with collector_paused():
        for piece in pieces(log, after, upto, leaves=False):
            apply_piece(state, _NoKeys(), piece)
    return state


class Charges:
    """The charges of a scope that hold, in the order of the log."""

    def __init__(
        self,
        log: PostgresLog,
        sealer: Sealer,
        state: Tenant,
        scope: Scope,
        tell: Callable[[Recorded], None] | None = None,
        after: int = 0,
    ) -> None:
        """Of those that stand after a seq. `tell`: who is to know of every charge, of the scope or not."""
        self._tell = tell
        self._log = log
        self._sealer = sealer
        self._state = state
        self._scope = scope
        self.looked_at = after
        """The seq that was reached."""
        self._topics = DENIED if scope.anew else TOPICS

    def read(self, upto: int, *, beside: bool = False) -> Iterator[list[Again]]:
        """Those in the log up to a seq, in parts; what takes their place meanwhile is left out. Blocks.

        `beside`: with others of the scope's period that count in a plan, whose rates are kept.
        """
        while self.looked_at < upto:
            rows = self._log.read(self.looked_at, READ_MAX, upto)
            if not rows:
                return
            self.looked_at = rows[-1].seq
            told = [recorded(row) for row in rows if row.topic in self._topics]
            if self._tell is not None:
                for one in told:
                    if not isinstance(one.event, UsageRejected) or one.event.reason == SUSPENDED:
                        self._tell(one)
            wanted = [one for one in told if self._is_wanted(one)]
            found = self._opened(self._still_held(wanted)) if wanted else []
            if beside:
                found += map(_kept, self._still_held([one for one in told if self._is_beside(one)]))
            if found:
                yield found

    def _is_wanted(self, told: Recorded) -> bool:
        held = held_in(told)
        if isinstance(told.event, UsageRejected) and told.event.reason != SUSPENDED:
            return False
        return held is not None and self._scope.takes(held[1], self._state.hierarchy, self._state.tariffs)

    def _is_beside(self, told: Recorded) -> bool:
        held = held_in(told)
        return (
            held is not None
            and held[1].period == self._scope.period
            and counting_of(held[1]) is not None
            and not self._is_wanted(told)
        )

    def _still_held(self, told: Sequence[Recorded]) -> list[Recorded]:
        """Without those that others were made in place of."""
        keyed = [(one, replacing_keys(one.seq, _charge(one).started_at)) for one in told]
        replaced = stored(self._log, [key for _, keys in keyed for key in keys])
        return [one for one, keys in keyed if replaced.isdisjoint(keys)]

    def at(self, seqs: Sequence[int], upto: int) -> list[Again]:
        """The charges of these events, in their order; those of the scope, up to a seq, to be rated anew."""
        stored = {one.seq: one for one in events_at(self._log, list(seqs))}
        anew = [stored[seq] for seq in seqs if stored[seq].seq <= upto and self._is_wanted(stored[seq])]
        opened = {one.seq: one for one in self._opened(anew)}
        return [opened.get(seq) or _kept(stored[seq]) for seq in seqs]

    def _opened(self, told: Sequence[Recorded]) -> list[Again]:
        """With the other party's number, where somebody can still read it."""
        first = {one.seq: one for one in told if isinstance(one.event, UsageCharged | UsageRejected)}
        missing = {held[0] for one in told if (held := held_in(one)) and held[0] not in first}
        first |= {one.seq: one for one in events_at(self._log, sorted(missing))}
        found = []
        for one in told:
            held = held_in(one)
            assert held is not None
            opened = self._open(first[held[0]])
            path, becomes = self._standing(held[1], opened)
            if isinstance(one.event, UsageRejected) and (becomes != "" or opened is None):
                continue
            number = opened.counterpart if opened is not None else None
            record = _denied(one.event, held[1], opened)
            again = Again(one.seq, held[0], held[1], number, path=path, becomes=becomes, record=record)
            found.append(again)
        return found

    def _standing(self, charge: UsageCharged, opened: Opened | None) -> Standing:
        """Where its resource stood, as the hierarchy says now; what nobody had then stays where it was."""
        if self._scope.anew:
            called = opened is not None and is_emergency(_record(charge, opened))
            token = opened.token if opened is not None else None
            return standing(self._state.hierarchy, charge, token, emergency=called)
        if not self._scope.guided:
            return AS_IT_WAS
        path = self._state.hierarchy.members[charge.path[0]].path_at(charge.started_at)
        return Standing(path if path and path != charge.path else None, None)

    def _open(self, told: Recorded) -> Opened | None:
        event, hierarchy = told.event, self._state.hierarchy
        assert isinstance(event, UsageCharged | UsageRejected)
        if told.command_key is None:
            return None
        for token in hierarchy.tokens_of(hierarchy.members[event.path[0]]):
            plain = self._sealer.open(token, event.sealed, told.command_key)
            if plain is not None:
                return Opened(token, *unpack_personal(plain))
        return None


def _denied(event: Event, charge: UsageCharged, opened: Opened | None) -> UsageRecord | None:
    """Of what was denied: the record, with all that its rate may ask for."""
    if not isinstance(event, UsageRejected) or opened is None:
        return None
    return _record(charge, opened, event.attributes)


def _record(
    charge: UsageCharged, opened: Opened, attributes: tuple[tuple[str, str], ...] = ()
) -> UsageRecord:
    about = (charge.usage_type, charge.quantity, charge.started_at, charge.direction)
    return UsageRecord(charge.source, charge.record_id, opened.line, *about, opened.counterpart, attributes)


def _kept(told: Recorded) -> Again:
    held = held_in(told)
    assert held is not None
    return Again(told.seq, *held, kept=True)


def _charge(told: Recorded) -> UsageCharged:
    held = held_in(told)
    assert held is not None
    return held[1]


def stored(log: PostgresLog, keys: Sequence[bytes]) -> set[bytes]:
    """Which of these keys the log has."""
    if not keys:
        return set()
    with reachable(), log.isolation.transaction(log.tenant, log.role) as connection:
        found = connection.execute(
            "SELECT command_key FROM events WHERE command_key = ANY(%b)", (list(keys),), binary=True
        ).fetchall()
    return {key for (key,) in found}
