"""Telling of re-rating: who was charged again, and what it changed."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..domain.charging import UNCHARGED, UsageCharged
from ..domain.rating_job import RatingFinished, RatingStarted
from ..domain.rerated import RatingEvent, TakenBack, UsageCorrected, UsageRerated, UsageTakenBack
from ..domain.resettled import PlanCorrected
from .asking import Reach
from .scalars import money_text

RatedAgain = UsageRerated | UsageCorrected
_HIDDEN = ("node",)
"""An ordinal, of somebody who may be beyond reach: the charge beside it names whom the reader sees."""


def seen(event: RatingEvent, reach: Reach) -> bool:
    """Records by their path, as usage; jobs, and what was taken back for many, by who sees all."""
    if isinstance(event, PlanCorrected):
        return reach.sees(event.stands_at)
    return reach.sees_path(event.charge.path) if isinstance(event, RatedAgain) else reach.whole


def sentence(event: RatingEvent, name_of: Callable[[int], str]) -> str:
    match event:
        case RatingStarted(job, _, cause):
            return f"The job {job} began to rate charges again: {cause.replace('_', ' ')}."
        case RatingFinished(job, records, changed):
            done = "was stopped" if event.stopped else "is done"
            more = money_text(event.amount + event.corrected)
            return f"The job {job} {done}: {records} charges looked at, {changed} changed by {more}."
        case UsageTakenBack(charges=charges):
            return f"{len(charges)} charges were taken back, to be made again."
        case UsageCorrected(period=period, difference=difference):
            who, of = name_of(event.charge.path[0]), event.charge.period
            return (
                f"{money_text(difference)} is owed in {period} for usage of {who} in {of}, which is closed."
            )
        case PlanCorrected():
            return (
                f"{money_text(event.difference)} is owed in {event.period} for what {event.plan} comes to "
                f"at {name_of(event.counted_at)} in {event.of_period}, which is closed: "
                f"{money_text(event.owed)} in place of {money_text(event.was)}."
            )
        case UsageRerated(was=was, charge=charge):
            who, much = name_of(charge.path[0]), money_text(charge.amount)
            if charge.payer == UNCHARGED:
                why = charge.steering.replace("_", " ")
                return f"{who} is not charged any more: {money_text(was.amount)} was given back, {why}."
            return f"{who} was charged again: {much} in place of {money_text(was.amount)}."
    raise AssertionError(event)


def fact(value: Any, told: Callable[[UsageCharged], Mapping[str, Any]]) -> Any | None:
    """A field's value; None where it is told as any other is."""
    if isinstance(value, UsageCharged):
        return told(value)
    if isinstance(value, tuple) and value and isinstance(value[0], TakenBack):
        return [{"seq": one.seq, "first": one.first, "charge": told(one.charge)} for one in value]
    if isinstance(value, msgspec.Struct):
        return {name: part for name, part in msgspec.structs.asdict(value).items() if name not in _HIDDEN}
    return None
