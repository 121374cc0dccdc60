"""Telling of suspense, and of what was received, as sentences."""

from ..domain.lateness import LateRuleSet
from ..domain.receiving import DuplicatesCounted, ImportBegun, ImportFinished, ImportRefused, ReceivingEvent
from ..domain.suspense import SuspenseEvent, UsageAmended, UsageRecycled
from ..domain.tenant import SuspenseRule
from ..domain.writing_off import DismissalRuleSet, UsageDismissalAsked, UsageDismissed, UsageKept
from .scalars import money_text


def suspense_sentence(event: SuspenseEvent) -> str:
    record = f"Record {event.record_id} of {event.source}"
    why = f" ({event.note})" if event.note else ""
    match event:
        case UsageRecycled(outcome="suspended", detail=detail):
            return f"{record} was recycled{why} and waits on: {detail.rstrip('.?')}."
        case UsageRecycled(outcome=outcome, late=late):
            return f"{record} was recycled{why} and {outcome}{', although it came late' if late else ''}."
        case UsageAmended(fields=fields):
            return f"{record} was corrected{why}: {', '.join(fields).replace('_', ' ')}."
        case UsageDismissed(asked_by=asked_by):
            return f"{record} was written off{', by two persons' if asked_by else ''}{why}."
        case UsageDismissalAsked():
            return f"{record} is to be written off{why}: that takes another person."
        case UsageKept():
            return f"{record} is not written off{why}, and waits on."


def receiving_sentence(event: ReceivingEvent) -> str:
    match event:
        case ImportBegun(name=name, format=format):
            return f"The import of {name} began, in the format {format}."
        case ImportFinished(name=name, sources=sources, again=again):
            received, charged = (sum(getattr(one, of) for one in sources) for of in ("received", "charged"))
            before = ", as it had been before" if again else ""
            return f"{name} was imported{before}: {received} records, {charged} of them charged."
        case ImportRefused(name=name, problem=problem):
            return f"{name} was refused: {problem}"
        case DuplicatesCounted(door=door, sources=sources):
            count = sum(count for _, count in sources)
            return f"{count} records came again by {door}, and were not charged again."


def rule_sentence(event: SuspenseRule) -> str:
    why = f" ({event.note})" if event.note else ""
    match event:
        case LateRuleSet(source, None):
            return f"{_of(source)} is held for its age no more by a rule of its own{why}."
        case LateRuleSet(source, hours):
            return f"{_of(source)} that comes more than {hours} hours late is held in suspense{why}."
        case DismissalRuleSet(int(above)):
            much = money_text(above)
            return (
                f"Writing off more than {much} in a day, or what has no known value, takes two persons{why}."
            )
    return f"One person may write off usage again{why}."


def _of(source: str) -> str:
    return f"Usage of {source}" if source else "Usage of all sources"
