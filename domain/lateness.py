"""Lateness: how old usage may be when it comes and still be charged unasked.

A rule of the carrier's, for one source or for all that have none of their own. What comes later is held
in suspense, with what it would cost, until somebody charges it on purpose or writes it off. It is judged
by when the record first came: what waited for another reason is not late because it waited.
"""

from typing import ClassVar

from msgspec import Struct

from .refusals import Refused, check_text
from .usage import UsageRecord

TOO_LATE = "too_late"
HOUR = 3_600_000_000
HOURS_MAX = 87_600
"""Ten years: a source with this age is as good as exempt."""
RULES_MAX = 1_000
EVERY_SOURCE = ""


class LateRuleSet(Struct, frozen=True, array_like=True):
    """From now on usage of a source that comes later than this is held, or is not any more."""

    topic: ClassVar[str] = "suspense.late_rule_set"
    source: str
    """Empty for all that have no rule of their own."""
    after_hours: int | None
    """None: the rule for all sources holds again; of all sources: nothing is held for its age."""
    note: str = ""


class SetLateRule(Struct, frozen=True, array_like=True):
    """Say from which age on late usage is held; None lifts the rule."""

    source: str = EVERY_SOURCE
    after_hours: int | None = None
    note: str = ""


class LateRules:
    """The rules in force."""

    def __init__(self) -> None:
        self.by_source: dict[str, LateRuleSet] = {}
        self.least = 0
        """Microseconds: what is no older than this is held by no rule."""

    def holds(self, record: UsageRecord, came_at: int) -> bool:
        """Whether a record that came then is held for its age."""
        if not self.by_source:
            return False
        rule = self.by_source.get(record.source) or self.by_source.get(EVERY_SOURCE)
        return rule is not None and came_at - record.started_at > _age(rule)

    def decide(self, command: SetLateRule) -> LateRuleSet:
        check_text("source", command.source, empty=True)
        check_text("note", command.note, empty=True)
        hours, known = command.after_hours, command.source in self.by_source
        if hours is None and not known:
            raise Refused("no_late_rule", source=command.source or "all sources")
        if hours is not None and not 1 <= hours <= HOURS_MAX:
            raise Refused("hours_out_of_range", hours=hours, hours_max=HOURS_MAX)
        if hours is not None and not known and len(self.by_source) >= RULES_MAX:
            raise Refused("too_many_late_rules", rules_max=RULES_MAX)
        return LateRuleSet(command.source, hours, command.note)

    def apply(self, event: LateRuleSet) -> None:
        self.by_source.pop(event.source, None)
        if event.after_hours is not None:
            self.by_source[event.source] = event
        self.least = min(map(_age, self.by_source.values()), default=0)


def _age(rule: LateRuleSet) -> int:
    assert rule.after_hours is not None, "what is in force has an age"
    return rule.after_hours * HOUR
