"""Verification: a log that was led rightly is clean, and whatever was done to it is named."""

import asyncio

import msgspec
import psycopg
import pytest
from fixtures_writer import ROOT, Store, call, charge, furnish, submit, unreadable

from allotment.backend.keys import usage_key
from allotment.backend.log import Group, recorded
from allotment.backend.verifying import dump, verify
from allotment.domain import canonical, proof
from allotment.domain.bucket import Allocate
from allotment.domain.charging import UsageCharged
from allotment.domain.events import encode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.tenants.sealing import load_sealer


@pytest.fixture
def led(postgres):
    """A tenant with everything in its log: charges, rejections, suspense, transfers, thresholds."""

    async def lead():
        async with postgres.opened() as writer:
            await furnish(writer, voice=2_000)
            await submit(writer, SetLimit("sales", "voice", 3_000), "limit")
            await submit(writer, Allocate("acme", "emea", "voice", "", 500), "hand down")
            await charge(writer, *(call(i, i % 10, 110) for i in range(30)))
            await charge(writer, unreadable("bad"), call("unknown", 99), call(1, seconds=7))
            await charge(writer, *(call(f"d{i}", i, usage_type="data", seconds=5_000) for i in range(5)))

    asyncio.run(lead())
    return postgres


@pytest.fixture
def tamper(database):
    """Changes the log as only a superuser can."""

    def change(statement, *values):
        with psycopg.connect(database) as connection:
            assert connection.execute(statement, values).rowcount > 0

    return change


def seq_of(store, topic, which=0):
    return [row.seq for row in store.rows() if row.topic == topic][which]


def replaced(store, tamper, seq, state, *, topic=None):
    """An event changed by somebody who also mends every hash that follows from it."""
    rows, peaks = store.rows(), []
    for row in rows:
        if row.seq == seq:
            row = row._replace(state=state, topic=topic or row.topic)
            leaf = proof.leaf_hash(
                store.tenant.bytes, seq, row.topic.encode(), row.recorded_at, row.command_key, state
            )
            tamper(
                "UPDATE allotment.events SET state = %s, leaf_hash = %s, topic = %s WHERE "
                "tenant_id = %s AND seq = %s",
                state, leaf, row.topic, store.tenant, seq,
            )  # fmt: skip
            row = row._replace(leaf_hash=leaf)
        proof.append(peaks, row.seq - 1, row.leaf_hash)
    tamper("UPDATE allotment.log_heads SET peaks = %s WHERE tenant_id = %s", proof.pack(peaks), store.tenant)


def changed_charge(store, tamper, **changes):
    seq = seq_of(store, "usage.charged", 3)
    told = recorded(store.rows()[seq - 1])
    event = msgspec.structs.replace(told.event, **changes)
    replaced(store, tamper, seq, encode(event, told.actor, told.digest))
    return seq


def checked(store, **options):
    report = verify(store.isolation, store.tenant, **options)
    assert report.ok == (report.problem == "") == (report.first_offending_seq is None)
    return report


def test_an_empty_log_is_clean(postgres):
    report = checked(postgres)
    assert (report.ok, report.seq) == (True, 0)
    assert report.root == proof.root_of([]).hex()


def test_a_log_with_everything_in_it_is_clean(led):
    report = checked(led)
    assert (report.problem, report.ok) == ("", True)
    assert report.seq == len(led.rows())
    checks = report.checks
    assert checks["events"] == checks["projections"] == report.seq
    assert checks["charges"] == len(led.charges())
    assert (checks["transfers"], checks["thresholds"]) == (1, 2)
    assert report.root == proof.root_of(led.log.head().peaks).hex()


def test_verification_changes_nothing(led):
    before = led.rows(), led.log.head(), list(dump(led.isolation, led.tenant))
    checked(led)
    assert (led.rows(), led.log.head(), list(dump(led.isolation, led.tenant))) == before


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        pytest.param("SET state = state || '\\x00'", "does not have the hash", id="a byte more"),
        pytest.param("SET topic = 'usage.rejected'", "does not have the hash", id="another topic"),
        pytest.param(
            "SET recorded_at = recorded_at + interval '1 us'", "does not have the hash", id="another time"
        ),
        pytest.param("SET command_key = NULL", "does not have the hash", id="no key"),
        pytest.param("SET leaf_hash = sha256('x')", "does not have the hash", id="another hash"),
    ],
)
def test_an_event_that_was_changed_is_named(led, tamper, statement, problem):
    seq = seq_of(led, "usage.charged", 3)
    tamper(f"UPDATE allotment.events {statement} WHERE tenant_id = %s AND seq = %s", led.tenant, seq)
    report = checked(led, projections=False)
    assert report.first_offending_seq == seq
    assert problem in report.problem


