"""Usage that waits in suspense for somebody to have its line, read from the log beside the writer.

Who joined earlier than was told had lines that usage came for when nobody seemed to have them.
"""

from collections.abc import Iterator

from ..domain.charging import UsageSuspended
from ..domain.events import Recorded
from ..domain.rating_job import Scope
from ..domain.suspense import UsageAmended, waiting_id
from ..domain.tenant import Tenant
from ..domain.withdrawn import NOT_ACTIVE
from ..tenants.sealing import Sealer
from .correcting import RecycleRecord, record_told
from .log import PostgresLog, recorded

READ_MAX = 5_000
TOPICS = frozenset((UsageSuspended.topic, UsageAmended.topic))
UNKNOWN = ("unknown_line", NOT_ACTIVE)
"""Why it waits: the reasons that another holder of a line removes."""

NOTE = "who had the line was corrected"


class WaitingUsage:
    """Of the lines of a scope's resources."""

    def __init__(self, log: PostgresLog, sealer: Sealer, state: Tenant, scope: Scope) -> None:
        self._log = log
        self._sealer = sealer
        self._state = state
        self._scope = scope
        hierarchy = state.hierarchy
        self._tokens = {
            token
            for ident in (scope.resources if scope.anew else ())
            for token in hierarchy.tokens_of(hierarchy.resource(ident))
        }
        self.erased = 0
        """Records that nobody can read any more."""

    def read(self, upto: int) -> Iterator[RecycleRecord]:
        """Those that somebody can be charged for now, as they were corrected last. Blocks."""
        if not self._tokens or not self._state.suspense.waiting:
            return
        for waiting, told in self._found(upto).items():
            record = record_told(told, self._sealer)
            if record is None:
                self.erased += 1
                continue
            yield RecycleRecord(waiting, self._state.suspense.waiting[waiting], record, note=NOTE)

    def _found(self, upto: int) -> dict[bytes, Recorded]:
        found: dict[bytes, Recorded] = {}
        after = 0
        while after < upto and (rows := self._log.read(after, READ_MAX, upto)):
            after = rows[-1].seq
            for row in rows:
                if row.topic in TOPICS:
                    self._look_at(recorded(row), found)
        return {waiting: told for waiting, told in found.items() if self._is_wanted(told)}

    def _look_at(self, told: Recorded, found: dict[bytes, Recorded]) -> None:
        event = told.event
        assert isinstance(event, UsageSuspended | UsageAmended)
        waiting = event.waiting if isinstance(event, UsageAmended) else waiting_id(event)
        if waiting in self._state.suspense.waiting:
            found[waiting] = told

    def _is_wanted(self, told: Recorded) -> bool:
        event = told.event
        assert isinstance(event, UsageSuspended | UsageAmended)
        if isinstance(event, UsageSuspended) and (not event.readable or event.reason not in UNKNOWN):
            return False
        if event.subject not in self._tokens or not self._scope.spans(event.started_at):
            return False
        return bool(self._state.hierarchy.guide(event.subject, event.started_at))
