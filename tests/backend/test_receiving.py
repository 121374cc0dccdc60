"""Nothing is lost between a file and the bill: what came adds up, and each record is charged once.

By whichever door, across restarts, after recycling and after correcting.
"""

import asyncio
import contextlib
import gzip
import io
import json
from collections import Counter

import pytest
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Store, call, charge, furnish, in_time, line, statuses, unreadable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sheet_format import SHEET

from allotment.backend.correcting import AmendRecord, RecycleRecord
from allotment.backend.engine import Engine
from allotment.backend.following import catch_up
from allotment.backend.intake.door import charge_stream
from allotment.backend.intake.formats import load_format, parse_format
from allotment.backend.intake.importing import import_stream, known
from allotment.backend.intake.rows import UnreadableFile
from allotment.backend.keys import command_key
from allotment.backend.log import recorded, replay
from allotment.backend.recycling import Recycling, Selection
from allotment.backend.verifying import verify
from allotment.domain.canonical import lines
from allotment.domain.charging import UsageCharged, UsageRejected, UsageSuspended
from allotment.domain.receiving import DuplicatesCounted
from allotment.domain.refusals import Refused
from allotment.domain.suspense import waiting_id
from allotment.domain.tenant import Tenant
from allotment.domain.writing_off import DismissUsage
from allotment.projections.accuracy import accuracy, imports_page, totals
from allotment.projections.suspense import SuspenseFilter, waiting_page
from allotment.tenants.onboarding import Enrol

NDJSON = load_format("allotment")
EVER = (0, 40_000)


def told(number, seconds=61, to="+442071838750", who=1, **more):
    fields = {
        "source": "switch",
        "id": f"call-{number}",
        "line": line(who),
        "type": "voice",
        "quantity": seconds,
        "start": "2026-11-15T11:59:00Z",
        "counterpart": to,
    }
    return json.dumps(fields | more) + "\n"


class Carrier:
    """A tenant with an engine that can be stopped and started again."""

    def __init__(self, isolation):
        self.store = Store(isolation)
        self.isolation = isolation
        self.engine = self._new()

    def _new(self):
        return Engine(self.isolation, ROOT, clock=lambda: NOON, following=False)

    async def __aenter__(self):
        await furnish(await self.engine.writer(self.store.tenant))
        return self

    async def __aexit__(self, *_):
        await in_time(self.engine.__aexit__())

    async def restart(self):
        await in_time(self.engine.__aexit__())
        self.engine = self._new()

    async def send(self, text, door="http"):
        options = {"time_zone": "Europe/Berlin", "name": "calls", "actor": "mediation:test", "door": door}
        stream = io.BytesIO(text.encode())
        return await in_time(charge_stream(self.engine, self.store.tenant, stream, NDJSON, **options))

    async def file(self, path):
        about = await known(self.engine, self.store.tenant, str(path))
        options = {"time_zone": "Europe/Berlin", "name": path.name, "actor": "carrier:test"}
        with path.open("rb") as stream:
            given = (self.engine, self.store.tenant, stream, NDJSON, about)
            return await in_time(import_stream(*given, **options))

    def view(self, query, *given, **more):
        catch_up(self.isolation, self.store.tenant)
        with self.isolation.transaction(self.store.tenant) as db:
            return query(db, *given, **more)

    def waiting(self):
        return {row.record_id: row for row in self.view(waiting_page, 100)}

    def recycling(self, key="k", **more):
        catch_up(self.isolation, self.store.tenant)
        return Recycling(self.engine, self.store.tenant, "carrier:test", key=key, **more)

    def whole(self):
        report = verify(self.isolation, self.store.tenant)
        assert report.ok, report.problem


@pytest.fixture
def carrier(isolation):
    return Carrier(isolation)


# --- files ----------------------------------------------------------------------------------


@in_a_loop
async def test_a_file_tells_the_log_what_it_brought_and_the_counts_add_up(carrier, tmp_path):
    path = tmp_path / "calls.ndjson"
    path.write_text(told(1) + told(1) + told(2, who=99) + "{torn\n" + told(3, source="other"))
    async with carrier:
        await carrier.file(path)
        (row,) = carrier.view(imports_page, 9)
        assert (row.name, row.again, row.attempts, row.finished_seq > 0) == ("calls.ndjson", False, 1, True)
        assert (row.read, row.received, row.charged, row.duplicate) == (5, 5, 2, 1)
        assert (row.suspended, row.unreadable, row.rejected) == (2, 1, 0)
        assert (row.amount, row.value) == (0, 0) or row.amount > 0
        await carrier.file(path)
        again, _ = carrier.view(imports_page, 9)
        assert (again.again, again.received, again.duplicate) == (True, 5, 5)
        days = {(day.source): day for day in carrier.view(accuracy, *EVER)}
        assert (days["switch"].received, days["switch"].charged, days["switch"].duplicate) == (6, 1, 4)
        assert (days["other"].received, days["other"].duplicate) == (2, 1)
        carrier.whole()


