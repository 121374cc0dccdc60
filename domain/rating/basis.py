"""Basis: what a charge was rated on beside its quantity, prefix and zone, so that it can be rated again."""

from msgspec import Struct

from .standing import Counted


class Switch(Struct, frozen=True, array_like=True, gc=False):
    """From a unit of a session on, what is not counted in seconds costs what another rate asks for it."""

    begins: int
    """The first unit, counted from 0, that was used since then."""
    at: int
    """Since when, in microseconds: as was reported."""
    tariff: int
    rate: int
    """Which rate of which version."""


class Basis(Struct, frozen=True, array_like=True, gc=False):
    """None where none of it mattered. Nothing of it is personal."""

    origin: str = ""
    """The zone of the serving network or of the own line, where the tariff asks for it."""
    window: str = ""
    """The window it began in."""
    times: int = 1
    """Segments or participants that multiplied what was billed."""
    value: str = ""
    """The value that a percentage was of, in the tariff's currency."""
    counted: Counted | None = None
    """Under a plan: where it stood, and what the charge has added to it."""
    switches: tuple[Switch, ...] = ()
    """Of a session that went on into other prices: where each began to hold, in their order."""


NO_BASIS = Basis()
