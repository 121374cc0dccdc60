"""Notices: where the log says who is told of what.

Only pointers, one for each such event: what was said is read from the log, and folded as far as
somebody looks back. There are few of them, however long the log is.
"""

from typing import get_args

from ..domain.notice import NoticeEvent
from .chunk import Chunk
from .tables import Connection, Table

NOTICE_EVENTS = Table("notice_events", {"seq": "bigint"}, {})
TABLES = (NOTICE_EVENTS,)
VERSION = 1
_TYPES = frozenset(get_args(NoticeEvent))


def apply(chunk: Chunk, db: Connection) -> None:
    NOTICE_EVENTS.insert(db, [(told.seq,) for told in chunk.others if type(told.event) in _TYPES])


def notice_events(db: Connection, upto: int) -> list[int]:
    """Their seqs in order, up to one."""
    found = db.execute("SELECT seq FROM notice_events WHERE seq <= %s ORDER BY seq", (upto,))
    return [row[0] for row in found]