@in_a_loop
async def test_an_import_that_was_killed_is_unfinished_and_goes_on(carrier, tmp_path, monkeypatch):
    path = tmp_path / "calls.ndjson"
    path.write_text("".join(told(i) for i in range(30)))
    async with carrier:
        monkeypatch.setattr("allotment.backend.intake.door.BATCH_RECORDS", 10)
        about = await known(carrier.engine, carrier.store.tenant, str(path))
        told_of = {"time_zone": "Europe/Berlin", "name": path.name, "actor": "carrier:test"}

        def killed(report):
            raise asyncio.CancelledError

        with path.open("rb") as stream:
            given = (carrier.engine, carrier.store.tenant, stream, NDJSON, about)
            with pytest.raises(asyncio.CancelledError):
                await import_stream(*given, **told_of, progress=killed)
        assert [row.finished_seq for row in carrier.view(imports_page, 9, unfinished=True)] == [0]
        await carrier.restart()
        assert (await known(carrier.engine, carrier.store.tenant, str(path))).unfinished
        report = await carrier.file(path)
        assert report.charged + report.duplicate == 30
        assert report.duplicate >= 10
        (row,) = carrier.view(imports_page, 9)
        assert (row.attempts, row.received, row.finished_seq > 0) == (2, 30, True)
        assert carrier.view(totals)["charged"] == 30
        carrier.whole()


@in_a_loop
async def test_a_file_that_is_something_else_is_refused_with_its_reason_and_a_corrected_one_is_not(
    carrier, tmp_path
):
    path = tmp_path / "calls.ndjson"
    path.write_text("a,b,c\n")
    async with carrier:
        with pytest.raises(UnreadableFile):
            await carrier.file(path)
        (row,) = carrier.view(imports_page, 9, refused=True)
        assert (row.state, row.finished_seq, "is this the right format?" in row.problem) == (
            "refused",
            0,
            True,
        )
        assert carrier.view(imports_page, 9, unfinished=True) == []
        path.write_text(told(1))
        assert (await carrier.file(path)).charged == 1
        assert [row.state for row in carrier.view(imports_page, 9)] == ["finished", "refused"]
        carrier.whole()


