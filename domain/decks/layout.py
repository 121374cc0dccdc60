"""Layouts: how the rate sheets of one carrier are laid out, declared in data.

Without a declaration the columns are found by the names that carriers usually give them. What a
layout does not say is not guessed: a date such as 03/04/2026 needs its pattern, a decimal comma
its declaration. `docs/decks.md` describes every key.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from ..refusals import Refused
from ..tariff import UNITS_MAX

LAYOUT_BYTES_MAX = 100_000
Names = str | tuple[str, ...]
"""A column's name, or several that it may have. Capitals and spaces do not matter."""

DESTINATION = ("destination", "destination name", "zone", "country/destination", "description", "name")
PREFIX = ("prefix", "prefixes", "code", "codes", "dial code", "dial codes", "dialcode", "area code", "digits")
PRICE_COLUMN = ("price", "rate", "new rate", "new price", "price per minute", "rate per minute", "rate/min")
STARTS = ("effective date", "effective from", "effective", "valid from", "start date", "date")
ENDS = ("end date", "valid to", "valid until", "expiry date", "expiry", "ends on")
INCREMENT = ("increment", "increments", "billing increment", "billing increments", "billing", "rounding")
STATUS = ("status", "change", "rate change", "comment", "comments", "remark")

PLAIN = ("", "unchanged", "no change", "same", "current", "effective", "active", "open", "changed", "change")
RAISED = ("increase", "increased", "raise", "raised", "up")
LOWERED = ("decrease", "decreased", "reduction", "lowered", "down")
NEW = ("new", "new destination", "new code", "new codes", "added")
BLOCKED = ("blocked", "block", "barred", "closed", "not available", "not offered")
REMOVED = ("removed", "deleted", "delete", "discontinued", "withdrawn", "end of life", "code removed")

Meaning = Literal["plain", "raised", "lowered", "new", "blocked", "removed"]


class Columns(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the facts of a row stand. A sheet must have a prefix and a price."""

    prefix: Names = PREFIX
    """One prefix or several, with ranges: "44", "0044", "447400-447409", "1-5,7"."""
    price: Names = PRICE_COLUMN
    destination: Names = DESTINATION
    country_code: Names = ("country code", "cc", "country prefix")
    """Stands before each of the row's prefixes."""
    starts_on: Names = STARTS
    ends_on: Names = ENDS
    """The last day on which the price holds."""
    increment: Names = INCREMENT
    """"60/60", "30/6": at least so many units, then so many more each time. "60" is both."""
    minimum: Names = ("minimum", "min duration", "minimum duration", "initial increment")
    connect_fee: Names = ("connect fee", "connection fee", "setup fee", "set-up fee")
    currency: Names = ("currency", "ccy")
    status: Names = STATUS


class Statuses(Struct, frozen=True, forbid_unknown_fields=True):
    """What the words of the status column mean. Any other word is a bad line."""

    plain: tuple[str, ...] = PLAIN
    raised: tuple[str, ...] = RAISED
    lowered: tuple[str, ...] = LOWERED
    new: tuple[str, ...] = NEW
    blocked: tuple[str, ...] = BLOCKED
    removed: tuple[str, ...] = REMOVED

    @property
    def meanings(self) -> dict[str, Meaning]:
        """What each word means, as words are compared."""
        kinds: tuple[Meaning, ...] = ("removed", "blocked", "new", "lowered", "raised", "plain")
        return {word: kind for kind in kinds for word in names_of(getattr(self, kind))}


class Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole declaration; the usual one has nothing to declare."""

    columns: Columns = Columns()
    separator: Literal["", ",", ";", "\t", "|"] = ""
    """Left out, it is found in the heading: comma, semicolon or tab."""
    decimal: Literal[".", ","] = "."
    date_formats: tuple[str, ...] = ("%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d", "%Y%m%d")
    """Python's patterns; the first that fits counts."""
    per: int = 60
    """Units that the price is of: a minute in seconds."""
    usage_type: str = "voice"
    direction: Literal["", "outbound", "inbound", "both"] = ""
    """Left out: both where the tariff has rates of the usage type for both, else outbound."""
    increment: str = "1/1"
    """Where the sheet has no such column, or nothing in it."""
    currency: str = ""
    """Of the sheet, where it has no such column; left out: the tariff's."""
    included: bool = True
    """Whether allowances cover it."""
    whole: bool = True
    """Whether the sheet is all there is: what it does not name is removed."""
    statuses: Statuses = Statuses()

    @property
    def of_rates(self) -> str:
        """The direction as rates have it: "" is both."""
        return "" if self.direction == "both" else self.direction


USUAL = Layout()


def parse_layout(text: bytes | str) -> Layout:
    """A layout from its declaration in TOML."""
    if len(text) > LAYOUT_BYTES_MAX:
        raise Refused(
            "bad_layout", field="layout", remedy=f"a page of text, at most {LAYOUT_BYTES_MAX} bytes"
        )
    try:
        declared = msgspec.toml.decode(text, type=Layout)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The path is the last thing msgspec says: "... - at `$.columns.price`".
        problem, _, path = str(error).partition(" - at `$.")
        raise Refused("bad_layout", field=path.rstrip("`") or "layout", remedy=problem) from None
    if not 1 <= declared.per <= UNITS_MAX:
        raise Refused("bad_layout", field="per", remedy=f"give 1 to {UNITS_MAX}")
    return declared


def names_of(names: Names) -> tuple[str, ...]:
    """Every form of `Names`, as headings are compared."""
    listed = (names,) if isinstance(names, str) else names
    return tuple(" ".join(name.lower().split()) for name in listed)
