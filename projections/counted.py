"""What the plain charges of a chunk come to, as columns that go into the tables as they are.

Whoever reads charges natively makes it (`backend/tallied.py`); the rule for what it holds is `tally.py`. A
charge is in `rest` or counted here, never both: a view that counts all takes this and the tally of the rest.
"""

from collections.abc import Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ..domain.brief import Charge
from .tables import Packed
from .tally import Sums

USED = ("period", "usage_type", "ordinal", "used_own", "used", "overage", "charges", "consumed")
LINES = (
    *("period", "node", "usage_type", "direction", "zone", "tariff", "rate"),
    *("records", "quantity", "billed", "from_allowance", "overage", "amount", "credit"),
)
DAYS = ("period", "ordinal", "usage_type", "day", "used", "overage", "amount", "records", "drawn")
BLOCKS = ("period", "block", "usages")


class Counted(NamedTuple):
    """Columns of `balances`, `invoice_lines`, `consumption`, `usage_periods`, in the order of their keys."""

    zone: ZoneInfo
    used: Packed
    lines: Packed
    days: Packed
    blocks: Packed
    """Of `usage_periods`: of all charges, plain or not."""
    sources: Sums
    """By source and usage type: records and amount."""
    since: int
    """When the earliest began; far away where there is none."""
    rest: Sequence[Charge]
    """Charges that are not plain: still to be counted one by one."""
    stood: object = None
    """The shape of the hierarchy (`chunk.Ways`) in which all that buckets paid for came as it stands."""
