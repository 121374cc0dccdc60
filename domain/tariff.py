"""Tariffs: what a unit costs, by usage type, direction and destination prefix.

Prices are exact fractions of a micro-unit per unit; a charge is computed exactly and rounded
once, by the method and to the decimals its tariff names. Usage is rated with the version that
was valid when it happened: versions are only ever added.
"""

import re
from collections.abc import Container
from copy import copy
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import ClassVar, Literal, Protocol

from msgspec import Struct

from .refusals import Refused, check_text
from .usage import USAGE_TYPES

MICRO = 1_000_000
DECIMALS_MAX = 6
PRICE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?")
UNITS_MAX = 10**12
"""Of `per`, increment and minimum."""
EXACT_MAX = 2**63
"""Numerator and denominator of an exact amount are stored as integers of 64 bits."""
RATES_MAX = 200_000
LOOKUPS_REMEMBERED_MAX = 50_000

Method = Literal["half_up", "half_even", "up", "down"]


class Rate(Struct, frozen=True, array_like=True):
    """One line of a tariff. `prefix` matches the start of the counterpart; the longest wins.

    Public numbers start with "+": the prefix "+44" is the United Kingdom, "+" any public number,
    "" anything, such as an extension.
    """

    usage_type: str
    zone: str
    price: str
    """Of `per` units, in the tariff's currency: "0.05"."""
    per: int = 1
    prefix: str = ""
    direction: str = ""
    """"outbound", "inbound", or "" for both."""
    increment: int = 1
    minimum: int = 0
    connect_fee: str = "0"
    included: bool = True
    """Whether the allowance covers it; what is not covered costs money."""


class Priced(Protocol):
    """What has a price of so many units: a rate, or a contract's price for overage."""

    @property
    def price(self) -> str: ...
    @property
    def per(self) -> int: ...


class TariffPublished(Struct, frozen=True, array_like=True):
    """A tariff version holds for usage from a moment on."""

    topic: ClassVar[str] = "tariff.published"
    tariff: str
    version: int
    valid_from: int
    currency: str
    method: Method
    decimals: int
    rates: tuple[Rate, ...]


class PublishTariff(Struct, frozen=True, array_like=True):
    """A tariff version: usage from `valid_from` (microseconds) on is rated with it."""

    tariff: str
    valid_from: int
    currency: str
    rates: tuple[Rate, ...]
    method: Method = "half_up"
    decimals: int = 4


class Rated(Struct, frozen=True, array_like=True):
    """What a quantity costs, with its working."""

    overage: int
    """Billed units that no allowance covered."""
    amount: int
    """Micro-units, rounded once."""
    exact: tuple[int, int]
    """The same before rounding: numerator and denominator, in micro-units."""


