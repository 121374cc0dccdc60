"""Usage types that a command may be asked about: those built in, and those that the carrier has defined."""

from collections.abc import Iterable

from ...domain.usage import MONEY, USAGE_TYPES
from ...projections.contracts import usage_types
from ...tenants.isolation import Connection
from .input import InputError


def built_in_and_own(db: Connection) -> tuple[str, ...]:
    """All of a tenant's but money."""
    return (*USAGE_TYPES, *(one.name for one in usage_types(db)))


def check_types(db: Connection, asked: Iterable[str]) -> None:
    """Refuses what is no usage type of the tenant's."""
    known = (*built_in_and_own(db), MONEY)
    for usage_type in asked:
        if usage_type not in known:
            raise InputError(f"{usage_type!r} is no usage type: use one of {', '.join(known)}")
