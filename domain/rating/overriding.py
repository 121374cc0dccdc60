"""Overriding: what one customer has agreed on, laid over a base tariff.

A row of one's own takes the place of the base's rate for the same usage type, direction, origin,
window and prefix, or of all of its zone; where the base has none, it is added. A discount lowers
the price of every rate of the base that it names and no own row has replaced, exactly. Everything else
is as in the base: a base of fifty thousand prefixes with three own rows is still those and three.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..refusals import Refused, check_text
from .language import UNITS_MAX, Band, Rate, Zone, as_amended

OVERRIDES_MAX = 10_000
HUNDREDTHS_MAX = 10_000
"""A discount of 100 per cent, in hundredths of one."""

Why = Literal["own", "discount"]


class Discount(Struct, frozen=True, array_like=True):
    """So much off the price of what the base says of a zone, or of everything of a usage type."""

    usage_type: str
    hundredths: int
    """Of a per cent: 1250 is 12.5 %."""
    zone: str = ""
    """None: every zone of the usage type that no other discount names."""
    direction: str = ""
    """None: both."""
    fees: bool = False
    """Whether connect fees are lowered too."""


class Overrides(Struct, frozen=True, array_like=True):
    """All that one customer has of its own. None of it: the base as it is."""

    rates: tuple[Rate, ...] = ()
    discounts: tuple[Discount, ...] = ()
    zones: tuple[Zone, ...] = ()
    """Of one's own, for one's own rates."""

    def __bool__(self) -> bool:
        return bool(self.rates or self.discounts or self.zones)


class RatesOverridden(Struct, frozen=True, array_like=True):
    """A version with a customer's own rates holds for usage from a moment on."""

    topic: ClassVar[str] = "tariff.rates_overridden"
    tariff: str
    version: int
    of: int
    """The version that is the base."""
    valid_from: int
    currency: str
    since: int
    """From when on they hold, over whatever is the base; later than that where the base has changed."""
    overrides: Overrides
    note: str = ""


class OverrideRates(Struct, frozen=True, array_like=True):
    """Let a customer's own rates hold from a moment on, over whatever is the base then."""

    overrides: Overrides
    valid_from: int
    note: str = ""
    supersede: bool = False
    """Whether they may hold for usage of the past, which then is to be rated again."""

    def first_form(self) -> object:
        return replace(self, overrides=as_told(self.overrides))


class Source(Struct, frozen=True):
    """Where a rate of a composed version comes from, where it is not simply the base's."""

    why: Why
    place: int
    """Which own rate, or which discount, counted from 0."""
    of: int | None
    """Which of the base's rates it is in place of; None: it was added."""


class Composed(Struct, frozen=True):
    rates: tuple[Rate, ...]
    zones: tuple[Zone, ...]
    sources: dict[int, Source]
    """By the place of the rate."""


def compose(rates: Sequence[Rate], zones: Sequence[Zone], overrides: Overrides) -> Composed:
    """A base with a customer's own rates. Those that are added go first, for they hold before a zone's."""
    by_name = {zone.name: zone for zone in (*zones, *overrides.zones)}
    replaced = _replaced(rates, overrides)
    taken = set(replaced.values())
    added = [place for place in range(len(overrides.rates)) if place not in taken]
    found: list[tuple[Rate, Source | None]] = [
        (overrides.rates[place], Source("own", place, None)) for place in added
    ]
    for of, rate in enumerate(rates):
        found.append(_laid_over(rate, of, replaced.get(of), overrides))
    return Composed(
        tuple(rate for rate, _ in found),
        tuple(by_name.values()),
        {place: source for place, (_, source) in enumerate(found) if source is not None},
    )


def as_told(overrides: Overrides) -> Overrides:
    """As they were told before rates could say more, where they say no more."""
    return replace(overrides, rates=as_amended(overrides.rates))


def _replaced(rates: Sequence[Rate], overrides: Overrides) -> dict[int, int]:
    """Which own rate takes the place of which of the base; a prefix goes before its zone."""
    by_prefix = {_key(own, own.prefix): place for place, own in enumerate(overrides.rates) if own.prefix}
    by_zone = {_key(own, own.zone): place for place, own in enumerate(overrides.rates) if not own.prefix}
    found: dict[int, int] = {}
    for of, rate in enumerate(rates):
        place = by_prefix.get(_key(rate, rate.prefix)) if rate.prefix else None
        place = by_zone.get(_key(rate, rate.zone)) if place is None else place
        if place is not None:
            found[of] = place
    return found


def _key(rate: Rate, found_by: str) -> tuple[str, ...]:
    return rate.usage_type, rate.direction, rate.origin, rate.window, found_by