def test_an_event_that_was_taken_out_is_named(led, tamper):
    seq = seq_of(led, "usage.charged", 3)
    tamper("DELETE FROM allotment.events WHERE tenant_id = %s AND seq = %s", led.tenant, seq)
    report = checked(led, projections=False)
    assert (report.first_offending_seq, "hole" in report.problem) == (seq, True)


def test_events_cut_off_at_the_end_are_missed(led, tamper):
    last = led.log.head().seq
    tamper("DELETE FROM allotment.events WHERE tenant_id = %s AND seq = %s", led.tenant, last)
    report = checked(led, projections=False)
    assert (report.first_offending_seq, str(last) in report.problem) == (last, True)


def test_a_log_cut_off_with_its_head_does_not_lead_to_its_root(led, tamper):
    last = led.log.head().seq
    tamper("DELETE FROM allotment.events WHERE tenant_id = %s AND seq = %s", led.tenant, last)
    tamper("UPDATE allotment.log_heads SET seq = seq - 1 WHERE tenant_id = %s", led.tenant)
    assert "root" in checked(led, projections=False).problem


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"amount": 1}, id="another amount"),
        pytest.param({"billed": 60}, id="billed less than was used"),
        pytest.param({"quantity": 3_000}, id="another quantity"),
        pytest.param({"exact": (1, 3)}, id="another unrounded figure"),
        pytest.param({"drawn": ((0, 119), (1, 1))}, id="drawn from elsewhere than the sum"),
        pytest.param({"drawn": ()}, id="paid by nobody"),
        pytest.param({"tariff": 7}, id="a tariff that is not there"),
        pytest.param({"period": "1999-01"}, id="a period that was never opened"),
        pytest.param({"record_id": "another"}, id="another record"),
        pytest.param({"path": (10**6,)}, id="nobody's path"),
    ],
)
def test_a_charge_that_was_changed_with_its_hashes_is_found(led, tamper, changes):
    seq = changed_charge(led, tamper, **changes)
    report = checked(led, projections=False)
    assert not report.ok
    assert report.first_offending_seq >= seq


def test_a_charge_with_a_rate_that_is_not_there_is_found(led, tamper):
    seq = changed_charge(led, tamper, rate=77)
    assert checked(led, projections=False).first_offending_seq == seq


@pytest.mark.parametrize("changes", [{"zone": "the moon"}, {"prefix": "+1"}])
def test_a_charge_with_another_zone_or_prefix_than_its_rate_is_found(led, tamper, changes):
    seq = changed_charge(led, tamper, **changes)
    assert checked(led, projections=False).first_offending_seq == seq


@pytest.mark.parametrize(
    "state",
    [b"", b"\xc1", b"\x94\x01\xa1x\xc4\x00\x90", encode.__doc__.encode() if encode.__doc__ else b"\x00"],
)
def test_an_event_that_cannot_be_read_is_named(led, tamper, state):
    seq = seq_of(led, "usage.charged", 3)
    replaced(led, tamper, seq, state)
    report = checked(led, projections=False)
    assert (report.first_offending_seq, report.problem.startswith("it cannot be read")) == (seq, True)


def test_an_event_of_a_newer_version_is_named(led, tamper):
    seq = seq_of(led, "usage.charged", 3)
    replaced(led, tamper, seq, b"\x94\x01\xa1x\xc4\x00\x90", topic="usage.teleported")
    report = checked(led, projections=False)
    assert report.first_offending_seq == seq
    assert "update allotment" in report.problem


def appended(store, *events):
    """Events appended by somebody who holds the pen: hashes and head are right, what they say is not."""
    head = store.log.claim()
    group = Group(store.tenant, head, store.rows()[-1].recorded_at)
    for event, key in events:
        group.add(event.topic, encode(event, "somebody", bytes(8)), key)
    store.log.append(group)
    return head.seq + 1


