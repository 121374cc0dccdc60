"""The difference that rating again makes: by node, usage type and zone, in money and in units.

What is shown before a job is confirmed, and what is told of one that is done, are added up here, from
the events that were, or would be. Its digest is that of every single change.
"""

from collections.abc import Iterable
from hashlib import sha256

from msgspec import Struct, field

from .charging import UsageCharged
from .rerated import Made, UsageCorrected, UsageRerated, Was, was
from .resettled import PlanCorrected

EXAMPLES_MAX = 20


class Change(Struct):
    """Of some records: what was charged, and what is charged now."""

    records: int = 0
    was_billed: int = 0
    billed: int = 0
    was_overage: int = 0
    overage: int = 0
    was_amount: int = 0
    amount: int = 0
    corrected: int = 0
    """Of the difference: what is owed elsewhere, because the period is closed."""

    @property
    def difference(self) -> int:
        return self.amount - self.was_amount

    def add(self, before: Was, after: Was, *, closed: bool) -> None:
        self.records += 1
        self.was_billed += before.billed
        self.billed += after.billed
        self.was_overage += before.overage
        self.overage += after.overage
        self.was_amount += before.amount
        self.amount += after.amount
        if closed:
            self.corrected += after.amount - before.amount


Kind = tuple[int, str, str]
"""Node, usage type and zone; of a plan settled as a whole no type, and the plan in place of the zone."""


class Difference(Struct):
    """Of all records looked at."""

    looked_at: int = 0
    left: dict[str, int] = field(default_factory=dict)
    """Charges that stay as they are though they should not, by reason."""
    total: Change = field(default_factory=Change)
    by_kind: dict[Kind, Change] = field(default_factory=dict)
    """By the node that the resource is on now: where it is another than before, what it was charged
    there before is told of that one."""
    examples: list[UsageRerated | UsageCorrected] = field(default_factory=list)
    """Those that change most."""
    _digest: bytes = b""

    @property
    def digest(self) -> str:
        return self._digest.hex()[:32]

    def leave(self, reasons: Iterable[str]) -> None:
        for reason in reasons:
            self.left[reason] = self.left.get(reason, 0) + 1

    def add(self, events: Iterable[Made]) -> None:
        for event in events:
            if isinstance(event, UsageRerated | UsageCorrected):
                self._add(event)
            elif isinstance(event, PlanCorrected):
                self._add_plan(event)

    def add_new(self, charge: UsageCharged) -> None:
        """Of a record that was charged for nothing so far."""
        after = was(charge)
        self.total.add(NOTHING, after, closed=False)
        change = self.by_kind.setdefault((after.node, charge.usage_type, charge.zone), Change())
        change.add(NOTHING, after, closed=False)
        told = repr((charge.source, charge.record_id, after, charge.drawn))
        self._digest = sha256(self._digest + told.encode()).digest()

    def _add(self, made: UsageRerated | UsageCorrected) -> None:
        before, charge, closed = made.was, made.charge, isinstance(made, UsageCorrected)
        after = was(charge)
        self.total.add(before, after, closed=closed)
        kinds = {before.node, after.node}
        for node in kinds:
            change = self.by_kind.setdefault((node, charge.usage_type, charge.zone), Change())
            mine, other = (part if part.node == node else NOTHING for part in (before, after))
            change.add(mine, other, closed=closed)
        self._digest = sha256(
            self._digest + repr((made.first, before, after, charge.drawn)).encode()
        ).digest()
        self.examples.append(made)
        if len(self.examples) > 2 * EXAMPLES_MAX:
            self.trim()

    def _add_plan(self, made: PlanCorrected) -> None:
        for change in (self.total, self.by_kind.setdefault((made.stands_at, "", made.plan), Change())):
            change.was_amount += made.was
            change.amount += made.owed
            change.corrected += made.difference
        told = (made.of_period, made.plan, made.counted_at, made.units, made.was, made.owed)
        self._digest = sha256(self._digest + repr(told).encode()).digest()

    def trim(self) -> None:
        self.examples.sort(key=lambda one: (-abs(one.charge.amount - one.was.amount), one.first))
        del self.examples[EXAMPLES_MAX:]


NOTHING = Was(0, 0, 0, 0, -1)
