"""What the plain charges of a chunk come to, as columns that go into the tables as they are.

Whoever reads charges natively makes it (`backend/tallied.py`); the rule for what it holds is `tally.py`. A
charge is in `rest` or counted here, never both: a view that counts all takes this and the tally of the rest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ..domain.brief import Charge
from .blocks import Added
from .line_kinds import Kind
from .tables import Packed
from .tally import Sums

CONSUMED = ("period", "usage_type", "ordinal", "consumed")
LINES = ("kind", "node", "records", "quantity", "billed", "overage", "amount", "credit")
BLOCKS = ("period", "block", "usages")


class Counted(NamedTuple):
    """Blocks of `used.py` and `daily.py`; columns of the others, in the order of their keys."""

    zone: ZoneInfo
    used: Added
    consumed: Packed
    lines: Packed
    days: Added
    blocks: Packed
    """Of `usage_periods`: of all charges, plain or not."""
    sources: Sums
    """By source and usage type: records and amount."""
    since: int
    """When the earliest began; far away where there is none."""
    rest: Sequence[Charge]
    """Charges that are not plain: still to be counted one by one."""
    kinds: Mapping[int, Kind]
    """Of the lines."""
    stood: object = None
    """The shape of the hierarchy (`chunk.Ways`) in which all that buckets paid for came as it stands."""
