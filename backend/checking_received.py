"""Checking what was received: the views of suspense and accuracy tell what the rules count, and add up."""

from ..domain.receiving import adds_up
from ..domain.tenant import Tenant
from ..projections.accuracy import counts_of, imports_page, totals
from ..projections.suspense import settled_totals
from ..tenants.isolation import Connection

IMPORTS_AT_ONCE = 1_000


def received_wrongly(db: Connection, state: Tenant, charges: int) -> str | None:
    """What does not hold; None where all does. `charges` is how many the log holds."""
    counts, settled = state.charging.counts, state.suspense.settled
    found = totals(db)
    told = (found["charged"], found["rejected"], found["suspended"], found["recycled"])
    counted = (charges, counts["rejected"], counts["suspended"], settled["charged"])
    if told != counted:
        return f"what was received is told as {told}, the log {counted}"
    waits = {name: count for name, count in settled_totals(db).items() if count}
    every = {"": len(state.suspense.waiting), **settled}
    if waits != {name: count for name, count in every.items() if count}:
        return f"suspense is told as {waits}, the log {every}"
    return _import_wrongly(db)


def _import_wrongly(db: Connection) -> str | None:
    before: int | None = None
    while page := imports_page(db, IMPORTS_AT_ONCE, before):
        for one in page:
            rows = one.received + one.merged + one.ignored
            if one.finished_seq and not (adds_up(counts_of(one)) and one.read == rows):
                return f"the counts of the import {one.import_id} of {one.name} do not add up"
        before = page[-1].began_seq
    return None