def _laid_over(rate: Rate, of: int, own: int | None, overrides: Overrides) -> tuple[Rate, Source | None]:
    if own is not None:
        return replace(overrides.rates[own], prefix=rate.prefix), Source("own", own, of)
    place = _discount_of(rate, overrides.discounts)
    if place is None or rate.blocked:
        return rate, None
    return discounted(rate, overrides.discounts[place]), Source("discount", place, of)


def _discount_of(rate: Rate, discounts: Sequence[Discount]) -> int | None:
    """One for the zone goes before one for all; one for the direction before one for both."""
    fitting = [
        (not discount.zone, not discount.direction, place)
        for place, discount in enumerate(discounts)
        if discount.usage_type == rate.usage_type
        and discount.zone in ("", rate.zone)
        and discount.direction in ("", rate.direction)
    ]
    return min(fitting)[-1] if fitting else None


def discounted(rate: Rate, discount: Discount) -> Rate:
    """The same rate for less: price and bands, and the fee where the discount says so."""
    price, per = _less(rate.price, rate.per, discount.hundredths)
    bands = tuple(_band(band, discount.hundredths) for band in rate.bands)
    fee = rate.connect_fee
    if discount.fees:
        fee, one = _less(rate.connect_fee, 1, discount.hundredths)
        if one != 1:
            raise Refused(
                "bad_override", field="fees", value=fee, remedy="the fee would have more than 12 decimals"
            )
    return replace(rate, price=price, per=per, bands=bands, connect_fee=fee)


def _band(band: Band, hundredths: int) -> Band:
    price, per = _less(band.price, band.per, hundredths)
    return replace(band, price=price, per=per)


def _less(price: str, per: int, hundredths: int) -> tuple[str, int]:
    """Exactly: where a price cannot be written with twelve decimals, it is of more units."""
    exact = Decimal(price) * (HUNDREDTHS_MAX - hundredths)
    for shift in range(5):
        told = exact.scaleb(shift - 4)
        text = f"{told:f}"
        whole, _, rest = text.partition(".")
        rest = rest.rstrip("0")
        if len(rest) <= 12 and len(whole) <= 9 and per * 10**shift <= UNITS_MAX:
            return (f"{whole}.{rest}" if rest else whole), per * 10**shift
    raise Refused(
        "bad_override", field="hundredths", value=hundredths, remedy="round the price or the discount"
    )


def check_overrides(overrides: Overrides, types: Iterable[str]) -> None:
    """What can be said of them without a base; their rates are checked like any."""
    known = set(types)
    count = len(overrides.rates) + len(overrides.discounts)
    if count > OVERRIDES_MAX:
        raise Refused("bad_override", field="rates", value=count, remedy=f"at most {OVERRIDES_MAX}")
    seen: set[tuple[str, str, str]] = set()
    for place, discount in enumerate(overrides.discounts):
        for field, wrong, remedy in (
            ("usage_type", discount.usage_type not in known, f"use {', '.join(sorted(known))}"),
            ("hundredths", not 0 < discount.hundredths <= HUNDREDTHS_MAX, f"give 1 to {HUNDREDTHS_MAX}"),
            ("direction", discount.direction not in ("", "outbound", "inbound"), "outbound, inbound or none"),
        ):
            if wrong:
                value = getattr(discount, field)
                raise Refused("bad_override", field=f"discounts[{place}].{field}", value=value, remedy=remedy)
        check_text(f"discounts[{place}].zone", discount.zone, empty=True)
        key = (discount.usage_type, discount.zone, discount.direction)
        if key in seen:
            raise Refused(
                "bad_override", field=f"discounts[{place}].zone", value=discount.zone, remedy="given twice"
            )
        seen.add(key)


def check_against(rates: Sequence[Rate], zones: Sequence[Zone], overrides: Overrides) -> None:
    """Refuses own rows that name a zone which neither the base nor they themselves have."""
    known = {rate.zone for rate in rates} | {zone.name for zone in (*zones, *overrides.zones)}
    with_prefixes = {zone.name for zone in (*zones, *overrides.zones) if zone.prefixes}
    rated = {rate.usage_type for rate in rates}
    replaced = set(_replaced(rates, overrides).values())
    for place, own in enumerate(overrides.rates):
        if own.prefix or place in replaced or own.zone in with_prefixes or own.usage_type not in rated:
            continue
        # Without a prefix it would be for every number: nobody means that who misspells a zone.
        raise Refused(
            "bad_override",
            field=f"rates[{place}].zone",
            value=own.zone,
            remedy="name a zone as the base has it, with its direction, origin and window; or give a prefix",
        )
    for place, discount in enumerate(overrides.discounts):
        if discount.zone and discount.zone not in known:
            raise Refused(
                "bad_override",
                field=f"discounts[{place}].zone",
                value=discount.zone,
                remedy="name a zone of the base",
            )
