"""Allowance in order: what each charge of a period would have got, had it been charged when it was used.

The earlier use goes first, of two at one moment the one that was charged first. A charge may take what
its buckets held when it was charged, and no later transfer, roll-over or hold needs: so where all came
in order nothing changes, and what has moved since stays moved.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from .bucket import Drawn, Family, Granted, Transferred
from .charging import CORPORATE
from .events import Recorded
from .granting import GrantChanged, ToppedUp
from .hierarchy import Path
from .ledger import Ledger
from .planned import Counter, Counting
from .rating_job import RatingStarted
from .remaking import Making, Parts
from .replanning import Positions
from .rerated import CHARGES_MAX, Again
from .rollover import RolledOver
from .session import SessionEvent
from .trading import Reserving
from .usage import MONEY

Bucket = tuple[str, int]
"""Usage type and ordinal, in the period that is put in order."""
PART_MAX = 200
"""Charges of a part, about; where they hand allowance to each other it may be more."""


class Tracks:
    """What the buckets of a period held at each event, but for usage."""

    def __init__(self, period: str) -> None:
        self._period = period
        self._steps: dict[Bucket, list[tuple[int, int]]] = {}
        """By bucket: seq, and what it held free from there on."""
        self._least: dict[Bucket, tuple[list[int], list[int]]] = {}

    def tell(self, told: Recorded, ordinals: Mapping[str, int]) -> None:
        for usage_type, period, ordinal, change in _moves(told.event, ordinals):
            if period == self._period and change:
                steps = self._steps.setdefault((usage_type, ordinal), [(0, 0)])
                steps.append((told.seq, steps[-1][1] + change))

    def least(self, bucket: Bucket, seq: int) -> int:
        """The least that it held from a seq on."""
        found = self._least.get(bucket)
        if found is None:
            steps = self._steps.get(bucket, [(0, 0)])
            lows, low = [], steps[-1][1]
            for _, held in reversed(steps):
                low = min(low, held)
                lows.append(low)
            found = self._least[bucket] = ([at for at, _ in steps], lows[::-1])
        seqs, lows = found
        return lows[bisect_left(seqs, seq) - 1]


class _InOrder(Ledger):
    """A family's buckets as they were, with what those before in order have taken."""

    def __init__(self, family: Family, tracks: Tracks) -> None:
        super().__init__(family)
        self._tracks = tracks
        self._taken: dict[int, int] = {}
        self.seq = 0

    def available(self, ordinal: int) -> int:
        held = self._tracks.least((self.family.usage_type, ordinal), self.seq)
        return held - self._taken.get(ordinal, 0)

    def take(self, path: Path, drawn: Drawn) -> None:
        for ordinal, part in drawn:
            self._taken[ordinal] = self._taken.get(ordinal, 0) + part


class Ordering(Making):
    """Makes the charges of a period one after the other, as they were used."""

    def __init__(self, of: Parts, job: RatingStarted, now: int, tracks: Tracks) -> None:
        super().__init__(of, job, now)
        self._tracks = tracks
        self._positions = Positions()
        self._stood: Counter | None = None

    def told(self, charges: Iterable[Again]) -> Iterator[Again]:
        """Those that change, each with the allowance that is its own, and its place in a plan."""
        for again in sorted(charges, key=lambda one: (one.charge.started_at, one.first)):
            found = self._ordered(again)
            if found is not None:
                yield found

    def _ordered(self, again: Again) -> Again | None:
        before = again.charge
        assert before.payer == CORPORATE or again.kept
        for key in ((before.usage_type, before.period), (MONEY, before.period)):
            ledger = self._ledger_of(*key)
            assert isinstance(ledger, _InOrder)
            ledger.seq = again.first
        self._stood = None
        rate, _ = self._rate(again)
        if again.kept:
            problem, after = self._again(again, rate, closed=False)
        else:
            self._late.add(again.seq)
            problem, after = self._again(replace(again, drawn=(), credit=()), rate, closed=False)
        if problem:
            self.left[again.seq] = problem
        settled = before if after is None else after
        self._ledger(settled).take(settled.path, settled.drawn)
        self._money(settled).take(settled.path, settled.credit)
        self._positions.pass_charge(settled)
        if after is None:
            return None
        return replace(again, drawn=after.drawn, credit=after.credit, place=self._stood)

    def _place(self, again: Again, counting: Counting) -> Counter:
        self._stood = self._positions.of(counting)
        return self._stood

    def _ledger_of(self, usage_type: str, period: str) -> Ledger:
        key = (usage_type, period)
        if key not in self._ledgers:
            self._ledgers[key] = _InOrder(self._of.families[key], self._tracks)
        return self._ledgers[key]


