"""The tenant's calendar, for views that count by day: each keeps it in a table of its own.

So a view that stands elsewhere than others, or is built again, counts by what it has told itself.
"""

from zoneinfo import ZoneInfo

from ..domain.tenant import TenantOpened
from .chunk import Chunk
from .tables import Connection, Table


class CalendarTable(Table):
    """One row, from the event that opened the tenant."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {"seq": "bigint"}, {"time_zone": "text"})

    def follow(self, chunk: Chunk, db: Connection) -> ZoneInfo:
        """Keep what a chunk tells of it; the calendar at the chunk's end."""
        others = ((told.seq, told.event) for told in chunk.others)
        opened = [(seq, event.time_zone) for seq, event in others if isinstance(event, TenantOpened)]
        self.insert(db, opened)
        return chunk.kept(self.name, lambda: self.zone(db), changes=bool(opened))

    def zone(self, db: Connection) -> ZoneInfo:
        """The world's where none has been opened."""
        found = db.execute(
            f"SELECT time_zone FROM {self.name} ORDER BY seq LIMIT 1", prepare=False
        ).fetchone()
        return ZoneInfo(found[0] if found else "UTC")
