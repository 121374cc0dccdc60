"""The door of usage: a stream is charged once, whatever is in it and however often it comes."""

import asyncio
import gzip
import io
import json
from pathlib import Path

import pytest
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Store, call, furnish, in_time
from patience import until_there

from allotment.backend.engine import Engine
from allotment.backend.intake import door
from allotment.backend.intake.door import charge_stream, dry_run
from allotment.backend.intake.formats import FormatError, load_format
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.backend.writer import Busy
from allotment.domain.contract import Grant, SignContract
from allotment.domain.hierarchy import AddNode
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant
from allotment.tenants.onboarding import Enrol

ASTERISK = Path(__file__).parents[3] / "shared" / "data" / "cdr" / "asterisk_spec_scenarios.csv"
NDJSON = load_format("allotment")
PROCESS_SECONDS_MAX = 90
"""Where cores are scarce, a process takes long to start."""


class Opened:
    """An engine, and a tenant to charge."""

    def __init__(self, isolation):
        self.store = Store(isolation)
        self.engine = Engine(isolation, ROOT, clock=lambda: NOON, following=False)

    async def __aenter__(self):
        await furnish(await self.engine.writer(self.store.tenant))
        return self

    async def __aexit__(self, *_):
        await in_time(self.engine.__aexit__())

    async def charge(self, text, format=NDJSON, how=charge_stream, **options):
        stream = io.BytesIO(text if isinstance(text, bytes) else text.encode())
        options = {"time_zone": "Europe/Berlin", "name": "calls"} | options
        if how is charge_stream:
            options = {"actor": "mediation:test"} | options
        return await in_time(how(self.engine, self.store.tenant, stream, format, **options))


@pytest.fixture
def opened(isolation):
    return Opened(isolation)


def line(number, **changes):
    fields = {
        "source": "switch",
        "id": f"call-{number}",
        "line": "+441",
        "type": "voice",
        "quantity": 61,
        "start": "2026-11-15T11:59:00Z",
        "counterpart": "+442071838750",
    }
    return json.dumps(fields | changes) + "\n"


def counted(report):
    return (report.received, report.charged, report.duplicate, report.suspended, report.rejected)


@in_a_loop
async def test_an_empty_stream_is_an_empty_report(opened):
    async with opened:
        report = await opened.charge("")
        assert counted(report) == (0, 0, 0, 0, 0)
        assert report.problems == []


@in_a_loop
async def test_every_row_is_accounted_for(opened):
    async with opened:
        text = line(1) + line(2) + line(1) + line(2, quantity=1) + "{garbled\n" + "\n" + line(3, line="+4499")
        report = await opened.charge(text)
        assert counted(report) == (6, 2, 1, 3, 0)
        assert report.read == report.received + report.merged + report.ignored
        assert report.reasons == {"conflicting_duplicate": 1, "malformed": 1, "unknown_line": 1}
        [conflict, garbled, unknown] = report.problems
        assert garbled.position == "calls:5"
        assert (conflict.record_id, unknown.record_id) == ("call-2", "call-3")


@in_a_loop
async def test_a_stream_of_many_batches_is_charged_once_and_in_order(opened):
    many = 3 * door.BATCH_RECORDS + 7
    text = "".join(line(number) for number in range(many))
    async with opened:
        seen = []
        report = await opened.charge(text, progress=lambda report: seen.append(report.received))
        assert counted(report) == (many, many, 0, 0, 0)
        assert seen == [500, 1_000, 1_500, many]
        assert counted(await opened.charge(text)) == (many, 0, many, 0, 0)
        assert counted(await opened.charge(gzip.compress(text.encode()))) == (many, 0, many, 0, 0)
    assert opened.store.charged_ids() == [f"call-{number}" for number in range(many)]


@in_a_loop
async def test_problems_are_told_up_to_a_bound_and_counted_beyond(opened):
    many = door.PROBLEMS_TOLD_MAX + 20
    async with opened:
        report = await opened.charge("".join(line(number, line="+4499") for number in range(many)))
        assert len(report.problems) == door.PROBLEMS_TOLD_MAX
        assert report.reasons == {"unknown_line": many}


@in_a_loop
async def test_two_senders_of_the_same_stream_charge_it_once_together(opened):
    text = "".join(line(number) for number in range(1_200))
    async with opened:
        one, other = await asyncio.gather(opened.charge(text), opened.charge(text))
        assert one.charged + other.charged == 1_200
        assert one.duplicate + other.duplicate == 1_200
    assert len(opened.store.charges()) == 1_200


