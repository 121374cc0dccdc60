"""Rates, compiled: what is billed of a usage, and what billed units cost, exactly.

Increments run from the start of the usage, and each costs what holds where it begins: so rating is
cumulative, and the parts of a usage cost what the whole does. A charge is rounded once.
"""

from collections.abc import Mapping
from copy import copy
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import ClassVar, Protocol, TypeVar

from msgspec import Struct

from .basis import Basis
from .language import DECIMALS_MAX, MICRO, Method, Priced, Rate
from .plan import CompiledPlan
from .rounding import round_to, round_up_to

EXACT_MAX = 2**63
"""Numerator and denominator of an exact amount are stored as integers of 64 bits."""

AMOUNTS_REMEMBERED_MAX = 10_000
"""Tariffs of thousands of rates have some hundred prices."""

Attributes = tuple[tuple[str, str], ...]


class Rated(Struct, frozen=True, array_like=True):
    """What a quantity costs, with its working."""

    overage: int
    """Billed units that no allowance covered."""
    amount: int
    """Micro-units, rounded once."""
    exact: tuple[int, int]
    """The same before rounding: numerator and denominator, in micro-units."""


NOTHING = Rated(0, 0, (0, 1))


class Version(Protocol):
    """What a tariff version says of all its rates."""

    @property
    def version(self) -> int: ...
    @property
    def method(self) -> Method: ...
    @property
    def decimals(self) -> int: ...


Self = TypeVar("Self", bound="CompiledRate")


class CompiledRate:
    """A rate of one price, ready to be applied with integers only."""

    plain: ClassVar[bool] = True
    """Whether it costs so much per unit and a fee, whatever else is known of the usage."""
    basis: Basis | None = None
    """What it was chosen by, where that is more than a prefix."""
    plan: CompiledPlan | None = None
    """The one that its overage counts in."""

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
        "price",
        "row",
        "step",
        "version",
        "zone",
    )

    def __init__(self, rate: Rate, index: int, published: Version) -> None:
        self.num, self.fee, self.den = _over_one(rate.price, rate.per, rate.connect_fee)
        self.increment = rate.increment
        self.minimum = rate.minimum
        self.included = rate.included
        self.index = index
        self.zone = rate.zone
        self.prefix = rate.prefix
        self.version = published.version
        self.method: Method = published.method
        self.step = 10 ** (DECIMALS_MAX - published.decimals)
        self.row = rate
        self.price: Priced | None = None
        """What a contract has agreed on in place of the tariff's price."""

    def priced(self: Self, price: Priced) -> Self:
        """The same rate with another price; its fee, increments and rounding stay."""
        other = copy(self)
        unit, fee = per_unit(price), Fraction(self.fee, self.den)
        other.den = lcm(unit.denominator, fee.denominator)
        other.num = unit.numerator * (other.den // unit.denominator)
        other.fee = fee.numerator * (other.den // fee.denominator)
        other.price = price
        return other

    def at_prefix(self: Self, prefix: str) -> Self:
        """The same, as found by one of its zone's prefixes."""
        if prefix == self.prefix:
            return self
        other = copy(self)
        other.prefix = prefix
        return other

    def again(self, prefix: str, basis: Basis | None) -> "CompiledRate":
        """As it was once applied: by what stands in the charge."""
        return self.at_prefix(prefix)

    def told(self, rated: Rated, above: int = 0, price: str = "0", per: int = 1) -> Basis | None:
        """What a charge keeps of how it was rated; `above`: units that a policy has priced."""
        return self.basis

    def billed(self, quantity: int) -> int:
        """Rounded up to the increment, at least the minimum; nothing used is nothing billed."""
        if quantity <= 0:
            return 0
        if quantity < self.minimum:
            quantity = self.minimum
        return quantity if self.increment == 1 else round_up_to(self.increment, quantity)

    def rate(self, billed: int, taken: int = 0, at: int = 0) -> Rated:
        """What billed units cost, of which an allowance covers the first `taken`; `at` is its start."""
        overage = billed - taken
        if overage <= 0:
            return NOTHING
        exact = overage * self.num + self.fee
        return Rated(overage, round_to(self.step, self.method, exact, self.den), (exact, self.den))


@lru_cache(AMOUNTS_REMEMBERED_MAX)
def _over_one(price: str, per: int, connect_fee: str) -> tuple[int, int, int]:
    """Price and fee over one denominator. Thousands of rates share some hundred of these numbers:
    what is used over and over stays at hand, however many prefixes there are."""
    unit, fee = _per_unit(price, per), money(connect_fee)
    den = lcm(unit.denominator, fee.denominator)
    return unit.numerator * (den // unit.denominator), fee.numerator * (den // fee.denominator), den


def per_unit(rate: Priced) -> Fraction:
    return _per_unit(rate.price, rate.per)


@lru_cache(AMOUNTS_REMEMBERED_MAX)
def _per_unit(price: str, per: int) -> Fraction:
    return Fraction(Decimal(price)) * MICRO / per


@lru_cache(AMOUNTS_REMEMBERED_MAX)
def money(text: str) -> Fraction:
    """Micro-units of an amount in whole units of its currency."""
    return Fraction(Decimal(text)) * MICRO


def told(attributes: Attributes | Mapping[str, str], name: str) -> str | None:
    """What a record says of an attribute."""
    return dict(attributes).get(name)
