"""What plans and fees of a tariff, and rates under plans, may say: each fault with path, value, remedy."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, get_args

from ..hierarchy import NODE_KINDS, RESOURCE_KINDS
from ..refusals import Refused, check_text
from .fees import Each, Fee
from .language import Rate
from .plan import PlanKind, PricePlan, Scope, Share, Tier

AMOUNT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?")
UNITS_MAX = 10**12
PLANS_MAX = 1_000
TIERS_MAX = 100
FEES_MAX = 1_000


class Fault(NamedTuple):
    wrong: bool
    field: str
    value: Any
    remedy: str


Kinds = Mapping[str, Container[str]]
KINDS: Kinds = {"node": NODE_KINDS, "resource": RESOURCE_KINDS}


def check_plans(plans: Sequence[PricePlan], decimals: int, kinds: Kinds = KINDS) -> None:
    _check_names("plans", [plan.plan for plan in plans], PLANS_MAX, "plan")
    for index, plan in enumerate(plans):
        for fault in _plan_faults(plan, decimals, kinds):
            if fault.wrong:
                _refuse(f"plans[{index}].{fault.field}", fault.value, fault.remedy)


def check_planned(rates: Sequence[Rate], plans: Sequence[PricePlan]) -> None:
    """A plan that prices units has their whole price, and units of one usage type."""
    known = {plan.plan: plan for plan in plans}
    types: dict[str, str] = {}
    for index, rate in enumerate(rates) if any(rate.plan for rate in rates) else ():
        if rate.plan and rate.plan not in known:
            _refuse(f"rates[{index}].plan", rate.plan, "the name of one of `plans`")
        if not rate.plan or known[rate.plan].kind == "spend":
            continue
        if types.setdefault(rate.plan, rate.usage_type) != rate.usage_type:
            _refuse(f"rates[{index}].plan", rate.plan, f"it counts {types[rate.plan]}: take another plan")
        for field, fault in _priced_twice(rate):
            _refuse(f"rates[{index}].{field}", fault, "the plan has the price: leave it out")


def _priced_twice(rate: Rate) -> Iterator[tuple[str, str]]:
    for place, price in enumerate((rate.price, *(band.price for band in rate.bands))):
        if Decimal(price):
            yield f"bands[{place - 1}].price" if place else "price", price
    for field in ("minimum_charge", "maximum_charge"):
        if getattr(rate, field):
            yield field, getattr(rate, field)


def check_fees(fees: Sequence[Fee], kinds: Kinds = KINDS) -> None:
    _check_names("fees", [fee.fee for fee in fees], FEES_MAX, "fee")
    for index, fee in enumerate(fees):
        known = kinds.get("resource" if fee.each == "channel" else fee.each, ())
        for fault in (
            Fault(not AMOUNT.fullmatch(fee.amount), "amount", fee.amount, 'give an amount such as "4.90"'),
            Fault(fee.each not in get_args(Each), "each", fee.each, f"use one of {_listed(Each)}"),
            Fault(fee.share not in get_args(Share), "share", fee.share, f"use one of {_listed(Share)}"),
            Fault(
                bool(fee.kind) and fee.kind not in known, "kind", fee.kind, "name a kind of what it is for"
            ),
        ):
            if fault.wrong:
                _refuse(f"fees[{index}].{fault.field}", fault.value, fault.remedy)


def _plan_faults(plan: PricePlan, decimals: int, kinds: Kinds) -> Iterator[Fault]:
    tiered, package = plan.kind in ("graduated", "volume"), plan.kind == "package"
    yield Fault(plan.kind not in get_args(PlanKind), "kind", plan.kind, f"use one of {_listed(PlanKind)}")
    yield Fault(plan.scope not in get_args(Scope), "scope", plan.scope, f"use one of {_listed(Scope)}")
    yield Fault(plan.share not in get_args(Share), "share", plan.share, f"use one of {_listed(Share)}")
    yield _kind_fault(plan, kinds)
    count = len(plan.tiers)
    yield Fault(tiered and not 1 <= count <= TIERS_MAX, "tiers", count, f"give 1 to {TIERS_MAX} tiers")
    yield Fault(not tiered and count > 0, "tiers", count, f"a {plan.kind} plan has none: leave them out")
    yield from _tier_faults(plan.tiers if tiered else ())
    yield Fault(package and not 1 <= plan.block <= UNITS_MAX, "block", plan.block, f"give 1 to {UNITS_MAX}")
    yield Fault(not 0 <= plan.free <= UNITS_MAX, "free", plan.free, f"give 0 to {UNITS_MAX}")
    yield Fault(not AMOUNT.fullmatch(plan.price), "price", plan.price, 'give a price such as "0.05"')
    for field, usual in (("free", 0), ("block", 0), ("price", "0")):
        value = getattr(plan, field)
        yield Fault(not package and value != usual, field, value, "only a package has it: leave it out")
    for field in ("cap", "minimum"):
        yield _amount_fault(field, getattr(plan, field), decimals)
    empty = plan.kind == "spend" and not plan.cap and not plan.minimum
    yield Fault(empty, "cap", plan.cap, "a spend plan has a cap, a minimum, or both")
    over = bool(plan.cap and plan.minimum) and Decimal(plan.minimum) > Decimal(plan.cap)
    yield Fault(over, "minimum", plan.minimum, "give no more than the cap")


def _kind_fault(plan: PricePlan, kinds: Kinds) -> Fault:
    kind, known = plan.of_kind, kinds.get(plan.scope, ())
    if plan.scope == "node":
        return Fault(kind not in known, "of_kind", kind, "name the kind of node that counts for itself")
    return Fault(
        bool(kind) and kind not in known, "of_kind", kind, f"leave it out, or name a kind of {plan.scope}"
    )


def _tier_faults(tiers: Sequence[Tier]) -> Iterator[Fault]:
    upto = 0
    for index, tier in enumerate(tiers):
        at, last = f"tiers[{index}]", index + 1 == len(tiers)
        yield Fault(
            not AMOUNT.fullmatch(tier.price), f"{at}.price", tier.price, 'give a price such as "0.05"'
        )
        yield Fault(not AMOUNT.fullmatch(tier.fee), f"{at}.fee", tier.fee, 'give an amount such as "5.00"')
        yield Fault(not 1 <= tier.per <= UNITS_MAX, f"{at}.per", tier.per, f"give 1 to {UNITS_MAX}")
        yield Fault(
            last and tier.upto != 0, f"{at}.upto", tier.upto, "the last tier has no end: leave it out"
        )
        rising = last or upto < tier.upto <= UNITS_MAX
        yield Fault(not rising, f"{at}.upto", tier.upto, f"give {upto + 1} to {UNITS_MAX}")
        upto = tier.upto


def _amount_fault(field: str, text: str, decimals: int) -> Fault:
    """What is charged up to it must come out even: it has no more decimals than charges have."""
    if text and not AMOUNT.fullmatch(text):
        return Fault(True, field, text, 'give an amount such as "100.00", or leave it out')
    uneven = bool(text) and (Decimal(text) * 10**decimals) % 1 != 0
    return Fault(uneven, field, text, f"give at most {decimals} decimals, as charges have")


def _check_names(field: str, names: Sequence[str], most: int, name: str) -> None:
    if len(names) > most:
        raise Refused("bad_tariff", field=field, value=len(names), remedy=f"give at most {most}")
    for index, one in enumerate(names):
        check_text(f"{field}[{index}].{name}", one)
        if names.index(one) != index:
            _refuse(f"{field}[{index}].{name}", one, "given twice")


def _refuse(field: str, value: Any, remedy: str) -> None:
    raise Refused("bad_tariff", field=field, value=str(value), remedy=remedy)


def _listed(literal: Any) -> str:
    return ", ".join(get_args(literal))
