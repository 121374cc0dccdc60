"""Corrections: letting a tenant's records leave suspense, on behalf of one request."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import UUID

from ...domain.refusals import Refused
from ...graphql.context import TryAgain
from ...projections.suspense import SuspenseFilter
from ..asking import Answer
from ..engine import Engine, normal_line
from ..intake.declaration import Format
from ..intake.formats import FormatError, parse_format, shipped_format
from ..log import LogUnavailable
from ..recycling import BulkReport, Recycling, Selection
from ..writer import Busy, Halted, Unavailable

RETRY_AFTER_MS = 1_000


class TenantCorrections:
    """One tenant's `allotment.graphql.context.Corrections`."""

    def __init__(
        self, engine: Engine, tenant: UUID, actor: str, visible: Callable[[int], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._tenant = tenant
        self._actor = actor
        self._visible = visible

    async def token_of(self, line: str) -> bytes:
        return (await self._engine.sealer(self._tenant)).token(normal_line(line, ""))

    async def amend(
        self, usage_id: bytes, changes: dict[str, Any], idempotency_key: str, note: str, *, dry: bool
    ) -> Answer:
        for name in ("line", "counterpart"):
            if name in changes:
                changes[name] = normal_line(changes[name], "")
        with _trying():
            answer = await self._recycling(idempotency_key, note, dry).amend(usage_id, changes)
        await self._visible(answer.last_seq)
        return answer

    async def bulk(
        self,
        act: Literal["recycle", "dismiss", "keep", "reread"],
        wanted: SuspenseFilter,
        usage_ids: Sequence[bytes],
        idempotency_key: str,
        note: str,
        *,
        after: int,
        most: int,
        dry: bool,
        format: str = "",
        accept_late: bool = False,
    ) -> BulkReport:
        work, selection = self._recycling(idempotency_key, note, dry), Selection(wanted, tuple(usage_ids))
        with _trying():
            if act == "reread":
                opened = (await self._engine.state(self._tenant)).opened
                zone = opened.time_zone if opened else "UTC"
                report = await work.reread(selection, _format(format), zone, after=after, most=most)
            elif act == "recycle":
                report = await work.recycle(selection, after=after, most=most, accept_late=accept_late)
            else:
                report = await getattr(work, act)(selection, after=after, most=most)
        await self._visible(report.last_seq)
        return report

    def _recycling(self, key: str, note: str, dry: bool) -> Recycling:
        return Recycling(self._engine, self._tenant, self._actor, key=f"api:{key}", note=note, dry=dry)


def _format(told: str) -> Format:
    """One of ours by its name, or a carrier's own declaration: never a path."""
    try:
        return parse_format(told.encode(), "given") if "\n" in told else shipped_format(told)
    except FormatError as error:
        raise Refused("bad_text", field="format", remedy=str(error)) from error


@contextmanager
def _trying() -> Iterator[None]:
    try:
        yield
    except Busy as busy:
        raise TryAgain("busy", str(busy), busy.retry_after_ms) from None
    except (Unavailable, LogUnavailable) as error:
        message = "the log cannot be reached: send the same again"
        raise TryAgain("unavailable", message, RETRY_AFTER_MS) from error
    except Halted as error:
        message = "the tenant takes no changes until its operator has looked"
        raise TryAgain("halted", message, RETRY_AFTER_MS) from error