def parts(changing: Sequence[Again], families: Mapping[tuple[str, str], Family]) -> Iterator[list[Again]]:
    """Charges that change, cut so that what a part gives is what it takes, or is free.

    To each that wants more, the last of those that give it up are added.
    """
    waiting = {again.seq: again for again in changing}
    wants = {again.seq: _wants(again) for again in changing}
    giving: dict[Bucket, list[int]] = {}
    for again in changing:
        for bucket, want in wants[again.seq].items():
            if want < 0:
                giving.setdefault(bucket, []).append(again.seq)
    free: dict[Bucket, int] = {}
    while waiting:
        part: list[Again] = []
        following = iter(list(waiting))
        while len(part) < CHARGES_MAX:
            short = next((bucket for bucket, left in free.items() if left < 0), None)
            seq = _giver(giving.get(short, []), waiting) if short is not None else None
            if seq is None and (len(part) >= PART_MAX or (seq := next(following, None)) is None):
                break
            if seq in waiting:
                again = waiting.pop(seq)
                part.append(again)
                for bucket, want in wants[seq].items():
                    if bucket not in free:
                        free[bucket] = families[bucket[0], again.charge.period].available(bucket[1])
                    free[bucket] -= want
        # As they were used, so that of two who want what has become scarce the earlier gets it.
        yield sorted(part, key=lambda one: (one.charge.started_at, one.first))


def _giver(giving: list[int], waiting: Mapping[int, Again]) -> int | None:
    """The last of those that give up something and have not been taken."""
    while giving:
        seq = giving.pop()
        if seq in waiting:
            return seq
    return None


def _wants(again: Again) -> dict[Bucket, int]:
    """By bucket: what it takes more than it has, or less."""
    charge, wants = again.charge, dict[Bucket, int]()
    for usage_type, had, gets in (
        (charge.usage_type, charge.drawn, again.drawn or ()),
        (MONEY, charge.credit, again.credit or ()),
    ):
        for drawn, sign in ((had, -1), (gets, 1)):
            for ordinal, quantity in drawn:
                bucket = (usage_type, ordinal)
                wants[bucket] = wants.get(bucket, 0) + sign * quantity
    return wants


Move = tuple[str, str, int, int]
"""Usage type, period, ordinal, and by how much more is free there."""


def _moves(event: object, ordinals: Mapping[str, int]) -> Iterator[Move]:
    match event:
        case Granted(node, usage_type, period, quantity) | ToppedUp(node, usage_type, period, quantity):
            yield usage_type, period, ordinals[node], quantity
        case GrantChanged(node, usage_type, period):
            yield usage_type, period, ordinals[node], event.change
        case Transferred(source, target, usage_type, period, quantity):
            yield usage_type, period, ordinals[source], -quantity
            yield usage_type, period, ordinals[target], quantity
        case RolledOver(usage_type, period, into, buckets):
            for bucket in buckets:
                rolled = sum(part for _, part in bucket.rolled)
                yield usage_type, period, bucket.ordinal, -rolled - bucket.expired
                yield usage_type, into, bucket.target, rolled
        case _ if isinstance(event, SessionEvent):
            for hold, sign in ((event.before, 1), (event.held, -1)):
                for ordinal, part in hold.drawn:
                    yield event.usage_type, event.period, ordinal, sign * part
        case _ if isinstance(event, Reserving):
            for reserved, sign in ((event.freed, 1), (event.reserved, -1)):
                for one in reserved:
                    yield one.usage_type, one.period, ordinals[one.node], sign * one.quantity
