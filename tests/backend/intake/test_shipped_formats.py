"""The formats that come with the product, on records as the elements write them."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from allotment.backend.intake import legs as legs_module
from allotment.backend.intake.formats import Format, load_format, parse_format
from allotment.backend.intake.reading import Reader
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.domain.usage import UnreadableRecord, UsageRecord

ROOT = Path(__file__).parents[3]
CDR = ROOT.parent / "shared" / "data" / "cdr"
needs_shared_data = pytest.mark.skipif(not CDR.is_dir(), reason="the shared sample records are not here")


def read(content: bytes | str, format: str | Format) -> tuple[list[Any], Reader]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    declared = load_format(format) if isinstance(format, str) else format
    reader = Reader(stream, declared, time_zone="Europe/London", name="calls")
    return list(reader), reader


# Asterisk


def leg(
    call: str, sequence: int, start: int, answer: int | None, end: int, src: str = "100", dst: str = "200",
    billsec: int | None = None, channel: str = "SIP/alice-0000001a",
) -> str:  # fmt: skip
    """One row of a Master.csv; times are seconds after noon."""
    answered = f'"{clock(answer)}"' if answer is not None else ""
    stated = billsec if billsec is not None else end - answer if answer is not None else 0
    return (
        f'"","{src}","{dst}","default","""A"" <1>","{channel}","SIP/b-1","Dial","SIP/b,,Tt","{clock(start)}",'
        f'{answered},"{clock(end)}",{end - start},{stated},"ANSWERED","DOCUMENTATION","u{sequence}","","",'
        f'"{call}",{sequence}\n'
    )


def clock(second: int) -> str:
    return f"2026-03-01 12:{second // 60:02}:{second % 60:02}"


NOON = 1_772_366_400


@pytest.mark.parametrize(
    ("rows", "seconds", "started_after"),
    [
        ([leg("c", 1, 0, 10, 70)], 60, 10),
        ([leg("c", 1, 0, None, 20)], 0, 0),
        ([leg("c", 1, 0, 10, 10)], 0, 10),
        ([leg("c", 1, 0, 10, 60), leg("c", 2, 30, 35, 50), leg("c", 3, 60, 60, 70)], 60, 10),
        ([leg("c", 1, 0, 10, 30), leg("c", 2, 30, 35, 95)], 80, 10),
        ([leg("c", 1, 0, None, 10), leg("c", 2, 0, 10, 70)], 60, 10),
        ([leg("c", 2, 30, 35, 95), leg("c", 1, 0, 10, 30)], 80, 10),
        ([leg("c", 1, 0, 10, 60), leg("c", 1, 0, 10, 60)], 50, 10),
        ([leg("c", 1, 0, None, 10), leg("c", 2, 5, None, 20)], 0, 0),
    ],
)
def test_a_call_lasts_as_long_as_any_of_its_legs_is_answered(
    rows: list[str], seconds: int, started_after: int
) -> None:
    (record,), reader = read("".join(rows), "asterisk-csv")
    assert (record.record_id, record.quantity) == ("c", seconds)
    assert record.started_at == (NOON + started_after) * 1_000_000
    assert reader.counts.merged == len(rows) - 1


def test_the_parties_are_those_of_the_first_leg_and_the_first_answered_one() -> None:
    rows = (
        leg("c", 2, 0, 8, 20, dst="302") + leg("c", 1, 0, None, 20, dst="301") + leg("c", 3, 9, 9, 20, "302")
    )
    (record,), _ = read(rows, "asterisk-csv")
    assert (record.line, record.counterpart) == ("100", "302")


@pytest.mark.parametrize(
    ("channel", "line"),
    [
        ("SIP/alice-0000001a", "alice"),
        ("PJSIP/trunk-a-0000001a", "trunk-a"),
        ("Local/100@internal-0000001a;2", "100@internal"),
        ("DAHDI/i1/2025550101-2f", "i1/2025550101"),
    ],
)
def test_a_call_without_caller_is_that_of_its_endpoint(channel: str, line: str) -> None:
    (record,), _ = read(leg("c", 1, 0, None, 5, src="", dst="s", channel=channel), "asterisk-csv")
    assert (record.line, record.counterpart) == (line, "")


def test_a_leg_that_contradicts_itself_does_not_join_its_call() -> None:
    rows = leg("c", 1, 0, 10, 70) + leg("c", 2, 0, 10, 70, billsec=61) + leg("c", 3, 0, 10, 70, billsec=62)
    (one, two, record), reader = read(rows, "asterisk-csv")
    assert (record.record_id, record.quantity) == ("c", 60)
    assert (one.record_id, two.record_id) == ("c/u2/2", "c/u3/3")
    assert {one.reason, two.reason} == {"contradictory"}
    assert one.detail.startswith("billsec says 61 s, but answer to end is 60 s")
    assert reader.counts.merged == 0


