"""Suspending: what mediation refused, what contradicts a record that is known, and what we failed to charge.

Each is kept sealed, under the key it came with, for a person to look at.
"""

import msgspec

from ..domain.charging import CONFLICTING, SuspendUsage
from ..domain.usage import UnreadableRecord, Usage
from ..tenants.sealing import Sealer
from .intake.rereading import kept


def pseudonymous(record: Usage, sealer: Sealer) -> Usage:
    """A record known only by a hash of its content is known by a keyed one: see `Sealer.digest`."""
    if isinstance(record, UnreadableRecord) and record.record_id.startswith("raw:"):
        return msgspec.structs.replace(record, record_id=f"raw:{sealer.token(record.record_id).hex()}")
    return record


def suspend(record: UnreadableRecord, key: bytes, sealer: Sealer) -> SuspendUsage:
    return _suspense(record, key, sealer, record.reason, record.field, record.detail)


def conflicting(record: Usage, key: bytes, sealer: Sealer) -> SuspendUsage:
    return _suspense(record, key, sealer, *CONFLICTING)


def unexpected(record: Usage, key: bytes, sealer: Sealer) -> SuspendUsage:
    detail = "it could not be charged by a mistake of ours, which is in the server's log"
    return _suspense(record, key, sealer, "internal_error", "", detail)


def _suspense(
    record: Usage, key: bytes, sealer: Sealer, reason: str, field: str, detail: str
) -> SuspendUsage:
    subject = sealer.token(f"raw:{record.source}:{record.record_id}")
    plain = kept(record) if isinstance(record, UnreadableRecord) else msgspec.json.encode(record)
    return SuspendUsage(
        record.source,
        record.record_id,
        reason,
        field,
        detail,
        getattr(record, "position", ""),
        sealer.seal(subject, plain, key),
        subject,
        getattr(record, "started_at", 0),
    )
