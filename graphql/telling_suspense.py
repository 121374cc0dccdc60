"""Telling of suspense, and of what was received, as sentences."""

from ..domain.receiving import DuplicatesCounted, ImportBegun, ImportFinished, ReceivingEvent
from ..domain.suspense import SuspenseEvent, UsageAmended, UsageDismissed, UsageRecycled


def suspense_sentence(event: SuspenseEvent) -> str:
    record = f"Record {event.record_id} of {event.source}"
    why = f" ({event.note})" if event.note else ""
    match event:
        case UsageRecycled(outcome="suspended", detail=detail):
            return f"{record} was recycled{why} and waits on: {detail.rstrip('.?')}."
        case UsageRecycled(outcome=outcome):
            return f"{record} was recycled{why} and {outcome}."
        case UsageAmended(fields=fields):
            return f"{record} was corrected{why}: {', '.join(fields).replace('_', ' ')}."
        case UsageDismissed():
            return f"{record} was written off{why}."


def receiving_sentence(event: ReceivingEvent) -> str:
    match event:
        case ImportBegun(name=name, format=format):
            return f"The import of {name} began, in the format {format}."
        case ImportFinished(name=name, sources=sources, again=again):
            received, charged = (sum(getattr(one, of) for one in sources) for of in ("received", "charged"))
            before = ", as it had been before" if again else ""
            return f"{name} was imported{before}: {received} records, {charged} of them charged."
        case DuplicatesCounted(door=door, sources=sources):
            count = sum(count for _, count in sources)
            return f"{count} records came again by {door}, and were not charged again."