@in_a_loop
async def test_a_stream_that_is_cut_in_a_row_is_charged_up_to_there_and_can_be_sent_again(opened):
    text = "".join(line(number) for number in range(700)).encode()
    async with opened:
        report = await opened.charge(text[:-40])
        assert (report.charged, report.suspended) == (699, 1)
        assert report.reasons == {"malformed": 1}
        again = await opened.charge(text)
        assert (again.charged, again.duplicate) == (1, 699)


@in_a_loop
async def test_a_compressed_stream_that_is_cut_says_so_and_can_be_sent_again(opened):
    text = "".join(line(number) for number in range(2_000)).encode()
    packed = gzip.compress(text)
    async with opened:
        with pytest.raises(UnreadableFile, match="calls: the compressed data is damaged after row"):
            await opened.charge(packed[: len(packed) * 2 // 3])
        again = await opened.charge(packed)
        assert again.charged + again.duplicate == 2_000
    charged = opened.store.charged_ids()
    assert len(charged) == len(set(charged)) == 2_000


@in_a_loop
async def test_a_stream_of_another_format_charges_nothing(opened):
    async with opened:
        before = len(opened.store.rows())
        with pytest.raises(UnreadableFile, match="is this the right format"):
            await opened.charge("not\njson\nat\nall\n" * 10)
        with pytest.raises(FormatError, match="time_zone"):
            await opened.charge(line(1), time_zone="Mars/Olympus")
        assert len(opened.store.rows()) == before


@in_a_loop
async def test_a_dry_run_stores_nothing_and_says_what_charging_will_do(opened):
    text = "".join(line(number) for number in range(600)) + line(5, quantity=9) + line(7) + "{garbled\n"
    text += line(900, line="+4499")
    async with opened:
        await opened.charge(line(3))
        before = opened.store.rows(), opened.store.log.head()
        predicted = await opened.charge(text, how=dry_run)
        assert (opened.store.rows(), opened.store.log.head()) == before
        report = await opened.charge(text)
        assert predicted == report
        assert await opened.charge(text, how=dry_run) == await opened.charge(text)


@in_a_loop
async def test_a_dry_run_leaves_the_running_writer_in_charge(opened):
    async with opened:
        epoch = opened.store.log.head().epoch
        await opened.charge(line(1), how=dry_run)
        assert counted(await opened.charge(line(1))) == (1, 1, 0, 0, 0)
        assert opened.store.log.head().epoch == epoch


@in_a_loop
async def test_a_dry_run_reads_no_compressed_damage_as_success(opened):
    async with opened:
        with pytest.raises(UnreadableFile):
            await opened.charge(gzip.compress(line(1).encode())[:-9], how=dry_run)


@in_a_loop
async def test_who_is_not_patient_is_told_when_there_is_too_much(opened, monkeypatch):
    async with opened:
        monkeypatch.setattr("allotment.backend.writer.INBOX_MAX", 600)
        text = "".join(line(number) for number in range(4_000))
        with pytest.raises(Busy):
            await opened.charge(text, patient=False)
        report = await opened.charge(text, patient=True)
        assert report.charged + report.duplicate == 4_000
    charged = opened.store.charged_ids()
    assert len(charged) == len(set(charged)) == 4_000


@in_a_loop
async def test_a_sender_who_goes_away_in_the_middle_can_start_again(opened):
    text = "".join(line(number) for number in range(3_000))
    async with opened:
        writer = await opened.engine.writer(opened.store.tenant)
        sending = asyncio.ensure_future(opened.charge(text))
        await until_there(lambda: writer.waiting)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        report = await opened.charge(text)
        assert report.charged + report.duplicate == 3_000
    charged = opened.store.charged_ids()
    assert len(charged) == len(set(charged)) == 3_000


@in_a_loop
async def test_a_record_charged_by_one_door_is_a_duplicate_at_every_other(opened):
    async with opened:
        await opened.charge(line(1))
        same = call("1", 1, started_at=NOON - 60_000_000)
        [outcome] = await opened.engine.charge(opened.store.tenant, [same], "another door")
        assert outcome.status == "duplicate"


@in_a_loop
async def test_a_row_too_long_for_a_record_waits_and_stops_nobody(opened):
    async with opened:
        report = await opened.charge(line(1, attributes={"a": "x" * 200_000}) + line(2))
        assert (report.charged, report.suspended) == (1, 1)


@pytest.mark.skipif(not ASTERISK.exists(), reason="the sample of Asterisk's documentation is not here")
@in_a_loop
async def test_asterisks_scenarios_are_charged_once_per_call(isolation):
    store = Store(isolation)
    async with Engine(isolation, ROOT, clock=lambda: NOON, following=False) as engine:
        lines = ("100", "200", "alice", "sip/alice")
        commands = [
            OpenTenant("Acme", "UTC", "EUR", "carrier"),
            AddNode("acme", "", "Acme", "enterprise"),
            *(Enrol(f"r{number}", "acme", "extension", 0, (name,)) for number, name in enumerate(lines)),
            SignContract("c", "2013-01-01", (Grant("voice", 0),)),
            PublishTariff("std", 0, "EUR", (Rate("voice", "any", "0.06", 60),)),
        ]
        for number, command in enumerate(commands):
            await engine.submit(store.tenant, command, f"c{number}", "carrier:test")
        text, told = ASTERISK.read_bytes(), []
        for how in (dry_run, charge_stream, charge_stream):
            options = {} if how is dry_run else {"actor": "mediation:test"}
            told.append(
                await how(
                    engine,
                    store.tenant,
                    io.BytesIO(text),
                    load_format("asterisk-csv"),
                    time_zone="UTC",
                    name=ASTERISK.name,
                    **options,
                )
            )
        predicted, first, second = told
        assert predicted == first
        assert (first.charged, first.suspended, first.rejected) == (9, 2, 0)
        assert first.reasons == {"contradictory": 2}
        assert (second.charged, second.duplicate) == (0, 11)
        assert second.reasons == {}
    assert len(store.charges()) == 9


@in_a_loop
async def test_a_file_read_in_a_process_of_its_own_comes_to_the_same(opened, tmp_path, monkeypatch):
    many = 3 * door.BATCH_RECORDS + 7
    text = "".join(line(number) for number in range(many)) + line(1, quantity=9) + "{garbled\n" + line(2)
    (tmp_path / "calls").write_text(text)
    async with opened:
        monkeypatch.setattr(door, "WORTHWHILE_BYTES", 1)
        with (tmp_path / "calls").open("rb") as stream:
            assert door._worth_a_process(stream) == str(tmp_path / "calls")
            report = await in_time(
                charge_stream(
                    opened.engine,
                    opened.store.tenant,
                    stream,
                    NDJSON,
                    time_zone="UTC",
                    actor="m",
                    name="calls",
                ),
                PROCESS_SECONDS_MAX,
            )
        again = await opened.charge(text)
    assert counted(report) == (many + 3, many, 1, 2, 0)
    assert (report.read, again.read) == (many + 3, many + 3)
    assert [(one.position, one.reason) for one in report.problems] == [
        (f"calls:{many + 1}", "conflicting_duplicate"),
        (f"calls:{many + 2}", "malformed"),
    ]
    assert opened.store.charged_ids() == [f"call-{number}" for number in range(many)]


@in_a_loop
async def test_a_file_that_cannot_be_read_elsewhere_is_refused_as_it_is_here(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(door, "WORTHWHILE_BYTES", 1)
    (tmp_path / "calls").write_text("what,is,this\n" * 30)
    async with opened:
        with (tmp_path / "calls").open("rb") as stream, pytest.raises(UnreadableFile, match="calls: line 1"):
            await in_time(
                charge_stream(
                    opened.engine,
                    opened.store.tenant,
                    stream,
                    NDJSON,
                    time_zone="UTC",
                    actor="m",
                    name="calls",
                ),
                PROCESS_SECONDS_MAX,
            )


@pytest.mark.parametrize("kind", ["bytes", "small", "begun"])
def test_only_a_whole_large_file_is_worth_a_process(tmp_path, kind):
    (tmp_path / "calls").write_bytes(b"x" * (10 if kind == "small" else door.WORTHWHILE_BYTES))
    with (tmp_path / "calls").open("rb") as stream:
        assert kind == "small" or door._worth_a_process(stream)
        if kind == "begun":
            stream.read(1)
        asked = io.BytesIO(stream.read()) if kind == "bytes" else stream
        assert door._worth_a_process(asked) == ""
