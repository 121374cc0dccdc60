"""A stored event that has not the form of its topic: whoever reads it says which one it is.

Nothing from outside gets that far: the rules write events. It takes a hand in the database.
"""

import asyncio
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from fixtures_writer import call, charge, furnish

from allotment.backend.deciding import Decider
from allotment.backend.following import catch_up
from allotment.backend.log import replay
from allotment.backend.reading_log import read_stretch
from allotment.backend.verifying import verify
from allotment.domain.charging import UsageCharged
from allotment.domain.refusals import InvariantBroken

FIELDS = UsageCharged.__struct_fields__


@pytest.fixture
def led(postgres):
    async def lead():
        async with postgres.opened() as writer:
            await furnish(writer, voice=2_000)
            await charge(writer, *(call(i, i % 10, 110) for i in range(30)))

    asyncio.run(lead())
    return postgres


def malform(store, database, field, value, which=4):
    """One charge as no version ever wrote it; its seq."""
    seq = [row.seq for row in store.rows() if row.topic == UsageCharged.topic][which]
    state = next(row.state for row in store.rows() if row.seq == seq)
    schema, actor, digest, fields = msgspec.msgpack.decode(state)
    fields += [None] * (FIELDS.index(field) + 1 - len(fields))
    fields[FIELDS.index(field)] = value
    changed = msgspec.msgpack.encode([schema, actor, digest, fields])
    with psycopg.connect(database) as db:
        where = "WHERE tenant_id = %s AND seq = %s"
        db.execute(f"UPDATE allotment.events SET state = %s {where}", (changed, store.tenant, seq))
    return seq


MALFORMED = [("basis", ["x", 7]), ("basis", 12), ("quantity", "many")]


@pytest.mark.parametrize(("field", "value"), MALFORMED)
def test_whoever_reads_a_malformed_event_names_it(led, database, isolation, field, value):
    seq = malform(led, database, field, value)
    assert _named_by(lambda: catch_up(isolation, led.tenant)) == seq
    assert _named_by(lambda: _counted_without_looking(isolation, led)) == seq
    assert _named_by(lambda: list(replay(led.log))) == seq
    report = verify(isolation, led.tenant)
    assert (report.ok, report.first_offending_seq) == (False, seq)


def _named_by(read):
    with pytest.raises(InvariantBroken) as broken:
        read()
    return broken.value.facts["seq"]


def _counted_without_looking(isolation, store):
    """Native code counts what it knows of a charge, and passes over the rest."""
    with isolation.transaction(store.tenant, "projector") as db:
        stretch = read_stretch(db, 0, store.log.head().seq, 1_000, ZoneInfo("Europe/Berlin"))
        list(stretch.charges.events)


def test_a_writer_that_cannot_read_its_log_stops_and_says_where(led, database):
    malform(led, database, "quantity", "many")
    with pytest.raises(InvariantBroken):
        Decider.load(led.log, led.load_sealer)