@pytest.mark.parametrize(
    ("cells", "record_id"), [(21, "c"), (18, "u1"), (17, "u1")],
)  # fmt: skip
def test_columns_that_the_switch_need_not_write_may_be_missing(cells: int, record_id: str) -> None:
    row = ",".join(leg("c", 1, 0, 10, 70).strip().rsplit(",", 21 - cells)[:1])
    ((record,), _) = read(row + "\n", "asterisk-csv")
    assert (record.record_id, record.quantity) == (record_id, 60)


def test_a_file_without_ids_is_refused() -> None:
    row = leg("c", 1, 0, 10, 70).strip().rsplit(",", 5)[0]
    with pytest.raises(UnreadableFile, match="16 columns instead of 17 or 18 or 20 or 21"):
        read((row + "\n") * 3, "asterisk-csv")


def windowed(rows: int) -> Format:
    text = (ROOT / "backend/intake/formats/asterisk-csv.toml").read_text()
    return parse_format(f"{text}\nwindow_rows = {rows}\n".encode(), "small")


def test_legs_within_the_window_are_one_call_and_others_are_not() -> None:
    others = "".join(leg(f"x{i}", i, 0, 10, 20) for i in range(4))
    first, last = leg("c", 1, 0, 10, 30), leg("c", 2, 30, 35, 95)
    inside, _ = read(first + others + last, windowed(5))
    outside, _ = read(first + others + last, windowed(4))
    assert [record.quantity for record in inside if record.record_id == "c"] == [80]
    assert [record.quantity for record in outside if record.record_id == "c"] == [20, 60]


def test_calls_come_out_while_the_file_is_still_being_read() -> None:
    rows = "".join(leg(f"x{i}", i, 0, 10, 20) for i in range(100)).encode()
    reader = Reader(io.BytesIO(rows), windowed(10), time_zone="UTC")
    next(iter(reader))
    assert reader.counts.read == 11


def test_rows_that_all_claim_to_be_one_call_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legs_module, "LEGS_MAX", 3)
    found, reader = read("".join(leg("c", i, 0, 10, 20) for i in range(5)), "asterisk-csv")
    assert [getattr(record, "reason", "call") for record in found] == ["too_many_legs"] * 2 + ["call"]
    assert (reader.counts.merged, reader.counts.unreadable, reader.counts.records) == (2, 2, 1)


@needs_shared_data
def test_the_nine_scenarios_of_the_asterisk_specification() -> None:
    content = (CDR / "asterisk_spec_scenarios.csv").read_bytes()
    found, reader = read(content, "asterisk-csv")
    seconds = {r.record_id.partition("/")[2]: r.quantity for r in found if isinstance(r, UsageRecord)}
    assert seconds == {
        'Unanswered "Inbound" Call': 0,
        'Unanswered "Outbound" Call': 0,
        "Single Party": 58,
        "Basic Call": 112,
        "Unanswered Dial": 0,
        "Parallel Dial": 60,
        "Blind Transfer": 80,
        "Core Attended Transfer to Channel": 50,
        "SIP Attended Transfer": 60,
    }
    bad = [record for record in found if isinstance(record, UnreadableRecord)]
    assert [(b.reason, b.position) for b in bad] == [
        ("contradictory", "calls:12"),
        ("contradictory", "calls:13"),
    ]
    assert len({record.record_id for record in found}) == 11
    assert (reader.counts.read, reader.counts.merged) == (15, 4)
    assert read(content, "asterisk-csv")[0] == found


# Twilio

CALL = (
    '{"sid":"CA1","from":"+13051416799","to":"+13051913581","direction":"outbound-api","status":"completed",'
    '"duration":"4","start_time":"Sun, 01 Mar 2026 12:00:00 +0000",'
    '"end_time":"Sun, 01 Mar 2026 12:01:00 +0000",'
    '"date_created":"Sun, 01 Mar 2026 11:59:59 +0000"}'
)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (("CA1", "CA1"), (4, "outbound", "+13051416799", "+13051913581")),
        (("outbound-api", "inbound"), (4, "inbound", "+13051913581", "+13051416799")),
        (('"4"', '"60"'), (60, "outbound", "+13051416799", "+13051913581")),
        (('"4"', '"61"'), "contradictory"),
        (('"4"', "null"), "bad_value"),
        (
            ('"completed","duration":"4"', '"busy","duration":null'),
            (0, "outbound", "+13051416799", "+13051913581"),
        ),
        (("outbound-api", "sideways"), "bad_value"),
    ],
)
def test_a_twilio_call(change: tuple[str, str], outcome: Any) -> None:
    (found,), _ = read('{"page":0,"calls":[' + CALL.replace(*change) + "]}", "twilio-calls")
    if isinstance(outcome, str):
        assert found.reason == outcome
    else:
        assert (found.quantity, found.direction, found.line, found.counterpart) == outcome


