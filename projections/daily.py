"""Daily: what is counted of each member by day of the tenant's calendar, in blocks of sixteen members.

The table of `consumption.py`: all figures of a day stand here and nowhere else, whoever counted them.
"""

from .blocks import Blocks

COUNTS = ("used", "overage", "amount", "records", "drawn", "moved")
CONSUMPTION = Blocks(
    "consumption_by_day",
    {"period": "text", "block": "integer", "usage_type": "text", "day": "integer"},
    COUNTS,
)


class Sums(dict[tuple[str, str, int], dict[int, list[int]]]):
    """What is still to be added: by period, usage type and day, and by ordinal."""

    def figures(self, period: str, ordinal: int, usage_type: str, day: int) -> list[int]:
        of = self.setdefault((period, usage_type, day), {})
        found = of.get(ordinal)
        if found is None:
            found = of[ordinal] = [0] * len(COUNTS)
        return found
