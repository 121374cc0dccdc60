"""Telling what a rate sheet changes: as lines for people, and as one document for programs."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from ...domain.decks.comparing import KINDS, ZoneChange
from ...domain.decks.report import Moved, Report, StepReport
from ...domain.rating.language import Rate
from ..engine import moment
from ..money import money
from .output import say, table

PREFIXES_SAID_MAX = 4


def say_report(report: Report, money_moved: Sequence[Moved], currency: str) -> None:
    say(f"{report.rows:,} rows, {report.prefixes:,} prefixes.")
    if not report.steps:
        say("Nothing changes.")
    for step in report.steps:
        _say_step(step)
    for one in report.surprises:
        say(f"  line {one.line}: the sheet says {one.status}, but {one.told}")
    if money_moved:
        _say_money(money_moved, currency)


def _say_step(step: StepReport) -> None:
    counts = ", ".join(f"{step.counts[kind]:,} {kind}" for kind in KINDS if step.counts[kind])
    say(f"\nFrom {moment(step.at).isoformat()}: {counts} (prefixes)")
    say_changes(step.zones)


def say_changes(changes: Sequence[ZoneChange]) -> None:
    rows = [
        (one.kind, one.zone, _prefixes(one.prefixes), _price(one.before), _price(one.after), _percent(one))
        for one in changes
    ]
    say(table(("change", "zone", "prefixes", "before", "after", "%"), rows, right=(5,)))


def _say_money(money_moved: Sequence[Moved], currency: str) -> None:
    say("\nWhat the usage of the period would have cost:")
    rows = [
        (
            one.zone,
            f"{one.records:,}",
            money(one.amount, currency),
            _signed(Fraction(*one.difference), currency),
            "exact" if one.exact else f"about: {'; '.join(one.because)}",
        )
        for one in money_moved
    ]
    say(table(("zone", "records", "charged", "difference", ""), rows, right=(1, 2, 3)))
    total = sum((Fraction(*one.difference) for one in money_moved), Fraction(0))
    say(f"In all: {_signed(total, currency)}")


def _signed(exact: Fraction, currency: str) -> str:
    """Rounded to the micro-unit, half away from nothing."""
    rounded = int(abs(exact) + Fraction(1, 2))
    return f"{'-' if exact < 0 else '+'}{money(rounded, currency)}"


def _prefixes(prefixes: Sequence[str]) -> str:
    said = " ".join(prefixes[:PREFIXES_SAID_MAX])
    more = len(prefixes) - PREFIXES_SAID_MAX
    return f"{said} and {more:,} more" if more > 0 else said


def _price(rate: Rate | None) -> str:
    if rate is None:
        return "-"
    if rate.blocked:
        return "blocked"
    terms = (
        ""
        if rate.increment == 1 and not rate.minimum
        else f" {max(rate.minimum, rate.increment)}/{rate.increment}"
    )
    fee = "" if rate.connect_fee == "0" else f" + {rate.connect_fee}"
    return f"{rate.price}/{rate.per}{fee}{terms}"


def _percent(one: ZoneChange) -> str:
    return one.percent if one.kind in ("raised", "lowered") else ""


def report_told(report: Report, money_moved: Iterable[Moved] = ()) -> dict[str, Any]:
    """Quantities and money as strings, as the API has them."""
    return {
        "rows": report.rows,
        "prefixes": report.prefixes,
        "versions": [
            {
                "valid_from": moment(step.at).isoformat(),
                "counts": step.counts,
                "zones": [zone_told(one) for one in step.zones],
            }
            for step in report.steps
        ],
        "surprises": report.surprises,
        "money": [
            {
                "zone": one.zone,
                "records": one.records,
                "overage": str(one.overage),
                "amount": money(one.amount),
                "difference": "/".join(map(str, one.difference)),
                "exact": one.exact,
                "because": one.because,
            }
            for one in money_moved
        ],
    }


def zone_told(one: ZoneChange) -> dict[str, Any]:
    return {
        "change": one.kind,
        "zone": one.zone,
        "usage_type": one.usage_type,
        "direction": one.direction,
        "prefixes": one.prefixes,
        "before": rate_told(one.before),
        "after": rate_told(one.after),
        "percent": one.percent or None,
    }


def rate_told(rate: Rate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {
        "price": rate.price,
        "per": rate.per,
        "minimum": rate.minimum,
        "increment": rate.increment,
        "connect_fee": rate.connect_fee,
        "blocked": rate.blocked,
    }
