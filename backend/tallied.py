"""Adding up stored charges natively, where it can be: from their bytes, with no object for each.

The same comes out as in `projections/tally.py`, which counts what is handed back, and all where there is no
native code or it leaves them.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ..domain.brief import Charge
from ..domain.charging import CORPORATE
from ..domain.days import Days
from ..domain.events import SCHEMA
from ..domain.usage import MONEY
from ..projections.blocks import Added, Group, Together
from ..projections.chunk import Ways
from ..projections.counted import BLOCKS, CONSUMED, LINES, Counted
from ..projections.line_kinds import number_of
from ..projections.tables import COPY_HEADER, COPY_TRAILER, Packed
from .native import using


class Stored(NamedTuple):
    """Stored charges, one after the other, and beside them their seqs, keys and times as arrays."""

    states: bytes
    seqs: bytes
    keys: bytes
    times: bytes
    """As PostgreSQL sends them."""


def counted(
    stored: Stored,
    zone: ZoneInfo,
    decode: Callable[[Sequence[bytes]], Sequence[Charge]],
    ways: Ways | None = None,
) -> tuple[Counted, bytes] | None:
    """What they come to in days of that calendar, and their rows of usage; None where Python is to do it."""
    native = using.reader()
    if native is None:
        return None
    told = native.tally(
        *stored, SCHEMA, CORPORATE, MONEY, Days(zone).around, ways.parents if ways else b"", number_of
    )
    if told is None:
        return None
    rows, used, consumed, lines, days, blocks, sources, since, rest, standing, kinds = told
    added_up = Counted(
        zone,
        _blocks(used, native.together),
        _packed(CONSUMED, consumed),
        _packed(LINES, lines),
        _blocks(days, native.together),
        _packed(BLOCKS, blocks),
        {(source, usage_type): figures for source, usage_type, *figures in sources},
        since,
        decode(rest) if rest else (),
        kinds,
        ways.shape if ways is not None and standing else None,
    )
    return added_up, COPY_HEADER + rows + COPY_TRAILER


def _blocks(told: tuple[Sequence[tuple[Group, bytes]], bytes], together: Together) -> Added:
    groups, figures = told
    return Added([(group, array("i", blocks)) for group, blocks in groups], figures, together)


def _packed(names: tuple[str, ...], told: tuple[int, Sequence[Any]]) -> Packed:
    size, columns = told
    there = ((name, column) for name, column in zip(names, columns, strict=True) if column is not None)
    return Packed(size, dict(there))
