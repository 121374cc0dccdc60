"""Back-dated changes carried out as the product's jobs do it, on the rules alone."""

from typing import Any

from allotment.domain.charging import ChargeUsage, UsageCharged, UsageRejected, UsageSuspended
from allotment.domain.rating_job import FinishRating, RatingJob
from allotment.domain.rerated import Again, RerateCharges, UsageRerated, unsealed
from allotment.domain.suspense import RecycleUsage, waiting_id
from allotment.domain.usage import UsageRecord
from allotment.domain.withdrawn import of_rejected, standing

DE = "+4930123456"


def held(company: Any) -> dict[int, tuple[int, UsageCharged]]:
    """Every charge that holds, and what was denied, by the event it stands in."""
    found: dict[int, tuple[int, UsageCharged]] = {}
    for seq, event in enumerate(company.history, 1):
        if isinstance(event, UsageCharged):
            found[seq] = seq, unsealed(event)
        elif isinstance(event, UsageRejected) and event.reason == "suspended":
            found[seq] = seq, of_rejected(event)
        elif isinstance(event, UsageRerated):
            found.pop(event.seq)
            found[seq] = event.first, event.charge
    return found


def line_of(record_id: str) -> str:
    """In these tests a record's id begins with its line."""
    return record_id.partition("/")[0]


def use(company: Any, line: str, quantity: int, at: int, now: int, called: str = DE) -> Any:
    record = UsageRecord(
        "src", f"{line}/{len(company.history)}/{at}", line, "voice", quantity, at, "outbound", called
    )
    return company.do(ChargeUsage(record, line.encode(), b"sealed"), now)


def settle(company: Any, now: int) -> None:
    """Carry every job out, and end it."""
    for name, job in list(company.tenant.rerating.jobs.items()):
        again = changing(company, job)
        for first in range(0, len(again), 3):
            command = RerateCharges(name, tuple(again[first : first + 3]))
            if company.ask(command, now) != "nothing_to_rerate":
                company.do(command, now)
        recycle(company, job, now)
        company.do(FinishRating(name, len(again), 0), now)
        company.tenant.rerating.check_settled()


def changing(company: Any, job: RatingJob) -> list[Again]:
    hierarchy, scope = company.tenant.hierarchy, job.started.scope
    found = []
    for seq, (first, charge) in held(company).items():
        if not scope.takes(charge, hierarchy, company.tenant.tariffs):
            continue
        if scope.anew:
            path, becomes = standing(hierarchy, charge, line_of(charge.record_id).encode(), emergency=False)
        else:
            path, becomes = hierarchy.members[charge.path[0]].path_at(charge.started_at), None
        found.append(Again(seq, first, charge, DE, path=path, becomes=becomes))
    return found


def recycle(company: Any, job: RatingJob, now: int) -> None:
    scope, tenant = job.started.scope, company.tenant
    for event in list(company.history):
        if not isinstance(event, UsageSuspended) or waiting_id(event) not in tenant.suspense.waiting:
            continue
        if scope.anew and scope.spans(event.started_at):
            line = line_of(event.record_id)
            about = (event.usage_type, event.quantity, event.started_at, event.direction, DE)
            record = UsageRecord(event.source, event.record_id, line, *about)
            revision = tenant.suspense.waiting[waiting_id(event)]
            charge = ChargeUsage(record, line.encode(), b"sealed")
            if tenant.hierarchy.guide(line.encode(), event.started_at):
                company.do(RecycleUsage(waiting_id(event), revision, charge), now)