@in_a_loop
async def test_what_a_damaged_file_brought_before_it_was_refused_is_accounted_for(carrier, tmp_path):
    packed = gzip.compress("".join(told(i % 1_200) for i in range(6_000)).encode(), mtime=0)
    path = tmp_path / "calls.ndjson.gz"
    path.write_bytes(packed[: len(packed) // 2])
    async with carrier:
        with pytest.raises(UnreadableFile, match="damaged"):
            await carrier.file(path)
        (row,) = carrier.view(imports_page, 9)
        assert row.state == "refused"
        assert row.received == row.charged + row.duplicate + row.suspended + row.rejected > 0
        (day,) = carrier.view(accuracy, *EVER)
        assert (day.charged, day.duplicate) == (row.charged, row.duplicate)
        path.write_bytes(packed)
        assert (await carrier.file(path)).received == 6_000
        assert carrier.view(totals)["charged"] == 1_200
        carrier.whole()


@in_a_loop
async def test_a_row_of_a_csv_file_is_read_again_alone_and_is_still_the_record_it_was(carrier):
    texts = (SHEET.format(csv="", seconds=name) for name in ("Took", "Billed"))
    wrong, right = (parse_format(text.encode(), "sheet") for text in texts)
    text = f"Id,From,To,Began,Took,Billed\nc-1,{line(1)},+442071838750,2026-11-15T11:59:00Z,1:01,61\n"
    options = {"time_zone": "Europe/Berlin", "name": "sheet.csv", "actor": "mediation:test"}

    async def send():
        stream = io.BytesIO(text.encode())
        return await in_time(charge_stream(carrier.engine, carrier.store.tenant, stream, wrong, **options))

    async with carrier:
        assert (await send()).suspended == 1
        assert (await send()).duplicate == 1
        work = carrier.recycling(note="other columns")
        report = await in_time(work.reread(Selection(), right, "Europe/Berlin"))
        assert (report.amended, report.passed_over) == (1, 0), report.problems
        report = await in_time(carrier.recycling().recycle(Selection()))
        assert (report.charged, len(carrier.store.charges())) == (1, 1)
        assert (await send()).duplicate == 1
        carrier.whole()


# --- streams --------------------------------------------------------------------------------


@in_a_loop
async def test_a_door_tells_its_duplicates_now_and_then_and_when_it_closes(carrier):
    async with carrier:
        for _ in range(3):
            await carrier.send(told(1) + told(2))
        await carrier.send(told(3), "nats")
        assert carrier.view(totals)["duplicate"] == 0
        await carrier.engine.tallies.flush()
        await carrier.engine.tallies.flush()
        assert carrier.view(totals)["duplicate"] == 4
        await carrier.send(told(3), "nats")
        await carrier.restart()
        events = [recorded(row).event for row in carrier.store.rows()]
        counted = [event for event in events if isinstance(event, DuplicatesCounted)]
        assert [(event.door, event.sources) for event in counted] == [
            ("http", (("switch", 4),)), ("nats", (("switch", 1),)),
        ]  # fmt: skip
        (day,) = carrier.view(accuracy, *EVER)
        assert (day.received, day.charged, day.duplicate) == (8, 3, 5)
        carrier.whole()


# --- duplicates -----------------------------------------------------------------------------


@in_a_loop
async def test_the_same_record_is_a_duplicate_by_every_door_and_after_a_restart(carrier, tmp_path):
    path = tmp_path / "calls.ndjson"
    path.write_text(told(1) + told(2, who=99))
    async with carrier:
        await carrier.file(path)
        assert (await carrier.send(path.read_text(), "http")).duplicate == 2
        await carrier.restart()
        assert (await carrier.send(path.read_text(), "nats")).duplicate == 2
        outcome = await carrier.engine.charge(carrier.store.tenant, [call(1, 1)], "mediation:test")
        assert statuses(outcome) == ["duplicate"]
        assert len(carrier.store.charges()) == 1


@in_a_loop
async def test_the_same_id_with_other_content_waits_and_equal_content_with_other_ids_is_charged(carrier):
    async with carrier:
        report = await carrier.send(told(1) + told(1, seconds=62) + told(2) + told(3))
        assert (report.charged, report.suspended, report.reasons) == (3, 1, {"conflicting_duplicate": 1})
        assert (await carrier.send(told(1, seconds=62))).duplicate == 1
        carrier.whole()


@in_a_loop
async def test_what_was_recycled_or_corrected_is_a_duplicate_when_it_comes_again(carrier):
    async with carrier:
        await carrier.send(told(1, who=99) + told(2, who=98))
        await carrier.engine.submit(
            carrier.store.tenant, Enrol("new", "sales", "msisdn", 0, (line(99),)), "new", "carrier:test"
        )
        wrong = carrier.waiting()["call-2"]
        await carrier.recycling(note="a slip").amend(wrong.usage_id, {"line": line(2)})
        report = await carrier.recycling().recycle(Selection())
        assert (report.charged, report.looked_at, report.amount > 0) == (2, 2, True)
        assert (await carrier.send(told(1, who=99) + told(2, who=98))).duplicate == 2
        assert (await carrier.send(told(2, who=2))).reasons == {"conflicting_duplicate": 1}
        await carrier.restart()
        assert (await carrier.send(told(1, who=99) + told(2, who=98) + told(2, who=2))).duplicate == 3
        assert (await carrier.recycling().recycle(Selection())).suspended == 1
        assert len(carrier.store.charges()) == 2
        carrier.whole()


@in_a_loop
async def test_a_record_that_gets_its_id_late_is_known_by_it(carrier):
    async with carrier:
        await carrier.send("{torn\n" + told(9))
        (waits,) = carrier.waiting().values()
        by_hand = {
            "record_id": "call-1", "source": "switch", "line": line(1), "usage_type": "voice", "quantity": 61,
            "started_at": NOON - 60_000_000, "counterpart": "+442071838750",
        }  # fmt: skip
        await carrier.recycling(note="from the switch").amend(waits.usage_id, by_hand)
        assert (await carrier.recycling().recycle(Selection())).charged == 1
        assert (await carrier.send(told(1))).duplicate == 1
        carrier.whole()


@in_a_loop
async def test_two_who_recycle_at_once_charge_once(carrier):
    async with carrier:
        await carrier.send("".join(told(i, who=99) for i in range(20)))
        await carrier.engine.submit(
            carrier.store.tenant, Enrol("new", "sales", "msisdn", 0, (line(99),)), "new", "carrier:test"
        )
        both = [carrier.recycling(key).recycle(Selection()) for key in ("one", "other")]
        reports = await asyncio.gather(*both)
        assert sum(report.charged for report in reports) == 20
        assert sum(report.passed_over for report in reports) == 20 - sum(r.charged for r in reports) + 20
        assert len(carrier.store.charges()) == 20
        carrier.whole()


@in_a_loop
async def test_filters_name_what_waits(carrier):
    async with carrier:
        await carrier.send(told(1, who=99) + told(2, source="b", who=98) + "{torn\n")
        sealer = await carrier.engine.sealer(carrier.store.tenant)
        for wanted, found in [
            (SuspenseFilter(reason="malformed"), 1),
            (SuspenseFilter(source="b"), 1),
            (SuspenseFilter(file="calls"), 3),
            (SuspenseFilter(usage_type="voice"), 2),
            (SuspenseFilter(subject=sealer.token(line(99))), 1),
            (SuspenseFilter(from_at=NOON), 0),
            (SuspenseFilter(from_at=NOON, undated=True), 1),
            (SuspenseFilter(from_at=0, until_at=NOON, usage_type="voice"), 2),
        ]:
            assert len(carrier.view(waiting_page, 9, None, wanted)) == found


# --- whatever comes in whatever order ---------------------------------------------------------


ACTS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 5), st.sampled_from([0, 1, 9]), st.sampled_from([60, 61])),
    st.tuples(st.just("garbled"), st.integers(0, 5)),
    st.tuples(st.just("recycle"), st.integers(0, 9)),
    st.tuples(st.just("amend"), st.integers(0, 9), st.sampled_from([0, 9]), st.integers(0, 5)),
    st.tuples(st.just("dismiss"), st.integers(0, 9)),
    st.tuples(st.just("provide")),
    st.tuples(st.just("restart")),
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts=st.lists(ACTS, max_size=25))
def test_each_record_is_charged_once_and_all_are_accounted_for(acts):
    asyncio.run(_play(acts))


