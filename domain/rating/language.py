"""The language of tariffs: what a version may say of what usage costs, as it is stored.

Every field that was not there at the beginning stands last and has a default that says nothing:
what was published once means what it meant.
"""

import re
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import astuple

MICRO = 1_000_000
DECIMALS_MAX = 6
PRICE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?")
UNITS_MAX = 10**12
"""Of `per`, increment and minimum."""

Method = Literal["half_up", "half_even", "up", "down"]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday")
DAY_MINUTES = 1_440

TIMES = ("segments", "participants")
"""Attributes of a record that may multiply what is billed."""
VALUE = "value"
"""The attribute that a percentage is of, in the tariff's currency."""


class Band(Struct, frozen=True, array_like=True):
    """What holds from a unit of a usage on: a call's price after its first three minutes."""

    starts: int
    """The first unit, counted from 0. The increments that begin from there on cost this."""
    price: str
    per: int = 1
    increment: int = 1
    minimum: int = 0
    """Of what is billed in this band, once it is entered."""


class Rate(Struct, frozen=True, array_like=True):
    """One line of a tariff. `prefix` matches the start of the counterpart; the longest wins.

    Public numbers start with "+": the prefix "+44" is the United Kingdom, "+" any public number,
    "" anything, such as an extension; or, where `zone` is a zone of the tariff with prefixes, those.
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
    origin: str = ""
    """A zone of the tariff: of the network that served the usage, or of the own line's number."""
    window: str = ""
    """A window of the tariff; "" is at any other time."""
    split: bool = False
    """Each increment costs what holds when it begins; else all of a usage what held at its start."""
    bands: tuple[Band, ...] = ()
    """After the first, which this rate's own price is."""
    minimum_charge: str = ""
    """Of a use that costs anything, before rounding; "" is none."""
    maximum_charge: str = ""
    ends: bool = False
    """At the maximum charge the session ends; else what is beyond it is free."""
    percent: str = ""
    """Of the value that the record states: added to the rest."""
    times: str = ""
    """The attribute that multiplies what is billed, one of `TIMES`."""
    blocked: bool = False
    """Nothing is offered there, whatever a shorter prefix costs."""
    plan: str = ""
    """A plan of the tariff, in which its overage counts: see `plan.py`."""
    by_reports: bool = False
    """What a session reports as used in another window costs what holds there. `split` is for seconds."""


class Priced(Protocol):
    """What has a price of so many units: a rate, a band, or a contract's price for overage."""

    @property
    def price(self) -> str: ...
    @property
    def per(self) -> int: ...


class Zone(Struct, frozen=True, array_like=True):
    """Numbers that begin alike and networks, by one name."""

    name: str
    prefixes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    """MCC-MNC: "234-15", or "234" for every network of the country."""


class Span(Struct, frozen=True, array_like=True):
    """Hours of some days by the clock on the wall. What ends before it begins ends the day after."""

    days: tuple[Day, ...] = ()
    """None: every day. A holiday is no day of the week."""
    from_minute: int = 0
    to_minute: int = DAY_MINUTES


class Window(Struct, frozen=True, array_like=True):
    """Times at which other prices hold. Of two that contain a moment the first of the tariff counts."""

    name: str
    spans: tuple[Span, ...]


RATE_FIRST = 10
"""So many fields had a rate when tariffs were first published."""
RATE_AMENDED = 21
"""So many when versions were first amended, and own rates laid over them."""


def first_rate(rate: Rate) -> tuple[object, ...]:
    """A rate as it was told before it could say more."""
    return told_first(rate, RATE_FIRST)


def as_amended(rates: tuple[Rate, ...]) -> Any:
    """Rates as they stood in amendments and own rates at first, where they say no more than then."""
    return tuple(rate if rate.by_reports else astuple(rate)[:RATE_AMENDED] for rate in rates)


def told_first(told: Struct, first: int) -> tuple[object, ...]:
    """The fields of what is told, without those after the first ones that say nothing at the end."""
    names, usual = told.__struct_fields__, told.__struct_defaults__
    count = len(names)
    while count > first and getattr(told, names[count - 1]) == usual[count - len(names) - 1]:
        count -= 1
    return tuple(getattr(told, name) for name in names[:count])
