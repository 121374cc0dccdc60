"""The charges of a log by when they were used, with what each adds to a plan: 50 bytes each.

Enough to count plans again in the order of use, whatever order charges came in; the charges themselves
are read again when it is their turn. Also tells which of them are not, or no more, what was expected.
"""

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence

from ..domain.charging import CORPORATE, UsageCharged
from ..domain.events import Recorded
from ..domain.planned import Counting
from ..domain.refusals import Refused
from ..domain.remaking import counted_in, counting_of
from ..domain.replanning import Positions
from .rerated_chain import held_in

COUNTED_MAX = 10_000_000
"""Charges of a tenant, or of the period that a job is about: half a gigabyte, while the job runs."""
NOWHERE = -1
"""In no plan."""


class CountedCharges:
    """Told of every charge in the order of the log, first and again; none of it is a charge twice."""

    def __init__(self, period: str = "") -> None:
        self._period = period
        self._firsts, self._seqs, self._used_at = array("q"), array("q"), array("q")
        """The event that charged a record first, by which they are sorted; the one whose charge holds."""
        self._counting, self._units, self._spent = array("i"), array("q"), array("q")
        self._names: list[Counting] = []
        self._numbers: dict[Counting, int] = {}
        self._changed, self._awaited = bytearray(), bytearray()
        self._entering: set[int] = set()
        self._from_start = False

    def __len__(self) -> int:
        return len(self._firsts)

    def tell(self, told: Recorded) -> None:
        """A charge of the log. Of one that was expected it takes note, any other is a change."""
        held = held_in(told)
        if held is None or (self._period and held[1].period != self._period):
            return
        first, charge = held
        place = self._find(first)
        if place is None:
            self._add(first, told.seq, charge)
            return
        if not self._is(place, charge):
            self._changed[place] = True
            # Where it was counted before, those after it stand elsewhere too.
            self._from_start |= self._counting[place] != self._adds(charge)[0]
            self._put(place, charge)
        self._seqs[place] = told.seq
        self._awaited[place] = False

    def expect(self, first: int, charge: UsageCharged) -> None:
        """The charge that is to take the place of the one that holds."""
        place = self._find(first)
        assert place is not None
        self._put(place, charge)
        self._awaited[place] = True

    def enter(self, first: int) -> None:
        """A charge that is in no counter, or another, and is to come into one that is counted again."""
        self._entering.add(first)

    def not_come(self) -> list[int]:
        """The events that hold of charges whose successors were expected and are not there."""
        found, place = [], self._awaited.find(1)
        while place >= 0:
            found.append(self._seqs[place])
            place = self._awaited.find(1, place + 1)
        return found

    def all_of(self, counting: Container[Counting]) -> "Run":
        """Those in some counters, and those that are to come into them, as they were used."""
        places = self._ordered(counting)
        self._forget()
        return Run([self._seqs[place] for place in places], Positions())

    def since_changed(self, counting: Container[Counting]) -> "Run":
        """The same from the first on that has changed, with where counters stood before it."""
        places = self._ordered(counting)
        changed = (at for at, place in enumerate(places) if self._changed[place])
        start = 0 if self._from_start else next(changed, len(places))
        run = Run([self._seqs[place] for place in places[start:]], Positions())
        self._pass_by(places[:start], run.positions)
        self._forget()
        return run

    def _ordered(self, counting: Container[Counting]) -> list[int]:
        numbers = {number for name, number in self._numbers.items() if name in counting}
        entering = self._entering
        places = [
            place
            for place, number in enumerate(self._counting)
            if number in numbers or (entering and self._firsts[place] in entering)
        ]
        # Of two at one moment the one that was charged first stays first.
        places.sort(key=self._used_at.__getitem__)
        return places

    def _forget(self) -> None:
        self._changed, self._from_start = bytearray(len(self)), False
        self._entering.clear()

    def _pass_by(self, places: Iterable[int], positions: Positions) -> None:
        for place in places:
            number = self._counting[place]
            if number != NOWHERE:
                positions.pass_by(self._names[number], self._units[place], self._spent[place])

    def _find(self, first: int) -> int | None:
        place = bisect_left(self._firsts, first)
        return place if place < len(self._firsts) and self._firsts[place] == first else None

    def _add(self, first: int, seq: int, charge: UsageCharged) -> None:
        """At the end, but for a record that was denied at first, and is charged since."""
        if len(self) >= COUNTED_MAX:
            raise Refused("too_many_records", count=len(self), count_max=COUNTED_MAX)
        place = bisect_left(self._firsts, first)
        self._firsts.insert(place, first)
        self._seqs.insert(place, seq)
        self._used_at.insert(place, charge.started_at)
        self._counting.insert(place, NOWHERE)
        for column in (self._units, self._spent):
            column.insert(place, 0)
        self._put(place, charge)
        self._awaited.insert(place, False)
        self._changed.insert(place, self._counting[place] != NOWHERE)

    def _put(self, place: int, charge: UsageCharged) -> None:
        self._counting[place], self._units[place], self._spent[place] = self._adds(charge)

    def _is(self, place: int, charge: UsageCharged) -> bool:
        return (self._counting[place], self._units[place], self._spent[place]) == self._adds(charge)

    def _adds(self, charge: UsageCharged) -> tuple[int, int, int]:
        """In which counter it is, and what it adds there: nothing where others pay for it."""
        counted, counting = counted_in(charge), counting_of(charge)
        if counted is None or counting is None:
            return NOWHERE, 0, 0
        number = self._numbers.get(counting)
        if number is None:
            number = self._numbers[counting] = len(self._names)
            self._names.append(counting)
        return number, *((counted.units, counted.spent) if charge.payer == CORPORATE else (0, 0))


class Run:
    """What is to be gone through: the events of charges as they were used, and where counters stand."""

    def __init__(self, seqs: Sequence[int], positions: Positions) -> None:
        self.seqs = seqs
        self.positions = positions