class CompiledRate:
    """A rate, ready to be applied with integers only."""

    __slots__ = (
        "den",
        "fee",
        "included",
        "increment",
        "index",
        "method",
        "minimum",
        "num",
        "prefix",
        "step",
        "version",
        "zone",
    )

    def __init__(self, rate: Rate, index: int, published: TariffPublished) -> None:
        price = _per_unit(rate)
        fee = Fraction(Decimal(rate.connect_fee)) * MICRO
        self.den = lcm(price.denominator, fee.denominator)
        self.num = price.numerator * (self.den // price.denominator)
        self.fee = fee.numerator * (self.den // fee.denominator)
        self.increment = rate.increment
        self.minimum = rate.minimum
        self.included = rate.included
        self.index = index
        self.zone = rate.zone
        self.prefix = rate.prefix
        self.version = published.version
        self.method: Method = published.method
        self.step = 10 ** (DECIMALS_MAX - published.decimals)

    def priced(self, price: Priced) -> "CompiledRate":
        """The same rate with another price; its fee, increments and rounding stay."""
        other = copy(self)
        unit, fee = _per_unit(price), Fraction(self.fee, self.den)
        other.den = lcm(unit.denominator, fee.denominator)
        other.num = unit.numerator * (other.den // unit.denominator)
        other.fee = fee.numerator * (other.den // fee.denominator)
        return other

    def billed(self, quantity: int) -> int:
        """Rounded up to the increment, at least the minimum; nothing used is nothing billed."""
        if quantity <= 0:
            return 0
        if quantity < self.minimum:
            quantity = self.minimum
        return quantity if self.increment == 1 else round_up_to(self.increment, quantity)

    def rate(self, overage: int) -> Rated:
        """What so many billed units cost that no allowance covered."""
        if overage <= 0:
            return NOTHING
        exact = overage * self.num + self.fee
        return Rated(overage, round_to(self.step, self.method, exact, self.den), (exact, self.den))


NOTHING = Rated(0, 0, (0, 1))


class Deck:
    """The rates of one usage type and direction, by prefix."""

    __slots__ = ("_longest", "_prefixes", "_remembered")

    def __init__(self) -> None:
        self._prefixes: dict[str, CompiledRate] = {}
        self._longest = 0
        self._remembered: dict[str, CompiledRate | None] = {}

    def enter(self, rate: CompiledRate) -> None:
        """Of two rates with one prefix, the first entered holds."""
        self._prefixes.setdefault(rate.prefix, rate)
        self._longest = max(self._longest, len(rate.prefix))

    def find(self, counterpart: str) -> CompiledRate | None:
        """The rate of the longest prefix that the counterpart starts with."""
        start = counterpart[: self._longest]
        try:
            return self._remembered[start]
        except KeyError:
            if len(self._remembered) >= LOOKUPS_REMEMBERED_MAX:
                self._remembered.clear()
            found = self._remembered[start] = self._search(start)
            return found

    def _search(self, start: str) -> CompiledRate | None:
        for length in range(len(start), -1, -1):
            found = self._prefixes.get(start[:length])
            if found is not None:
                return found
        return None


class Tariff:
    """One version, compiled."""

    def __init__(self, published: TariffPublished) -> None:
        self.published = published
        self.rates = [CompiledRate(rate, index, published) for index, rate in enumerate(published.rates)]
        self.decks: dict[tuple[str, str], Deck] = {}
        """By usage type and direction."""
        by_direction = sorted(
            zip(published.rates, self.rates, strict=True), key=lambda pair: not pair[0].direction
        )
        # A rate for one direction goes before one for both.
        for rate, compiled in by_direction:
            for direction in [rate.direction] if rate.direction else ["outbound", "inbound"]:
                self.decks.setdefault((rate.usage_type, direction), Deck()).enter(compiled)

    def find(self, usage_type: str, direction: str, counterpart: str) -> CompiledRate | None:
        """The rate of the longest prefix that the counterpart starts with."""
        deck = self.decks.get((usage_type, direction))
        return deck.find(counterpart) if deck is not None else None


class Tariffs:
    """All versions, by the moment each begins to hold."""

    def __init__(self) -> None:
        self.versions: list[Tariff] = []
        self._newest_first: list[Tariff] = []

    def at(self, at: int) -> Tariff | None:
        for tariff in self._newest_first:
            if tariff.published.valid_from <= at:
                return tariff
        return None

    def next_after(self, at: int) -> int | None:
        """When another version begins to hold."""
        return min(
            (t.published.valid_from for t in self.versions if t.published.valid_from > at), default=None
        )

    def decide(
        self, command: PublishTariff, currency: str, types: Container[str] = USAGE_TYPES
    ) -> list[TariffPublished]:
        check_tariff(command, types)
        if command.currency != currency:
            raise Refused("wrong_currency", currency=command.currency, expected=currency)
        version = len(self.versions) + 1
        return [
            TariffPublished(
                command.tariff,
                version,
                command.valid_from,
                command.currency,
                command.method,
                command.decimals,
                command.rates,
            )
        ]

    def apply(self, event: TariffPublished) -> None:
        self.versions.append(Tariff(event))
        # A later version that begins at the same moment replaces the earlier one.
        self._newest_first = sorted(
            self.versions, key=lambda tariff: (-tariff.published.valid_from, -tariff.published.version)
        )


def check_tariff(command: PublishTariff, types: Container[str] = USAGE_TYPES) -> None:
    """Refuses what cannot be rated with, naming the rate and the field."""
    check_text("tariff", command.tariff)
    if not 0 <= command.decimals <= DECIMALS_MAX:
        raise Refused("bad_tariff", field="decimals", value=command.decimals, between=[0, DECIMALS_MAX])
    if not 1 <= len(command.rates) <= RATES_MAX:
        raise Refused("bad_tariff", field="rates", count=len(command.rates), count_max=RATES_MAX)
    seen: set[tuple[str, str, str]] = set()
    for index, rate in enumerate(command.rates):
        check_text(f"rates[{index}].zone", rate.zone)
        check_text(f"rates[{index}].prefix", rate.prefix, empty=True)
        for field, wrong in _faults(rate, types):
            if wrong:
                raise Refused("bad_tariff", field=f"rates[{index}].{field}", value=str(getattr(rate, field)))
        key = (rate.usage_type, rate.direction, rate.prefix)
        if key in seen:
            raise Refused(
                "bad_tariff", field=f"rates[{index}].prefix", value=rate.prefix, remedy="given twice"
            )
        seen.add(key)


def _faults(rate: Rate, types: Container[str]) -> list[tuple[str, bool]]:
    return [
        ("usage_type", rate.usage_type not in types),
        ("price", not PRICE.fullmatch(rate.price)),
        ("connect_fee", not PRICE.fullmatch(rate.connect_fee)),
        ("per", not 1 <= rate.per <= UNITS_MAX),
        ("increment", not 1 <= rate.increment <= UNITS_MAX),
        ("minimum", not 0 <= rate.minimum <= UNITS_MAX),
        ("direction", rate.direction not in ("", "outbound", "inbound")),
    ]


def _per_unit(rate: Priced) -> Fraction:
    return Fraction(Decimal(rate.price)) * MICRO / rate.per


def round_up_to(increment: int, quantity: int) -> int:
    return -(-quantity // increment) * increment


def round_to(step: int, method: Method, numerator: int, denominator: int) -> int:
    """The multiple of `step` nearest to a fraction that is not negative, by the named method."""
    whole, rest = divmod(numerator, denominator * step)
    if rest:
        over_half = 2 * rest - denominator * step
        whole += _goes_up(method, over_half, whole)
    return whole * step


def _goes_up(method: Method, over_half: int, whole: int) -> bool:
    match method:
        case "up":
            return True
        case "down":
            return False
        case "half_up":
            return over_half >= 0
        case "half_even":
            return over_half > 0 or (over_half == 0 and whole % 2 == 1)
