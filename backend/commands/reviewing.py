"""`allotment review`: how a node stands, how fast it goes, who uses it, and what came before."""

from typing import Any

import msgspec
import rich_click as click

from ...domain.burning import Rate
from ...projections.consumers import Ranking
from ...projections.consumption import TooManyRecords
from ...projections.in_force import agreed_in
from ...projections.members import tree
from ...projections.reviews import PREVIOUS_MAX, TOP_MAX, Asked, Foresight, Review, review_of
from ...tenants.onboarding import find_tenant
from ..engine import moment, wall_clock
from ..following import catch_up, position
from ..running import running
from .input import InputError
from .options import JSON, TENANT
from .output import amount, say, settings_for_command, table, tell_json
from .usage_types import check_types

BAR = 40


@click.command()
@TENANT
@click.option("--node", "-n", help="Id of a node or resource; else the whole enterprise.")
@click.option("--type", "usage_type", default="data", show_default=True, help="Of usage, or money.")
@click.option("--period", help='Such as "2026-11"; else the one that is running.')
@click.option("--top", type=click.IntRange(0, TOP_MAX), default=5, show_default=True, help="Consumers told.")
@click.option(
    "--previous", type=click.IntRange(0, PREVIOUS_MAX), default=3, show_default=True, help="Periods before."
)
@JSON
def review(
    slug: str, node: str | None, usage_type: str, period: str | None, top: int, previous: int, as_json: bool
) -> None:
    """Show how a node stands: burn-down, projected exhaustion, top consumers, earlier periods.

    \b
    allotment review --tenant acme --node emea
    allotment review --tenant acme --node emea --type voice --period 2026-10 --json
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        now = wall_clock()
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            check_types(db, [usage_type])
            seq = position(db)
            agreed = agreed_in(db)
            wanted = period or agreed.name_at(now)
            bounds = agreed.shown(wanted)
            ident = node or next((root.id for root in tree(db, None, 0)), "")
            try:
                found = review_of(db, Asked(ident, usage_type, wanted, bounds, now, top, previous))
            except TooManyRecords:
                raise InputError(f"{ident} has too many records in a period to count its days now.") from None
    if found is None:
        raise InputError(f"{entry.slug} has no node or resource {ident!r}.")
    if as_json:
        tell_json({"tenant": entry.slug, "seq": seq, **review_told(found)})
    else:
        _say_review(found, entry.currency)


def review_told(found: Review) -> dict[str, Any]:
    """Quantities as strings, as the API has them."""
    about, below = found.member, found.balance.subtree
    return {
        "id": about.id,
        "name": about.name or about.id,
        "kind": about.kind,
        "usageType": found.usage_type,
        "period": found.period,
        "startsAt": moment(found.starts_at).isoformat(),
        "endsAt": moment(found.ends_at).isoformat(),
        "daysInPeriod": found.days_in_period,
        "completeDays": found.complete_days,
        "completeDaysUsed": str(found.complete_days_used),
        "held": str(below.own),
        "remaining": str(below.remaining),
        "reserved": str(below.reserved),
        "available": str(below.available),
        "used": str(found.balance.used),
        "overage": str(found.balance.overage),
        "days": [
            {name: value if name == "date" else str(value) for name, value in _fields(day).items()}
            for day in found.days
        ],
        "burnRates": [_rate_told(rate) for rate in found.rates],
        "projections": [_foresight_told(one) for one in found.foresights],
        "exhaustedOn": found.exhausted_on,
        "topChildren": _ranking_told(found.children),
        "topResources": _ranking_told(found.resources),
        "previous": [
            {
                "period": one.period,
                "sameDays": str(one.same_days),
                "difference": str(one.difference),
                "whole": str(one.whole),
            }
            for one in found.previous
        ],
    }


def _fields(of: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(of)


def _rate_told(rate: Rate) -> dict[str, str]:
    return {
        "basis": rate.basis,
        "quantity": str(rate.quantity),
        "since": moment(rate.since).isoformat(),
        "until": moment(rate.until).isoformat(),
        "perDay": str(rate.per_day),
    }


def _foresight_told(one: Foresight) -> dict[str, Any]:
    return {
        "of": one.of,
        "status": one.outlook.status,
        "left": str(one.outlook.left),
        "exhaustedOn": one.date,
        "working": one.working,
        "rate": _rate_told(one.outlook.rate),
    }


def _ranking_told(ranking: Ranking) -> dict[str, Any]:
    return {
        "count": ranking.count,
        "consumers": [
            {"id": one.id, "name": one.name or one.id, "used": str(one.used), "share": one.share}
            for one in ranking.consumers
        ],
        "others": str(ranking.others),
        "othersShare": ranking.others_share,
        "rest": str(ranking.rest),
        "restShare": ranking.rest_share,
    }


def _say_review(found: Review, currency: str) -> None:
    kind, below = found.usage_type, found.balance.subtree

    def said(quantity: int) -> str:
        return amount(quantity, kind, currency)

    say(
        f"{found.member.name or found.member.id}, {kind}, {found.period}, day {len(found.days)} of"
        f" {found.days_in_period}: {said(found.balance.used)} used, {said(below.remaining)} of"
        f" {said(below.own)} left"
    )
    for one in found.foresights:
        say(f"  {one.of} by {one.outlook.rate.basis.replace('_', ' ')}: {_sentence(one, said)}")
    _say_days(found, said)
    for title, ranking in (("nodes below", found.children), ("resources", found.resources)):
        if ranking.consumers:
            rows = [(one.name or one.id, said(one.used), percent(one.share)) for one in ranking.consumers]
            if ranking.others:
                rows.append(("others", said(ranking.others), percent(ranking.others_share)))
            if ranking.rest:
                rows.append(("none of them", said(ranking.rest), percent(ranking.rest_share)))
            say("\n" + table((title, "used", "share"), rows, right=(1, 2)))
    if found.previous:
        compared = [
            (one.period, said(one.same_days), said(one.difference), said(one.whole)) for one in found.previous
        ]
        head = ("before", f"first {found.complete_days} days", "now, less that", "whole")
        say("\n" + table(head, compared, right=(1, 2, 3)))


def _sentence(one: Foresight, said: Any) -> str:
    per_day = f"{said(one.outlook.rate.per_day)} a day"
    return {
        "runs_out": f"{said(one.outlook.left)} left, {per_day}: gone on {one.date}",
        "lasts": f"{said(one.outlook.left)} left, {per_day}: it lasts",
        "unused": f"{said(one.outlook.left)} left, nothing is used: it lasts",
        "exhausted": f"nothing left since {one.date}" if one.date else "nothing left",
        "ended": f"ended with {said(one.outlook.left)} left",
    }[one.outlook.status]


def _say_days(found: Review, said: Any) -> None:
    """The burn-down as bars of what remains."""
    most = max((day.remaining for day in found.days), default=0)
    rows = [
        (
            day.date,
            said(day.used),
            said(day.remaining),
            "#" * (max(0, day.remaining) * BAR // most if most > 0 else 0),
        )
        for day in found.days
    ]
    if rows:
        say("\n" + table(("day", "used", "left at its end", ""), rows, right=(1, 2)))


def percent(share: int) -> str:
    return f"{share // 100}.{share % 100:02d} %"
