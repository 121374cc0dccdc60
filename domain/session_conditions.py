"""Conditions: what a network element is told beside a slice: when to ask again, and what comes after.

They stand in the event that grants the slice: whoever asks again is told the same.
"""

from typing import Literal

from msgspec import Struct

FinalAction = Literal["TERMINATE", "REDIRECT", "RESTRICT_ACCESS"]
TERMINATE: FinalAction = "TERMINATE"


class Conditions(Struct, frozen=True, array_like=True, gc=False):
    """What goes with a slice, where it is not as usual."""

    validity_seconds: int = 0
    """The slice is to be used, or asked for anew, by then; 0: while the session lives."""
    threshold: int = 0
    """Report when so much of the slice is left; 0: when nothing is."""
    holding_seconds: int = 0
    """Give the slice back when nothing was used for so long; 0: keep it."""
    action: FinalAction = TERMINATE
    """What is done when the last units are used."""
    address: str = ""
    """Where the user is sent to then."""
    filter_id: str = ""
    """What the user may still reach then."""
    switch_at: int = 0
    """When the price changes: what is used before and after is to be reported apart."""
    unit_value: tuple[int, int] | None = None
    """In a pool of money: what a unit takes out of it, exact, in micro-units."""
