"""Money in words: exact, never through a float."""

from decimal import Decimal

from ..domain.rating.language import MICRO
from ..domain.usage import MONEY


def money(micro_units: int, currency: str = "") -> str:
    """Exact, with at least two decimals."""
    whole, _, decimals = f"{Decimal(micro_units) / MICRO:.6f}".partition(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')} {currency}".rstrip()


def counted_text(quantity: int, counted: str) -> str:
    """Of a limit: money as an amount, all else as a number in its type's unit."""
    return money(quantity) if counted == MONEY else str(quantity)