def test_a_record_charged_twice_under_another_key_is_found(led):
    charged = led.charges()[-1]  # data, of which there is plenty: no other rule is broken
    seq = appended(led, (charged, b"another key....."))
    report = checked(led, projections=False)
    assert (report.first_offending_seq, "twice" in report.problem) == (seq, True)


def test_a_record_charged_twice_on_two_days_is_found(led):
    charged = led.charges()[-1]  # data, of which there is plenty: no other rule is broken
    moved = msgspec.structs.replace(charged, started_at=charged.started_at - 86_400_000_000)
    key = usage_key(moved.source, moved.record_id, moved.started_at)
    seq = appended(led, (moved, key))
    assert checked(led, projections=False).first_offending_seq == seq


def test_a_threshold_told_twice_is_found(led):
    crossing = recorded(led.rows()[seq_of(led, "limit.threshold_crossed") - 1]).event
    seq = appended(led, (crossing, None))
    report = checked(led, projections=False)
    assert (report.first_offending_seq, "fires once" in report.problem) == (seq, True)


def test_a_threshold_without_a_limit_is_found(led):
    crossing = recorded(led.rows()[seq_of(led, "limit.threshold_crossed") - 1]).event
    seq = appended(led, (msgspec.structs.replace(crossing, usage_type="video"), None))
    assert checked(led, projections=False).first_offending_seq == seq


def test_more_than_there_was_cannot_be_moved_unseen(led):
    moved = recorded(led.rows()[seq_of(led, "bucket.transferred") - 1]).event
    seq = appended(led, (msgspec.structs.replace(moved, quantity=10**9), b"a key of 16 byte"))
    assert checked(led, projections=False).first_offending_seq == seq


def test_a_view_that_was_changed_is_found(led, tamper):
    checked(led)
    added = "figures = set_byte(figures, 15, get_byte(figures, 15) # 1)"
    tamper(f"UPDATE allotment.usage_counters SET {added} WHERE tenant_id = %s", led.tenant)
    report = checked(led)
    assert not report.ok
    assert "usage_counters" in report.problem
    assert checked(led, projections=False).ok


def test_what_one_tenant_did_is_not_the_others(isolation, led, tamper):
    other = Store(isolation)

    async def lead():
        async with other.opened() as writer:
            await furnish(writer)
            await charge(writer, call(1))

    asyncio.run(lead())
    tamper("UPDATE allotment.events SET topic = 'x' WHERE tenant_id = %s AND seq = 3", led.tenant)
    assert not checked(led, projections=False).ok
    assert checked(other).ok


def test_a_log_is_clean_also_when_every_key_is_gone(led, tamper):
    root = checked(led).root
    tamper("DELETE FROM allotment.subject_keys WHERE tenant_id = %s", led.tenant)
    report = checked(led)
    assert (report.ok, report.root) == (True, root)
    assert load_sealer(led.isolation, ROOT, led.tenant).open(b"x" * 16, b"y" * 40, b"z") is None


# --- dump ----------------------------------------------------------------------------------------


def test_a_dump_is_the_same_every_time_and_after_a_restart(led):
    first = b"".join(dump(led.isolation, led.tenant))
    assert b"".join(dump(led.isolation, led.tenant)) == first

    async def restart():
        async with led.opened() as writer:
            assert b"".join(canonical.lines(writer.state)) in first

    asyncio.run(restart())
    assert b"".join(dump(led.isolation, led.tenant)) == first


def test_a_dump_of_the_past_never_changes(led):
    half = len(led.rows()) // 2
    before = b"".join(dump(led.isolation, led.tenant, as_of=half))

    async def go_on():
        async with led.opened() as writer:
            await charge(writer, call("later"))

    asyncio.run(go_on())
    assert b"".join(dump(led.isolation, led.tenant, as_of=half)) == before
    end = led.log.head().seq
    assert b"".join(dump(led.isolation, led.tenant, as_of=end)) == b"".join(dump(led.isolation, led.tenant))


@pytest.mark.parametrize("seq", [-1, 10**6])
def test_a_dump_of_what_never_was_is_refused(led, seq):
    with pytest.raises(Refused, match="no_such_seq"):
        list(dump(led.isolation, led.tenant, as_of=seq))


def test_every_charge_in_the_log_names_what_verification_needs(led):
    assert {"tariff", "rate", "overage", "exact", "drawn", "path"} <= set(UsageCharged.__struct_fields__)
    assert all(charged.tariff and charged.path for charged in led.charges())
