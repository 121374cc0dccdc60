"""Plain bodies, read at once: what a reader reads of them, or nothing."""

import asyncio
import io
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend.asking import UsageOutcome
from allotment.backend.intake.batches import Positions, Records
from allotment.backend.intake.door import IntakeReport
from allotment.backend.intake.formats import shipped_format
from allotment.backend.intake.plain_lines import BYTES_MAX, LINES_AT_ONCE, read_plainly
from allotment.backend.intake.reading import Reader
from allotment.backend.intake.rows import ROW_BYTES_MAX
from allotment.backend.native import using
from allotment.domain.usage import UnreadableRecord, UsageRecord

OWN = shipped_format("allotment")
NOW = 1_794_744_000_000_000


def line(number, **more):
    told = {
        "source": "switch-1",
        "id": f"call-{number}",
        "line": "+442071838750",
        "type": "voice",
        "quantity": 61,
        "start": "2026-11-15T10:00:00Z",
        **more,
    }
    return json.dumps(told).encode()


def plainly(body, batch=3, format=OWN):
    async def read():
        plain = await read_plainly(io.BytesIO(body), format, "body", batch)
        if plain is None:
            return None
        batches = []
        while told := await plain.next():
            batches.append(told)
        return batches, plain.counts

    return asyncio.run(read())


def as_declared(body):
    reader = Reader(io.BytesIO(body), OWN, time_zone="UTC", name="body", packed=False)
    return [(record, reader.position) for record in reader], reader.counts


ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n", b""])
LINES = st.sampled_from(
    [
        *(line(number) for number in range(3)),
        line(3, quantity="61"),
        line(4, attributes={"place": "Rome"}),
        line(5, counterpart="+44 20 7946 0000"),
        b"\xef\xbb\xbf" + line(6),
        b" " + line(7),
        line(8).replace(b", ", b",\n"),
        line(9) + line(10),
        b"{",
        b"",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LINES, ENDS), min_size=1, max_size=8))
def test_a_plain_body_is_read_as_it_is_declared(parts):
    body = b"".join(text + end for text, end in parts)
    plain = plainly(body)
    if plain is not None:
        batches, counts = plain
        assert all(len(batch) <= 3 for batch in batches)
        assert ([one for batch in batches for one in batch], counts) == as_declared(body)


@pytest.mark.parametrize(
    ("body", "is_plain"),
    [
        (b"", False),
        (line(1), True),
        (line(1) + b"\n" + line(2) + b"\n", True),
        (line(1) + b"\r\n", True),
        (line(1) + b"\n\n" + line(2), False),
        (line(1) + b"\n" + line(2, quantity=-1), False),
        (b"\n".join(map(line, range(LINES_AT_ONCE + 1))), True),
        (b"\n".join([*map(line, range(LINES_AT_ONCE)), b"{}"]), False),
        (line(1) + b" " * ROW_BYTES_MAX, False),
        (b"\n".join(map(line, range(BYTES_MAX // len(line(1)) + 1))), False),
    ],
)
def test_only_what_is_plain_throughout_is_read_at_once(body, is_plain):
    assert (plainly(body) is not None) == is_plain


def test_other_formats_are_left_to_their_reader():
    assert plainly(line(1), format=shipped_format("asterisk-csv")) is None


def record_of(source):
    return UsageRecord(source, "1", "l", "voice", 1, NOW, "outbound", "")


STATUSES = st.sampled_from(["charged", "charged", "charged", "duplicate", "suspended", "rejected"])
OUTCOMES = st.builds(UsageOutcome, STATUSES, st.sampled_from(["", "", "", "why"]), amount=st.integers(0, 9))
STARTS = st.sampled_from([NOW, NOW - 86_400_000_000, NOW - 86_400_000_001])
RECORDS = st.one_of(
    st.builds(
        lambda source, at: UsageRecord(source, "1", "l", "voice", 1, at, "outbound", ""),
        st.sampled_from(["one", "one", "one", "two"]),
        STARTS,
    ),
    st.just(UnreadableRecord("one", "1", "malformed", "", "", "")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(RECORDS, OUTCOMES), max_size=4), max_size=3))
def test_what_is_counted_at_once_is_counted_as_one_by_one(batches):
    natively, at_once, one_by_one = (IntakeReport(now=NOW) for _ in range(3))
    for batch in batches:
        batch = [
            (record, outcome)
            for record, outcome in batch
            if isinstance(record, UsageRecord) or outcome.status != "charged"
        ]
        records = Records([record for record, _ in batch], [f"body:{place}" for place in range(len(batch))])
        outcomes = [outcome for _, outcome in batch]
        natively.count(records, outcomes)
        with using.python_only():
            at_once.count(records, outcomes)
        for place, outcome in enumerate(outcomes):
            # With a reason, each is looked at by itself.
            one = Records(records.records[place : place + 1], records.positions[place : place + 1])
            one_by_one.count(one, [outcome])
    assert natively == at_once == one_by_one


@pytest.mark.skipif(using.native() is None, reason=f"counts with {using.told()}")
@pytest.mark.parametrize(
    ("second", "outcome", "told"),
    [
        (record_of("one"), UsageOutcome("charged", amount=5), ("one", 9, 1)),
        (record_of("one"), UsageOutcome("charged", amount=2**63 - 1), None),
        (record_of("one"), UsageOutcome("charged", amount=2**70), None),
        (record_of("one"), UsageOutcome("charged", "why"), None),
        (record_of("one"), UsageOutcome("duplicate"), None),
        (record_of("one"), None, None),
        (record_of("two"), UsageOutcome("charged"), None),
        (UnreadableRecord("one", "1", "malformed", "", "", ""), UsageOutcome("charged"), None),
    ],
)
def test_a_batch_is_added_up_natively_only_where_all_of_it_was_charged(second, outcome, told):
    records, outcomes = [record_of("one"), second], [UsageOutcome("charged", amount=4), outcome]
    late = NOW - 86_400_000_000
    records[0] = msgspec.structs.replace(records[0], started_at=late - 1)
    assert using.native().charged_together(records, outcomes, late) == told
    assert using.native().charged_together(records, outcomes[:1], late) is None
    assert using.native().charged_together([], [], late) is None


def test_positions_are_told_when_they_are_asked_for():
    positions = Positions("body", range(1, 6))
    assert [*positions] == ["body:1", "body:2", "body:3", "body:4", "body:5"]
    assert [*positions[1:3]] == ["body:2", "body:3"]
    assert (positions[-1], len(positions), bool(positions[:0])) == ("body:5", 5, False)
    with pytest.raises(IndexError):
        positions[5]