async def _play(acts):
    store = Store(None)
    writer = store.writer()
    await writer.start()
    await furnish(writer, lines=2)
    sent, received = Counter(), 0
    for number, act in enumerate(acts):
        events = [recorded(row).event for row in store.rows()]
        ever = [event for event in events if isinstance(event, UsageSuspended)]
        match act:
            case ("send", ident, who, seconds):
                received += 1
                sent[(await charge(writer, call(ident, who, seconds)))[0].status] += 1
            case ("garbled", ident):
                received += 1
                sent[(await charge(writer, unreadable(ident)))[0].status] += 1
            case ("provide",):
                await _try(writer, Enrol("r9", "sales", "msisdn", 0, (line(9),)), "provide")
            case ("restart",):
                await writer.close()
                writer = store.writer()
                await writer.start()
            case (what, place, *given) if ever:
                await _try(writer, _command(what, ever[place % len(ever)], given, writer.state), f"{number}")
    await _check(store, writer, sent, received)
    await writer.close()


def _command(what, event, given, state):
    waiting = waiting_id(event)
    about = (waiting, state.suspense.waiting.get(waiting, 0))
    ident = event.record_id.removeprefix("call-")
    match what:
        case "recycle":
            return RecycleRecord(*about, call(ident, 9))
        case "amend":
            return AmendRecord(*about, call(given[1], given[0]), ("line",), "a slip")
    return DismissUsage(*about, event.source, event.record_id, "a test call")


async def _try(writer, command, key):
    """What comes too late is refused, and nothing has changed."""
    with contextlib.suppress(Refused):
        await in_time(writer.submit(command, command_key(key), "carrier:test"))


async def _check(store, writer, sent, received):
    events = [recorded(row).event for row in store.rows()]
    charged = [event for event in events if isinstance(event, UsageCharged | UsageRejected)]
    ids = [(event.source, event.record_id) for event in charged]
    assert len(set(ids)) == len(ids)
    assert sum(sent.values()) == received
    state, settled = writer.state, writer.state.suspense.settled
    assert state.charging.counts["charged"] == sent["charged"] + settled["charged"]
    assert state.charging.counts["suspended"] == sent["suspended"]
    state.check_whole()
    again = Tenant()
    for told_again in replay(store.log):
        again.apply(told_again.event)
    assert b"".join(lines(again)) == b"".join(lines(state))
