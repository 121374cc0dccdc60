"""Writing off: what one person may write off alone, and what takes two.

The rule names an amount for each person and day. What goes beyond it, with what the person has written
off alone that day, and whatever nobody can value, waits until another person writes it off as well: many
small records are no way around it. Whatever else happens to the record ends the request.
"""

from typing import ClassVar

from msgspec import Struct

from .approval import person_of
from .contract import QUANTITY_MAX, Contracts
from .days import day_of
from .refusals import InvariantBroken, Refused, check_text


class DismissalRuleSet(Struct, frozen=True, array_like=True):
    """From now on writing off more than this in a day takes two persons, or it takes one again."""

    topic: ClassVar[str] = "suspense.dismissal_rule_set"
    above: int | None
    """Money that a person may write off alone in a day of the tenant's calendar; None lifts the rule."""
    note: str = ""


class UsageDismissed(Struct, frozen=True, array_like=True, gc=False):
    """A record that waited was written off: nobody will be charged for it."""

    topic: ClassVar[str] = "usage.dismissed"
    waiting: bytes
    source: str
    record_id: str
    note: str
    value: int | None = None
    """What it would have cost, where this could be told."""
    asked_by: str = ""
    """Who had asked for it, where it took two: the actor, as the envelope has it."""
    by: str = ""
    """Who wrote it off alone, where a rule bounds that; then `at` is when."""
    at: int = 0


class UsageDismissalAsked(Struct, frozen=True, array_like=True, gc=False):
    """Somebody wants to write a record off; it waits on, until another person does so as well."""

    topic: ClassVar[str] = "usage.dismissal_asked"
    waiting: bytes
    source: str
    record_id: str
    value: int | None
    asked_by: str
    """The actor, as the envelope has it."""
    note: str


class UsageKept(Struct, frozen=True, array_like=True, gc=False):
    """A record that somebody wanted to write off stays: the request was declined, or withdrawn."""

    topic: ClassVar[str] = "usage.kept"
    waiting: bytes
    source: str
    record_id: str
    note: str


class SetDismissalRule(Struct, frozen=True, array_like=True):
    """Say how much a person may write off alone in a day; None lifts the rule."""

    above: int | None = None
    note: str = ""


class DismissUsage(Struct, frozen=True, gc=False):
    """Write a record off that waits: alone, as the one who asks for it, or as the second person."""

    waiting: bytes
    revision: int
    source: str
    record_id: str
    note: str
    value: int | None = None
    """What it would cost, as it is known of this revision."""

    def first_form(self) -> dict[str, object]:
        """What was asked, without what is only known on the way in."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "value"}


class KeepUsage(Struct, frozen=True, gc=False):
    """Keep a record that somebody wants to write off."""

    waiting: bytes
    revision: int
    source: str
    record_id: str
    note: str


class WritingOff:
    """Who has asked to write off what, and how much each person wrote off alone."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self.rule: DismissalRuleSet | None = None
        self.asked: dict[bytes, str] = {}
        """Record -> who asked."""
        self.alone: dict[str, tuple[int, int]] = {}
        """Person -> the last day on which, and how much on that day."""

    # --- decided ------------------------------------------------------------------------------

    def rule_set(self, command: SetDismissalRule) -> DismissalRuleSet:
        check_text("note", command.note, empty=True)
        if command.above is None and self.rule is None:
            raise Refused("no_dismissal_rule")
        if command.above is not None and not 0 <= command.above <= QUANTITY_MAX:
            raise Refused("quantity_out_of_range", quantity=command.above, quantity_max=QUANTITY_MAX)
        return DismissalRuleSet(command.above, command.note)

    def dismissed(self, command: DismissUsage, by: str, now: int) -> UsageDismissed | UsageDismissalAsked:
        about = (command.waiting, command.source, command.record_id)
        asked_by = self.asked.get(command.waiting, "")
        if asked_by and person_of(asked_by) != person_of(by):
            return UsageDismissed(*about, command.note, command.value, asked_by)
        if self.rule is None:
            return UsageDismissed(*about, command.note, command.value)
        if command.value is not None and self._may_alone(command.value, by, now):
            return UsageDismissed(*about, command.note, command.value, "", by, now)
        if asked_by:
            raise Refused("dismissal_asked", record=command.record_id)
        return UsageDismissalAsked(*about, command.value, by, command.note)

    def kept(self, command: KeepUsage) -> UsageKept:
        if command.waiting not in self.asked:
            raise Refused("dismissal_not_asked", record=command.record_id)
        return UsageKept(command.waiting, command.source, command.record_id, command.note)

    def _may_alone(self, value: int, by: str, now: int) -> bool:
        assert self.rule is not None
        assert self.rule.above is not None, "a rule that was lifted is none"
        day, sum_of_day = self.alone.get(person_of(by), (0, 0))
        before = sum_of_day if day == day_of(now, self._contracts.zone) else 0
        return before + value <= self.rule.above

    # --- applied ------------------------------------------------------------------------------

    def apply(self, event: DismissalRuleSet | UsageDismissalAsked | UsageKept | UsageDismissed) -> None:
        match event:
            case DismissalRuleSet(above):
                self.rule = event if above is not None else None
            case UsageDismissalAsked(waiting, asked_by=asked_by):
                self.asked[waiting] = asked_by
            case UsageKept(waiting):
                self.forget(waiting)
            case UsageDismissed(waiting, value=value, by=by, at=at):
                self.forget(waiting)
                if by:
                    self._count(person_of(by), value or 0, day_of(at, self._contracts.zone))

    def _count(self, person: str, value: int, day: int) -> None:
        last, sum_of_day = self.alone.get(person, (day, 0))
        self.alone[person] = (day, value + (sum_of_day if day == last else 0))

    def forget(self, waiting: bytes) -> None:
        """Something else has happened to the record."""
        self.asked.pop(waiting, None)

    def check_whole(self, waiting: dict[bytes, int]) -> None:
        if not self.asked.keys() <= waiting.keys():
            raise InvariantBroken("what somebody wants to write off waits", asked=len(self.asked))
