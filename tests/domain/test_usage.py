"""Usage records: what the rest of the rules relies on about them."""

import msgspec
import pytest

from allotment.domain.contract import OpenPeriod
from allotment.domain.usage import MONEY, USAGE_TYPES, UnreadableRecord, UsageRecord


def test_each_usage_type_is_counted_in_one_unit():
    assert USAGE_TYPES == {"data": "byte", "voice": "second", "messaging": "message", "video": "second"}
    assert MONEY not in USAGE_TYPES


def test_a_period_has_buckets_for_every_usage_type_and_for_money(acme):
    acme.do(OpenPeriod("2026-12"))
    assert {kind for kind, period in acme.tenant.families if period == "2026-12"} == {*USAGE_TYPES, MONEY}


@pytest.mark.parametrize(
    "record",
    [
        UsageRecord("src", "1", "+4930123456", "voice", 0, 0),
        UsageRecord("src", "1", "alice", "data", 2**53, -1, "inbound", "", (("network", "fixed"),)),
        UnreadableRecord("src", "1", "malformed", "row", "is no JSON", "{", "calls.csv:12"),
    ],
)
def test_a_record_survives_being_stored(record):
    stored = msgspec.msgpack.encode(record)
    assert msgspec.msgpack.decode(stored, type=type(record)) == record


def test_a_record_cannot_be_changed():
    record = UsageRecord("src", "1", "alice", "voice", 60, 0)
    with pytest.raises(AttributeError):
        record.quantity = 61


def test_a_record_is_outbound_to_nobody_unless_it_says_otherwise():
    record = UsageRecord("src", "1", "alice", "data", 1, 0)
    assert (record.direction, record.counterpart, record.attributes) == ("outbound", "", ())
