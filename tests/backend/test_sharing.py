"""Workers that share tenants: one serves each, all lead there; nothing is lost or done twice on the way."""

import asyncio
import json
import threading
from collections import Counter
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from fellow_workers import QUICK, Workers, go_on, stand_still
from fixtures_loop import in_a_loop
from fixtures_workers import DEFINITION, charged_ids
from fixtures_writer import NOON, call, in_time, statuses, unreadable
from msgspec.structs import replace
from patience import until_there

from allotment.backend.following import catch_up
from allotment.backend.placement import Placement
from allotment.backend.recycling import Recycling, Selection
from allotment.backend.sharing import ROUTE_SECONDS_MAX
from allotment.backend.verifying import verify
from allotment.backend.wire import pack
from allotment.backend.writer import Busy, Halted, Moved, Unavailable
from allotment.domain.bucket import Allocate
from allotment.domain.limit import SetLimit
from allotment.domain.rating.language import Rate
from allotment.domain.refusals import Refused
from allotment.domain.tariff import PublishTariff
from allotment.projections.suspense import waiting_page
from allotment.tenants.onboarding import parse_definition


@pytest.fixture
def workers(isolation, servers):
    return Workers(isolation, servers.nats_url)


def serving(engine, tenant):
    return engine.sharing.holds(tenant) and tenant in engine.open_writers()


