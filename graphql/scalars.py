"""Scalars: figures that GraphQL's own types cannot carry.

`Int` has 32 bits and `Float` is not exact, so quantities, money and seqs travel as strings of
digits; a time always says its zone.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NewType

import strawberry
from graphql import GraphQLError

from ..domain.contract import QUANTITY_MAX
from ..domain.tariff import MICRO

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Quantity = NewType("Quantity", int)
Money = NewType("Money", int)
Seq = NewType("Seq", int)
Moment = NewType("Moment", int)
Json = NewType("Json", dict[str, Any])

_DIGITS = re.compile(r"-?[0-9]{1,20}")


def money_text(micro_units: int) -> str:
    """Micro-units as a decimal number: 50000 is "0.050000"."""
    sign = "-" if micro_units < 0 else ""
    whole, rest = divmod(abs(micro_units), MICRO)
    return f"{sign}{whole}.{rest:06d}"


def moment_text(microseconds: int) -> str:
    moment = EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _whole(name: str, largest: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, str) or not _DIGITS.fullmatch(value) or abs(int(value)) > largest:
            raise GraphQLError(f'{name} is a string of digits such as "1000", at most {largest}')
        return int(value)

    return parse


def _parse_money(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", value):
        raise GraphQLError('Money is a string such as "12.50", with at most 6 decimals')
    whole, _, decimals = value.partition(".")
    return int(whole) * MICRO + int(decimals.ljust(6, "0"))


def _parse_moment(value: object) -> int:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise GraphQLError('DateTime is ISO 8601 with its zone, such as "2026-11-21T14:00:00Z"')
    return (moment - EPOCH) // timedelta(microseconds=1)


def _parse_json(value: object) -> dict[str, Any]:
    raise GraphQLError(f"JSON is only given in answers, never taken: {type(value).__name__}")


SCALARS: dict[object, Any] = {
    Quantity: strawberry.scalar(
        name="Quantity",
        description="A whole number in the unit of its usage type (byte, second, message), as a string.",
        serialize=str,
        parse_value=_whole("Quantity", QUANTITY_MAX),
    ),
    Money: strawberry.scalar(
        name="Money",
        description='An exact amount in the tenant\'s currency, as a decimal string: "12.345000".',
        serialize=money_text,
        parse_value=_parse_money,
    ),
    Seq: strawberry.scalar(
        name="Seq",
        description="The place of an event in the tenant's log, counted from 1, as a string.",
        serialize=str,
        parse_value=_whole("Seq", 2**62),
    ),
    Moment: strawberry.scalar(
        name="DateTime",
        description="A moment in ISO 8601, always with its zone; answers are in UTC.",
        specified_by_url=None,
        serialize=moment_text,
        parse_value=_parse_moment,
    ),
    Json: strawberry.scalar(
        name="JSON",
        description="An object whose members depend on its topic: for showing, not for deciding.",
        serialize=lambda value: value,
        parse_value=_parse_json,
    ),
}