def test_a_twilio_call_that_is_still_up_is_left_for_a_later_page() -> None:
    found, reader = read('{"calls":[' + CALL.replace("completed", "in-progress") + "]}", "twilio-calls")
    assert (found, reader.counts.ignored) == ([], 1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"messages":[]}', "calls: has no 'calls' in the document, which holds messages"),
        ('{"calls":{}}', "calls is not what the format says"),
        ("[]", "the document is not what the format says"),
        ("<html>", "calls: is not JSON"),
        ("", "calls: is not JSON"),
        ('{"calls":["a"]}', "line 1: the record is not a JSON object"),
    ],
)
def test_a_page_of_something_else_is_refused(content: str, complaint: str) -> None:
    with pytest.raises(UnreadableFile, match=complaint):
        read(content, "twilio-calls")


def test_an_unreadable_member_of_a_page_keeps_its_own_bytes() -> None:
    bad = CALL.replace('"4"', "4.50").replace(",", ", ")
    (found,), _ = read(f'{{"calls":[{bad}]}}', "twilio-calls")
    assert (found.reason, found.record_id, found.raw) == ("bad_value", "CA1", bad)


@needs_shared_data
def test_twilios_own_example_pages() -> None:
    calls, _ = read((CDR / "twilio_calls_page.json").read_bytes(), "twilio-calls")
    messages, _ = read((CDR / "twilio_messages_page.json").read_bytes(), "twilio-messages")
    assert [(r.direction, r.line, r.quantity) for r in calls] == [
        ("outbound", "+13051416799", 4),
        ("inbound", "+13051913580", 3),
    ]
    assert [(r.usage_type, r.direction, r.quantity) for r in messages] == [
        ("messaging", "outbound", 1),
        ("messaging", "inbound", 1),
    ]


# All that was collected

SAMPLES = {
    ("asterisk_spec_scenarios.csv", "asterisk-csv"): (9, 420, {"contradictory": 2}),
    ("freeswitch_csv_example_layout.csv", "freeswitch-csv"): "columns instead of",
    ("twilio_calls_page.json", "twilio-calls"): (2, 7, {}),
    ("twilio_messages_page.json", "twilio-messages"): (2, 2, {}),
    ("twilio_usage_records.json", "twilio-calls"): "has no 'calls'",
    ("twilio_usage_triggers.json", "twilio-calls"): "has no 'calls'",
}
"""Records, seconds or messages in all, and how many wait for which reason; or why it is no usage at all."""


@needs_shared_data
def test_each_sample_file_brings_so_many_calls_seconds_and_reasons_and_none_is_forgotten() -> None:
    assert {file for file, _ in SAMPLES} == {path.name for path in CDR.iterdir()}
    for (file, format), expected in SAMPLES.items():
        content = (CDR / file).read_bytes()
        if isinstance(expected, str):
            with pytest.raises(UnreadableFile, match=expected):
                read(content, format)
            continue
        found, _ = read(content, format)
        records = [one for one in found if isinstance(one, UsageRecord)]
        reasons = Counter(one.reason for one in found if isinstance(one, UnreadableRecord))
        assert (len(records), sum(one.quantity for one in records), dict(reasons)) == expected, file


# The documentation


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs/formats.md").read_text()
    return [part.partition("```")[0] for part in text.split(f"```{language}\n")[1:]]


def test_the_example_in_the_documentation_does_what_it_says() -> None:
    format = parse_format(blocks("toml")[0].encode(), "our-switch")
    found, reader = read(blocks("csv")[0], format)
    nine_thirty = (NOON + 13 * 86_400 - 9_000) * 1_000_000
    network = (("network", "fixed"),)
    assert found == [
        UsageRecord(
            "london-1", "7001", "+442071838750", "voice", 62, nine_thirty, "outbound", "+13051416799", network
        ),
        UsageRecord(
            "london-1",
            "7002",
            "101",
            "voice",
            0,
            nine_thirty + 60_000_000,
            "inbound",
            "+13051416799",
            network,
        ),
    ]
    assert reader.counts.ignored == 1


def test_our_own_shape_in_the_documentation_is_read() -> None:
    found, _ = read(blocks("json")[0], "allotment")
    assert [(r.source, r.quantity, r.direction) for r in found] == [
        ("pgw-2", 1048576, "outbound"),
        ("msc-1", 60, "inbound"),
    ]