@in_a_loop
async def test_whoever_is_asked_the_worker_of_the_tenant_answers(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenants = [await workers.tenant(one) for _ in range(6)]
        for tenant in tenants:
            for engine, number in ((one, 1), (other, 2), (one, 3), (other, 1)):
                outcomes = await in_time(engine.charge(tenant, [call(number), unreadable(f"x{number}")], "m"))
                assert statuses(outcomes) == (
                    ["duplicate"] * 2 if (engine, number) == (other, 1) else ["charged", "suspended"]
                )
        assert [serving(one, tenant) + serving(other, tenant) for tenant in tenants] == [1] * 6
        assert one.sharing.forwarded
        assert other.sharing.answered
    for tenant in tenants:
        assert verify(workers.isolation, tenant).ok


@in_a_loop
async def test_what_waits_is_corrected_and_recycled_through_any_worker(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        await in_time(one.charge(tenant, [call(1, line="+49301"), call(2, line="+49301")], "m"))
        for number, engine in enumerate((one, other)):
            catch_up(workers.isolation, tenant)
            with workers.isolation.transaction(tenant) as db:
                waits = waiting_page(db, 1)[0]
            work = Recycling(engine, tenant, "carrier:test", key=f"{number}", note="a slip")
            await in_time(work.amend(waits.usage_id, {"line": call(1).line}))
            catch_up(workers.isolation, tenant)
            report = await in_time(work.recycle(Selection(usage_ids=(waits.usage_id,))))
            assert (report.charged, report.problems) == (1, [])
    assert verify(workers.isolation, tenant).ok


@in_a_loop
async def test_what_is_refused_elsewhere_is_refused_here_with_its_facts(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        for number, engine in enumerate((one, other)):
            with pytest.raises(Refused) as refused:
                await in_time(
                    engine.submit(tenant, Allocate("acme", "emea", "voice", "", 10**9), f"k{number}", "m")
                )
            assert refused.value.code == "insufficient_allowance"
            assert refused.value.facts["node"] == "acme"
            assert refused.value.facts["available"] == 10_000_000
            limit = SetLimit("emea", "voice", 500, (50, 100))
            first = await in_time(engine.submit(tenant, limit, "limit", "m"))
            assert (first.repeated, first.events[0].thresholds) == (bool(number), (50, 100))


@in_a_loop
async def test_a_batch_larger_than_a_message_is_charged_in_order(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        attributes = tuple((f"a{i}", "x" * 190) for i in range(30))
        records = [call(number, attributes=attributes) for number in range(400)]
        positions = [f"calls:{number}" for number in range(400)]
        for engine in (one, other):
            outcomes = await in_time(engine.charge(tenant, records, "m", positions))
            assert [outcome.seq for outcome in outcomes] == sorted(outcome.seq for outcome in outcomes)
            assert len(set(statuses(outcomes))) == 1
        assert verify(workers.isolation, tenant).ok


def sheet(count=4_500):
    """Rates of more than a megabyte."""
    prices = [f"0.{n % 97 + 1:02d}" for n in range(count)]
    return tuple(
        Rate("voice", f"destination {n} ".ljust(200, "-"), price, 60, f"+{n + 1_000_000}")
        for n, price in enumerate(prices)
    )


@in_a_loop
async def test_a_sheet_larger_than_a_message_is_published_through_any_worker(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        await in_time(one.charge(tenant, [call(1)], "m"))
        server, asker = (one, other) if serving(one, tenant) else (other, one)
        currency = (await in_time(asker.state(tenant))).opened.currency
        publish = PublishTariff("large", NOON, currency, sheet())
        assert len(pack(publish)) > 1_048_576
        tried = await in_time(asker.submit(tenant, publish, "sheet", "m", dry=True))
        assert (tried.dry, tried.events[0].rates) == (True, publish.rates)
        first = await in_time(asker.submit(tenant, publish, "sheet", "m"))
        again = await in_time(asker.submit(tenant, publish, "sheet", "m"))
        assert (first.events[0].rates, again.repeated, again.first_seq) == (
            publish.rates,
            True,
            first.first_seq,
        )
        refused = replace(publish, currency="XXX")
        with pytest.raises(Refused, match="wrong_currency"):
            await in_time(asker.submit(tenant, refused, "another", "m"))
        assert server.sharing.answered
        assert not any(map(len, (server.sharing.peers._incoming, server.sharing.peers._outgoing)))
        version = (await in_time(server.state(tenant))).tariffs.versions[-1]
        assert (version.is_compiled, len(version.published.rates)) == (True, 4_500)
        outcomes = await in_time(asker.charge(tenant, [call(2, counterpart="+1000042")], "m"))
        assert statuses(outcomes) == ["charged"]


@in_a_loop
async def test_who_exists_is_seen_at_every_worker_as_soon_as_it_is_stored(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        for number, (asked, seen) in enumerate(((one, other), (other, one))):
            quantity = 700 + number
            await in_time(
                asked.submit(tenant, SetLimit("acme", "voice", quantity, (100,)), f"l{number}", "m")
            )
            state = await in_time(seen.state(tenant))
            assert state.limits.by_type["voice"][0][-1].quantity == quantity
            assert state.opened.name == "Acme"
            assert "r9" in state.hierarchy.by_id
        definition = parse_definition(json.dumps(DEFINITION).encode())
        assert await in_time(other.apply_definition(tenant, definition, "carrier:test")) == 0


# --- moving --------------------------------------------------------------------------------------


class Load:
    """Callers who charge without pause at engines that come and go, and keep what they were told."""

    def __init__(self, tenants):
        self.tenants = tenants
        self.engines = []
        self.told = Counter()
        self.errors = []
        self.slowest = 0.0
        self._tasks = []
        self._numbers = iter(range(10**9))

    @asynccontextmanager
    async def flowing(self, callers=6):
        self._tasks = [asyncio.create_task(self._caller(i)) for i in range(callers)]
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _caller(self, place):
        while True:
            tenant, engine = self.tenants[place % len(self.tenants)], self.engines[place % len(self.engines)]
            place += 1
            records = [call(next(self._numbers), number % 10) for number in range(5)]
            began = asyncio.get_running_loop().time()
            try:
                outcomes = await engine.charge(tenant, records, "mediation:load")
            except Exception as error:  # noqa: BLE001  (each is told by the test)
                self.errors.append(error)
                await asyncio.sleep(0.05)
                continue
            self.slowest = max(self.slowest, asyncio.get_running_loop().time() - began)
            for record, outcome in zip(records, outcomes, strict=True):
                self.told[tenant, record.record_id, outcome.status] += 1

    async def more(self, count=100):
        """Until so many more were charged."""
        wanted = sum(self.told.values()) + count
        await until_there(lambda: sum(self.told.values()) >= wanted)


def judge(isolation, load, *, lost_answers=False):
    """All that was acknowledged is there, once; and nothing was told otherwise than it is."""
    for tenant in load.tenants:
        stored = charged_ids(isolation, tenant)
        assert len(stored) == len(set(stored)), "charged twice"
        told = {record for of, record, _ in load.told if of == tenant}
        assert told <= set(stored), "acknowledged and lost"
        report = verify(isolation, tenant)
        assert (report.problem, report.ok) == ("", True)
    if not lost_answers:
        assert {status for _, _, status in load.told} == {"charged"}


@in_a_loop
async def test_one_worker_more_gets_its_share_and_callers_notice_nothing(workers):
    async with workers.stack:
        one = await workers.worker()
        tenants = [await workers.tenant(one) for _ in range(8)]
        load = Load(tenants)
        load.engines.append(one)
        async with load.flowing():
            await load.more()
            other = await workers.worker()
            load.engines.append(other)
            places = [engine.sharing.placement.me for engine in (one, other)]
            share = [t for t in tenants if one.sharing.placement.preferred(t, places) == places[1]]
            await until_there(lambda: all(serving(other, tenant) for tenant in share))
            await load.more(200)
            assert all(serving(one, tenant) for tenant in set(tenants) - set(share))
            assert one.sharing.handed_over == len(share)
        assert load.errors == []
    judge(workers.isolation, load)


@in_a_loop
async def test_a_worker_that_retires_hands_over_and_callers_notice_nothing(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenants = [await workers.tenant(one) for _ in range(6)]
        load = Load(tenants)
        load.engines = [one, other]
        async with load.flowing():
            await load.more()
            await in_time(one.sharing.placement.retire())
            assert not one.sharing.placement.held
            assert not one.open_writers()
            await load.more(200)
            assert all(serving(other, tenant) for tenant in tenants)
        assert load.errors == []
    judge(workers.isolation, load)


def noted_takes(placement, monkeypatch):
    """The tenants whose leases it takes from now on."""
    taken, take = set(), placement.take

    async def noted(tenant):
        held, holder = tenant in placement.held, await take(tenant)
        if holder == placement.me and not held:
            taken.add(tenant)
        return holder

    monkeypatch.setattr(placement, "take", noted)
    return taken


@in_a_loop
async def test_who_misses_its_heartbeats_decides_nothing_more_and_is_followed(workers, monkeypatch):
    """As a worker does that stands still, and wakes up later."""
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenants = [await workers.tenant(one) for _ in range(6)]
        while not (left := one.sharing.placement.held):  # where a tenant belongs is a matter of chance
            tenants.append(await workers.tenant(one))
        writers = one.open_writers()
        load = Load(tenants)
        load.engines = [other]
        async with load.flowing():
            await load.more()
            taken = noted_takes(other.sharing.placement, monkeypatch)
            await stand_still(one)
            await until_there(lambda: all(serving(other, tenant) for tenant in tenants))
            await load.more(200)
            # Whether it looked by itself or a caller was quicker.
            assert taken == set(left)
            assert other.sharing.placement.takeovers <= len(left)
            assert load.slowest < ROUTE_SECONDS_MAX
            # It has not noticed: its writers are open, and a caller asks one of them.
            stale = next(iter(left))
            before = verify(workers.isolation, stale).seq
            asked = asyncio.create_task(writers[stale].submit_usage([call("stale")], "m"))
            await asyncio.sleep(0.3)
            assert not asked.done()
            # Even if it did not look at the clock, the epoch of the log is another's.
            one.sharing.placement._safe_until = float("inf")
            with pytest.raises(Moved):
                await in_time(asked)
            assert before <= verify(workers.isolation, stale).seq
            assert "call-stale" not in charged_ids(workers.isolation, stale)
            # It wakes up, finds them gone, and leads its callers to where they are.
            go_on(one)
            load.engines.append(one)
            await load.more(200)
            await until_there(lambda: all(one.open_writers().get(t) is not writers[t] for t in left))
            assert one.sharing.placement.lost
        assert load.errors == []
    judge(workers.isolation, load)


@in_a_loop
async def test_who_comes_back_before_it_was_missed_goes_on(workers):
    async with workers.stack:
        one = await workers.worker()
        tenant = await workers.tenant(one)
        writer = one.open_writers()[tenant]
        await stand_still(one)
        await asyncio.sleep(QUICK.lease + 0.2)
        asked = asyncio.create_task(one.charge(tenant, [call(1)], "m"))
        await asyncio.sleep(0.2)
        assert not asked.done()
        go_on(one)
        assert statuses(await in_time(asked)) == ["charged"]
        assert one.open_writers()[tenant] is writer


@in_a_loop
async def test_a_worker_without_a_lease_cannot_take_a_log_over(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        owner, stranger = (one, other) if serving(one, tenant) else (other, one)
        stranger.sharing.placement._held.add(tenant)
        with pytest.raises(Moved):
            await in_time(stranger.writer(tenant))
        assert statuses(await in_time(stranger.charge(tenant, [call(1)], "m"))) == ["charged"]
        assert serving(owner, tenant)


# --- who comes for one command -------------------------------------------------------------------


@in_a_loop
async def test_a_command_serves_a_tenant_itself_while_nobody_else_does_and_then_gives_it_up(workers):
    async with workers.stack:
        visitor = await workers.worker(serves=False)
        tenant = await workers.tenant(visitor)
        assert serving(visitor, tenant)
        load = Load([tenant])
        load.engines = [visitor]
        async with load.flowing():
            await load.more()
            worker = await workers.worker()
            load.engines.append(worker)
            await until_there(lambda: serving(worker, tenant))
            await load.more()
            assert not visitor.sharing.placement.held
        assert load.errors == []
    judge(workers.isolation, load)


@in_a_loop
async def test_without_a_way_to_the_worker_the_caller_is_told_to_try_again(workers, monkeypatch):
    monkeypatch.setattr("allotment.backend.sharing.ROUTE_SECONDS_MAX", 0.5)
    monkeypatch.setattr("allotment.backend.peers.CONNECT_SECONDS_MAX", 0.5)
    async with workers.stack:
        worker = await workers.worker()
        tenant = await workers.tenant(worker)
        cut_off = await workers.worker(serves=False, nats_url="nats://127.0.0.1:1")
        with pytest.raises(Unavailable, match="NATS cannot be reached"):
            await in_time(cut_off.charge(tenant, [call(1)], "m"))
        assert (await in_time(cut_off.state(tenant))).opened.name == "Acme"


@in_a_loop
async def test_what_goes_wrong_elsewhere_goes_wrong_here(workers, monkeypatch):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        owner, stranger = (one, other) if serving(one, tenant) else (other, one)
        for error, told in ((Busy(77), Busy), (Halted("broken"), Halted), (Unavailable("away"), Unavailable)):

            async def fail(*_, error=error, **__):
                raise error

            monkeypatch.setattr(owner, "charge_here", fail)
            with pytest.raises(told) as raised:
                await in_time(stranger.charge(tenant, [call(1)], "m"))
            assert getattr(raised.value, "retry_after_ms", 77) == 77


def test_tenants_are_spread_and_only_a_lost_workers_own_move():
    workers_, tenants = [uuid4() for _ in range(4)], [uuid4() for _ in range(2_000)]
    preferred = Placement.preferred
    before = {tenant: preferred(None, tenant, workers_) for tenant in tenants}
    counts = Counter(before.values())
    assert all(400 < counts[worker] < 600 for worker in workers_)
    after = {tenant: preferred(None, tenant, workers_[1:]) for tenant in tenants}
    assert all(before[tenant] in (after[tenant], workers_[0]) for tenant in tenants)


@in_a_loop
async def test_a_heartbeat_does_not_wait_behind_callers(isolation, monkeypatch):
    placement = Placement(isolation, takes_tenants=True)
    answers = threading.Event()
    monkeypatch.setattr(placement._leases, "holder", lambda tenant: answers.wait() and uuid4())
    callers = [asyncio.create_task(placement.place_of(uuid4())) for _ in range(20)]
    try:
        await asyncio.wait_for(placement._beat(), 10)
        assert placement.is_safe()
    finally:
        answers.set()
        await asyncio.gather(*callers)
        await placement.stop()
