"""Outlets: what GraphQL needs of where notices go, bound to one tenant."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from ...graphql.context import BadAddress
from ...tenants.address_book import AddressBook, erase_addresses, open_book
from ...tenants.isolation import Connection
from ..engine import Engine
from ..notifying import matching, queue
from ..notifying.guarding import Unreachable, resolved, target_of
from ..notifying.queue import Channel, Logged, Place

R = TypeVar("R")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class TenantOutlets:
    """One request's `allotment.graphql.context.Outlets`."""

    def __init__(self, engine: Engine, tenant: UUID, in_thread: InThread, *, private: bool) -> None:
        self._engine = engine
        self._tenant = tenant
        self._in_thread = in_thread
        self._private = private
        self._book: AddressBook | None = None

    async def checked(self, url: str) -> str:
        try:
            target = target_of(url, private=self._private)
            await resolved(target, private=self._private)
        except Unreachable as error:
            raise BadAddress(error.code, str(error)) from None
        return target.origin

    async def name(self, text: str) -> bytes:
        return (await self._opened()).ref(text)

    async def secret(self, name: bytes) -> str:
        return (await self._opened()).secret(name)

    async def keep(self, address: str) -> None:
        book = await self._opened()

        def kept(db: Connection) -> None:
            book.keep(db, address)
            # Before the event that asks for it: nothing that follows is missed.
            matching.follow_from_now_on(db)

        await self._transaction(kept)

    async def forget(self, ref: bytes) -> None:
        await self._transaction(lambda db: erase_addresses(db, [ref]))

    async def deliveries(
        self, channel: str, endpoint: str, status: str | None, first: int, before: int | None
    ) -> Sequence[Logged]:
        by = cast("Channel", channel)
        return await self._transaction(lambda db: queue.logged(db, by, endpoint, status, first, before))

    async def try_at_once(self, webhook: str) -> None:
        place = Place(self._tenant, "webhook", webhook)
        await self._transaction(lambda db: queue.rest_over(db, place))

    async def _opened(self) -> AddressBook:
        if self._book is None:
            engine, tenant = self._engine, self._tenant
            self._book = await self._in_thread(lambda: open_book(engine.isolation, engine.root, tenant))
        assert self._book is not None
        return self._book

    async def _transaction(self, work: Callable[[Connection], R]) -> R:
        def done() -> R:
            with self._engine.isolation.transaction(self._tenant) as db:
                return work(db)

        result: R = await asyncio.shield(asyncio.ensure_future(self._in_thread(done)))
        return result
