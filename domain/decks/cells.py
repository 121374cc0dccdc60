"""Cells: the texts of a rate sheet as prefixes, prices, dates and increments.

What a cell does not say exactly is refused with what to do about it; nothing is guessed, for a
wrong prefix is a wrong bill.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from ..tariff import UNITS_MAX

RANGE_MAX = 10_000
"""Prefixes of one range."""
DIGITS_MAX = 18
CELLS_REMEMBERED_MAX = 10_000
"""Sheets of thousands of rows say the same few things again and again."""
_MANGLED = re.compile(r"[+]?[0-9]+(?:[.,][0-9]+)?[eE][+]?[0-9]+|[0-9]+[.,]0+")
_PARTS = re.compile(r"[,;|&\s]+")
_RANGE = re.compile(r"([+]?[0-9]+)-[+]?([0-9]+)")
_SPACED_RANGE = re.compile(r"(?<=[0-9])\s*(?:-|–|\bto\b)\s*(?=[+]?[0-9])")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?")
_INCREMENT = re.compile(r"([0-9]{1,9})(?:\s*[/+:-]\s*([0-9]{1,9}))?(?:\s*[/+:-]\s*([0-9]{1,9}))?")


class Unfit(Exception):
    """A cell that says nothing that can be used."""

    def __init__(self, field: str, value: Any, remedy: str) -> None:
        super().__init__(field, value, remedy)
        self.field = field
        self.value = str(value)[:50]
        self.remedy = remedy


def prefixes_of(text: str, country_code: str = "") -> tuple[str, ...]:
    """In international form, each once, in the order of the cell; ranges are spelt out."""
    if text.isdigit() and text.isascii() and not country_code and text[0] != "0" and len(text) <= DIGITS_MAX:
        return (f"+{text}",)
    country = _international(country_code) if country_code else ""
    read = _digits if country else _international
    found = dict.fromkeys(f"+{country}{code}" for code in _codes(text, read))
    for prefix in found:
        if len(prefix) > DIGITS_MAX + 1:
            raise Unfit("prefix", prefix, f"a prefix has at most {DIGITS_MAX} digits")
    if not found:
        raise Unfit("prefix", text, "give at least one prefix")
    return tuple(found)


def _codes(text: str, read: Callable[[str], str]) -> Iterator[str]:
    for part in _PARTS.split(_SPACED_RANGE.sub("-", text.strip().strip("'\"="))):
        if not part:
            continue
        if _MANGLED.fullmatch(part):
            raise Unfit(
                "prefix",
                part,
                "a spreadsheet has made a number of it and lost digits: give the column the format "
                "Text, take the codes from the original, and export it again",
            )
        found = _RANGE.fullmatch(part)
        if found is None:
            yield read(part)
        else:
            first, last = found.groups()
            yield from _spelt_out(part, read(first), last.removeprefix("00"))


def _international(text: str) -> str:
    """Without "+" or "00": a code of the world begins with 1 to 9."""
    digits = _digits(text.strip().strip("'\"=").removeprefix("+").removeprefix("00"))
    if digits.startswith("0"):
        raise Unfit(
            "prefix", text, "international codes, such as 44 or 0044; national ones need a country code"
        )
    return digits


def _digits(text: str) -> str:
    digits = text.strip().strip("'\"=")
    if not (digits.isascii() and digits.isdigit()):
        raise Unfit("prefix", text, "digits only, such as 44 or +4474, ranges as 4470-4479")
    return digits


def _spelt_out(part: str, first: str, last: str) -> Iterator[str]:
    """4470-4479, or short 4470-9: as many digits as the first has."""
    if len(last) < len(first):
        last = first[: -len(last)] + last
    if len(first) != len(last) or int(last) < int(first):
        raise Unfit("prefix", part, "a range goes upwards between two codes of one length: 4470-4479")
    if int(last) - int(first) >= RANGE_MAX:
        raise Unfit("prefix", part, f"a range has at most {RANGE_MAX} codes: is there a digit too few?")
    for code in range(int(first), int(last) + 1):
        yield f"{code:0{len(first)}d}"


@lru_cache(CELLS_REMEMBERED_MAX)
def price_of(field: str, text: str, decimal: str) -> str:
    """A decimal number as tariffs have it."""
    told = text.strip()
    other = "," if decimal == "." else "."
    if other in told:
        raise Unfit(
            field,
            text,
            f'the layout has decimal = "{decimal}": write 0{decimal}05 without separators between '
            "thousands, or declare the other",
        )
    told = told.replace(decimal, ".")
    told = f"0{told}" if told.startswith(".") else told
    if not _NUMBER.fullmatch(told):
        raise Unfit(field, text, f"a number such as 0{decimal}0512: no sign, currency or exponent")
    whole, point, rest = told.partition(".")
    rest = rest.rstrip("0")
    return f"{int(whole)}{point if rest else ''}{rest}"


@lru_cache(CELLS_REMEMBERED_MAX)
def increment_of(text: str) -> tuple[int, int]:
    """The minimum and the increment of "30/6"; of "0/60/60" too, where the first is a delay of nothing."""
    found = _INCREMENT.fullmatch(text.strip())
    numbers = [int(one) for one in found.groups() if one is not None] if found else []
    if len(numbers) == 3 and numbers[0] == 0:
        numbers = numbers[1:]
    if not 1 <= len(numbers) <= 2:
        raise Unfit("increment", text, "write the first and the next increment as 60/60 or 30/6")
    first, following = numbers[0], numbers[-1]
    if not (1 <= first <= UNITS_MAX and 1 <= following <= UNITS_MAX):
        raise Unfit("increment", text, "an increment is 1 or more")
    if first > following and first % following:
        raise Unfit("increment", text, f"the first increment must hold whole ones of {following}")
    if first < following:
        raise Unfit("increment", text, f"the first increment must be {following} or more")
    return first, following


@lru_cache(CELLS_REMEMBERED_MAX)
def day_of(field: str, text: str, formats: tuple[str, ...]) -> date:
    told = text.strip()
    for pattern in formats:
        try:
            # A clock behind the date is what spreadsheets add; midnight only.
            return datetime.strptime(told.removesuffix(" 00:00:00"), pattern).date()  # noqa: DTZ007
        except ValueError:
            continue
    known = ", ".join(formats)
    raise Unfit(field, text, f"a date written as {known}; declare date_formats for another")
