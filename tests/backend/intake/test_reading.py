"""Files as they come, and the records that come of them."""

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from allotment.backend.intake.formats import Format, FormatError, load_format, parse_format
from allotment.backend.intake.reading import Reader, read_records
from allotment.backend.intake.rows import ROW_BYTES_MAX
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.domain.usage import UnreadableRecord, UsageRecord

FORMAT = """
kind = "csv"
source = "switch"
[csv]
header = "detect"
columns = ["ref", "caller", "dialled", "began", "ended", "seconds"]
[fields]
id = "ref"
usage_type = { constant = "voice" }
line = "caller"
counterpart = "dialled"
[times]
at = { start = "began", end = "ended" }
started_at = ["start"]
format = "%Y-%m-%d %H:%M:%S"
zone = "tenant"
[quantity]
at = "seconds"
unit = "s"
[[checks]]
duration = "seconds"
must = "equal"
from = "start"
to = "end"
"""
HEADER = "ref,caller,dialled,began,ended,seconds\n"
GOOD = "1,100,200,2026-03-01 12:00:00,2026-03-01 12:01:00,60\n"
NEXT = "2,100,300,2026-03-01 13:00:00,2026-03-01 13:00:05,5\n"
NOON = 1_772_366_400_000_000


def declared(*changes: tuple[str, str]) -> Format:
    text = FORMAT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_format(text.encode(), "mine")


def read(content: bytes | str, format: Format | None = None, zone: str = "Europe/London") -> list[Any]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_records(stream, format or declared(), time_zone=zone, name="calls.csv"))


def ids(found: list[Any]) -> list[str]:
    return [record.record_id if isinstance(record, UsageRecord) else record.reason for record in found]


def test_a_row_becomes_a_record() -> None:
    assert read(HEADER + GOOD) == [
        UsageRecord("switch", "1", "100", "voice", 60, NOON, "outbound", "200"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        GOOD + NEXT,
        HEADER + GOOD + NEXT,
        ("\ufeff" + HEADER + GOOD + NEXT).encode(),
        (HEADER + GOOD + NEXT).replace("\n", "\r\n"),
        HEADER + "\n\n" + GOOD + "   \n" + NEXT.rstrip(),
        gzip.compress((HEADER + GOOD + NEXT).encode(), mtime=0),
        bz2.compress((HEADER + GOOD + NEXT).encode()),
        lzma.compress((HEADER + GOOD + NEXT).encode()),
        (HEADER + GOOD + NEXT).upper(),
        (
            "seconds,extra,ended,began,dialled,caller,ref\n"
            "60,x,2026-03-01 12:01:00,2026-03-01 12:00:00,200,100,1\n"
            "5,,2026-03-01 13:00:05,2026-03-01 13:00:00,300,100,2\n"
        ),
        HEADER + GOOD.replace("200", '"200"') + NEXT,
    ],
)
def test_the_dress_of_a_file_does_not_matter(content: bytes | str) -> None:
    assert read(content) == read(HEADER + GOOD + NEXT)


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        ("1,100,200\n", "malformed", ""),
        ('1,"100"x,200,,,0\n', "malformed", ""),
        ('1,"100,200,2026-03-01 12:00:00,,0\n', "malformed", ""),
        (GOOD.replace("100", "1\0"), "malformed", ""),
        (GOOD.replace("100", "x" * ROW_BYTES_MAX), "malformed", ""),
        (GOOD.replace("100", "x" * 256), "bad_value", "caller"),
        (GOOD.replace("1,", ",", 1), "missing_field", "ref"),
        (GOOD.replace("100", ""), "missing_field", "caller"),
        (GOOD.replace("2026-03-01 12:00:00", ""), "contradictory", "seconds"),
        (GOOD.replace("2026-03-01 12:00:00", "2026-02-30 12:00:00"), "bad_value", "began"),
        (GOOD.replace("2026-03-01 12:00:00", "01/03/2026 12:00"), "bad_value", "began"),
        (GOOD.replace("60", "61"), "contradictory", "seconds"),
        (GOOD.replace(",60", ",-60"), "contradictory", "seconds"),
        (GOOD.replace(",60", ",sixty"), "bad_value", "seconds"),
        (GOOD.replace(",60", ","), "missing_field", "seconds"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_stops_nothing(row: str, reason: str, field: str) -> None:
    first, bad, last = read(HEADER + GOOD + row + NEXT)
    assert (first.record_id, last.record_id) == ("1", "2")
    assert (bad.reason, bad.field, bad.position) == (reason, field, "calls.csv:3")
    assert bad.raw == row.rstrip("\n")[:ROW_BYTES_MAX]


@pytest.mark.parametrize("amount", ["-60", "-1"])
def test_a_negative_quantity_is_a_bad_value(amount: str) -> None:
    unchecked = parse_format(FORMAT.partition("[[checks]]")[0].encode(), "mine")
    (bad,) = read(HEADER + GOOD.replace(",60", f",{amount}"), unchecked)
    assert (bad.reason, bad.field) == ("bad_value", "seconds")


def test_bytes_that_are_not_text_are_kept_readably() -> None:
    good, bad = read((HEADER + GOOD).encode() + NEXT.encode().replace(b"300", b"\xff"))
    assert (good.record_id, bad.reason) == ("1", "malformed")
    assert "\\xff" in bad.raw


def test_an_unreadable_row_has_its_own_id_or_one_of_its_bytes() -> None:
    contradictory, malformed = read(HEADER + GOOD.replace(",60", ",61") + "x,y\n")
    assert contradictory.record_id == "1"
    assert malformed.record_id.startswith("raw:")
    assert len(malformed.record_id) == len("raw:") + 32
    assert malformed.record_id == read(HEADER + GOOD + GOOD + "x,y\n")[2].record_id


def test_over_long_rows_that_begin_alike_have_different_ids() -> None:
    long = "x" * 2 * ROW_BYTES_MAX
    _, one, two = read(f"{HEADER}{GOOD}{long}1\n{long}2\n")
    assert one.record_id != two.record_id


def test_a_quoted_cell_may_hold_line_breaks_and_the_separator() -> None:
    (record,) = read(HEADER + GOOD.replace("200", '"alice,\n""al""@home"'))
    assert record.counterpart == 'alice,\n"al"@home'


def test_a_quote_that_is_never_closed_spoils_its_own_line_only() -> None:
    rows = "".join(GOOD.replace("1,", f"{i},", 1) for i in range(100, 300))
    found = read(HEADER + GOOD.replace("200", '"200') + rows)
    assert ids(found) == ["malformed", *map(str, range(100, 300))]


def test_details_name_no_person() -> None:
    rows = GOOD.replace("100", "+442071838750x" * 30) + GOOD.replace(",60", ",442071838750")
    assert all("2071838750" not in record.detail for record in read(HEADER + GOOD + rows)[1:])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("ref,caller,dialled,began,ended\n" + GOOD, r"calls\.csv: line 1: the header lacks seconds"),
        ("ref,ref,caller,dialled,began,ended,seconds\n", "the header names ref twice"),
        ("a,b,c\n" * 30, "line 1: the row has 3 columns instead of 6"),
        (b"\x00\x01\x02" * 1000, "line 1: the row holds NUL bytes"),
        (b"\xff\xfe" + HEADER.encode("utf-16-le"), "UTF-16"),
        (gzip.compress((HEADER + GOOD).encode(), mtime=0)[:-9], "compressed data is damaged"),
    ],
)
def test_a_file_that_is_something_else_is_refused_at_once(content: bytes | str, complaint: str) -> None:
    with pytest.raises(UnreadableFile, match=complaint):
        read(content)


def test_an_empty_file_holds_no_records() -> None:
    assert read("") == read(HEADER) == read(b"\n\n") == []


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(FormatError, match="'Europe/Londn' is not a time zone"):
        read(GOOD, zone="Europe/Londn")


def test_local_time_is_that_of_the_tenant() -> None:
    summer = GOOD.replace("2026-03-01", "2026-07-01")
    in_london, in_tokyo = read(summer)[0], read(summer, zone="Asia/Tokyo")[0]
    assert in_london.started_at - in_tokyo.started_at == 8 * 3600 * 1_000_000


@pytest.mark.parametrize(
    ("began", "ended", "seconds", "hour_utc"),
    [
        ("01:50:00", "01:10:00", 1200, 0),  # began before the clocks went back, ended after
        ("01:50:00", "02:10:00", 1200, 1),  # began in the second of the two hours
        ("01:50:00", "02:10:00", 4800, 0),  # began in the first
        ("01:10:00", "01:20:00", 600, 0),  # either: the earlier
    ],
)
def test_the_hour_that_happens_twice_is_told_by_the_duration(
    began: str, ended: str, seconds: int, hour_utc: int
) -> None:
    (record,) = read(f"1,100,200,2026-10-25 {began},2026-10-25 {ended},{seconds}\n")
    assert record.quantity == seconds
    assert record.started_at // 3_600_000_000 % 24 == hour_utc


def test_a_duration_that_no_reading_of_the_clock_explains_is_contradictory() -> None:
    (bad,) = read("1,100,200,2026-10-25 01:50:00,2026-10-25 02:10:00,1201\n")
    assert bad.reason == "contradictory"


NOON_TEXTS = [
    ("iso8601", "2026-03-01T12:00:00Z"),
    ("iso8601", "2026-03-01T13:00:00.000+01:00"),
    ("rfc2822", "Sun, 01 Mar 2026 12:00:00 +0000"),
    ("epoch_s", "1772366400"),
    ("epoch_s", "1772366400.000"),
    ("epoch_ms", "1772366400000"),
    ("epoch_us", "1772366400000000"),
    ("gregorian_s", "63939585600"),
    ("%d/%m/%Y %H%M", "01/03/2026 1200"),
    ("%d %b %Y %I:%M %p", "01 Mar 2026 12:00 PM"),
]


@pytest.mark.parametrize(("pattern", "text"), NOON_TEXTS)
def test_times_are_read_as_declared(pattern: str, text: str) -> None:
    format = declared(("%Y-%m-%d %H:%M:%S", pattern))
    (record,) = read(f'1,100,200,"{text}","{text}",0\n', format)
    assert record.started_at == NOON


def test_a_time_without_offset_is_unreadable_where_it_must_state_one() -> None:
    format = declared(("%Y-%m-%d %H:%M:%S", "iso8601"), ('"tenant"', '"stated"'))
    found = read(HEADER + GOOD, format)
    assert [(bad.reason, bad.field) for bad in found] == [("bad_value", "began")]


@pytest.mark.parametrize("zero", ["", "0", "0000-00-00 00:00:00"])
def test_a_zero_date_is_no_date(zero: str) -> None:
    format = declared(('started_at = ["start"]', 'started_at = ["end", "start"]'))
    (record,) = read(f"1,100,200,2026-03-01 12:00:00,{zero},0\n", format)
    assert record.started_at == NOON


@pytest.mark.parametrize(
    ("usage_type", "unit", "round", "text", "quantity"),
    [
        ("voice", "s", "refuse", "60", 60),
        ("voice", "s", "refuse", "60.0", 60),
        ("voice", "s", "refuse", "60.5", None),
        ("voice", "ms", "refuse", "60000", 60),
        ("voice", "ms", "up", "60001", 61),
        ("voice", "ms", "down", "60999", 60),
        ("voice", "ms", "half_up", "60500", 61),
        ("voice", "ms", "half_up", "60499", 60),
        ("voice", "min", "refuse", "1.5", 90),
        ("voice", "hh:mm:ss", "refuse", "01:02:03", 3723),
        ("voice", "hh:mm:ss", "refuse", "2:03", 123),
        ("voice", "hh:mm:ss", "refuse", "123", None),
        ("data", "byte", "refuse", "9007199254740993", 9007199254740993),
        ("data", "kB", "refuse", "0.3", 300),
        ("data", "MiB", "refuse", "1", 1048576),
        ("data", "bit", "up", "9", 2),
        ("data", "GB", "refuse", "1e99", None),
        ("messaging", "message", "refuse", "3", 3),
        ("messaging", "message", "refuse", "1_000", None),
        ("messaging", "message", "refuse", "٣", None),
    ],
)
def test_quantities_are_exact(
    usage_type: str, unit: str, round: str, text: str, quantity: int | None
) -> None:
    sound = FORMAT.partition("[[checks]]")[0].replace('"voice"', f'"{usage_type}"')
    sound = sound.replace('unit = "s"', f'unit = "{unit}"\nround = "{round}"')
    (found,) = read(HEADER + GOOD.replace(",60", f",{text}"), parse_format(sound.encode(), "mine"))
    assert getattr(found, "quantity", None) == quantity


def test_columns_can_be_added_up_and_usage_types_come_from_a_table() -> None:
    text = """
    kind = "csv"
    source = "gateway"
    [fields]
    id = { at = ["began", "line"], digest = true }
    usage_type = { at = "service", table = { gprs = "data", tel = "voice" } }
    line = "line"
    [times]
    at = { start = "began" }
    started_at = ["start"]
    format = "epoch_s"
    [quantity]
    sum = ["up", "down"]
    unit = { data = "kB", voice = "s" }
    """
    rows = "began,line,service,up,down\n1772366400,a,gprs,1,2\n1772366400,b,tel,,5\n1772366400,c,fax,1,1\n"
    data, voice, fax = read(rows, parse_format(text.encode(), "mine"))
    assert (data.usage_type, data.quantity) == ("data", 3000)
    assert (voice.usage_type, voice.quantity) == ("voice", 5)
    assert (fax.reason, fax.field) == ("bad_value", "service")
    assert len({data.record_id, voice.record_id, fax.record_id}) == 3


def test_every_row_is_accounted_for() -> None:
    format = declared(("[fields]", '[ignore]\ndialled = ["TOTAL"]\n[fields]'))
    stream = io.BytesIO((HEADER + GOOD + GOOD.replace("200", "TOTAL") + "x,y\n").encode())
    reader = Reader(stream, format, time_zone="UTC")
    assert len(list(reader)) == 2
    counts = reader.counts
    assert (counts.read, counts.records, counts.ignored, counts.unreadable, counts.merged) == (3, 1, 1, 1, 0)


def test_the_callers_stream_stays_open() -> None:
    stream = io.BytesIO(gzip.compress(GOOD.encode(), mtime=0))
    list(read_records(stream, declared(), time_zone="UTC"))
    assert not stream.closed


@pytest.mark.parametrize("seed", range(20))
def test_no_noise_gets_past_the_reader(seed: int) -> None:
    chance = random.Random(seed)
    noise = bytearray((HEADER + (GOOD + NEXT) * 20).encode())
    for _ in range(40):
        noise[chance.randrange(len(HEADER), len(noise))] = chance.choice(b'",\n\r\0\xff -9a')
    for found in read(bytes(noise)):
        assert isinstance(found, UsageRecord | UnreadableRecord)


# Our own shape, one object per line.

OWN = '{"source":"pgw","id":"a","line":"+442071838750","type":"data",'
OWN += '"quantity":%s,"start":"2026-03-01T12:00:00Z"%s}\n'


def own(content: str, source: str = "") -> list[Any]:
    stream = io.BytesIO(content.encode())
    return list(read_records(stream, load_format("allotment"), time_zone="UTC", name="u", source=source))


def test_our_own_shape_says_everything() -> None:
    more = ',"direction":"inbound","counterpart":"Alice","attributes":{"place":"home","network":"fixed"}'
    assert own(OWN % ("1048576", more)) == [
        UsageRecord(
            "pgw", "a", "+442071838750", "data", 1048576, NOON, "inbound", "alice",
            (("network", "fixed"), ("place", "home")),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        (OWN % ("1", ',"direcion":"inbound"'), "unknown_field", "direcion"),
        (OWN % ("1", ',"direction":"sideways"'), "bad_value", "direction"),
        (OWN % ("1", ',"attributes":[]'), "bad_value", "attributes"),
        (OWN % ("1", ',"attributes":{"a":{"b":1}}'), "bad_value", "attributes"),
        (OWN % ("1", ',"counterpart":"\\u0000"'), "bad_value", "counterpart"),
        (OWN % ("1.5", ""), "bad_value", "quantity"),
        (OWN % ("-1", ""), "bad_value", "quantity"),
        (OWN % ("9223372036854775808", ""), "bad_value", "quantity"),
        (OWN % ("null", ""), "missing_field", "quantity"),
        (OWN % ("[1]", ""), "bad_value", "quantity"),
        (OWN.replace('"data"', '"Fax"') % ("1", ""), "bad_value", "type"),
        (OWN.replace("Z", "") % ("1", ""), "bad_value", "start"),
        (OWN.replace('"pgw"', '""') % ("1", ""), "missing_field", "source"),
        ("[1]\n", "malformed", ""),
        ('{"id":\n', "malformed", ""),
        ('{"a":' * 500 + "\n", "malformed", ""),
    ],
)
def test_a_bad_line_of_ours_says_what_is_wrong_and_stops_nothing(line: str, reason: str, field: str) -> None:
    first, bad, last = own(OWN % ("1", "") + line + OWN % ('"2"', ""))
    assert (first.quantity, last.quantity) == (1, 2)
    assert (bad.reason, bad.field, bad.position) == (reason, field, "u:2")


def test_a_record_without_source_is_its_senders() -> None:
    line = OWN.replace('"source":"pgw",', "") % ("1", "")
    assert own(line, source="sender")[0].source == "sender"
    assert own(OWN % ("1", ""), source="sender")[0].source == "pgw"


@pytest.mark.parametrize("content", ["not json\n", "[{},\n{}]\n", '{\n"id": 1\n}\n', "a,b,c\n" * 50])
def test_a_stream_that_is_not_ndjson_is_refused(content: str) -> None:
    with pytest.raises(UnreadableFile, match=r"u: line 1: .*is this the right format"):
        own(content)


class Endless(io.RawIOBase):
    """So many lines of ours, made while they are read."""

    def __init__(self, count: int) -> None:
        self._lines: Iterator[bytes] = ((OWN % (i, "")).encode() for i in range(count))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return next(self._lines, b"")


def test_ndjson_streams_in_constant_memory() -> None:
    format = load_format("allotment")
    tracemalloc.start()
    count = sum(1 for _ in read_records(Endless(20_000), format, time_zone="UTC"))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000  # the lines themselves are 2.4 MB


def test_a_damaged_object_that_comes_alone_is_a_record_and_not_a_wrong_file() -> None:
    [bad] = own('{"source":"pgw","id":"7",\n')
    assert (bad.reason, bad.position) == ("malformed", "u:1")


def zipped(*members: tuple[str, str]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return whole.getvalue()


def test_a_zip_of_one_file_is_that_file() -> None:
    assert read(zipped(("calls.csv", HEADER + GOOD))) == read(HEADER + GOOD)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (zipped(("a.csv", GOOD), ("parameters.json", "{}")), "is a zip of 2 files; unpack it"),
        (zipped(), "is a zip of 0 files"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "is compressed with zstd"),
        (gzip.compress((HEADER + GOOD * 2_000).encode(), mtime=0)[:-30], "damaged after row"),
        (bz2.compress((HEADER + GOOD * 2_000).encode())[:-30], "damaged after row"),
        (lzma.compress((HEADER + GOOD * 2_000).encode())[:-30], "damaged after row"),
        (bz2.compress((HEADER + GOOD).encode())[:20] + b"xxxx", "damaged after row"),
    ],
)
def test_what_cannot_be_unpacked_is_refused_with_a_remedy(content: bytes, complaint: str) -> None:
    with pytest.raises(UnreadableFile, match=complaint):
        read(content)


def test_compressed_data_from_outside_is_not_unpacked_behind_its_bounds() -> None:
    reader = Reader(io.BytesIO(bz2.compress(GOOD.encode())), declared(), time_zone="UTC", packed=False)
    with pytest.raises(UnreadableFile):
        list(reader)


PAIRED = """
kind = "ndjson"
source = "proxy"
[pairs]
begins = { m = ["IN"] }
ends = { m = ["OUT"] }
same = ["c"]
window_rows = 3
[fields]
id = "c"
usage_type = { constant = "voice" }
line = "who"
[times]
at = { start = "t", end = "end.t" }
started_at = ["start"]
format = "epoch_s"
[quantity]
from = "start"
to = "end"
"""


def half(method: str, call: str, at: int) -> str:
    return f'{{"m": "{method}", "c": "{call}", "who": "ann", "t": {1_772_366_400 + at}}}\n'


@pytest.mark.parametrize(
    ("between", "outcome"), [(0, [9]), (2, [0, 0, 9]), (3, [0, "unpaired", 0, 0, "unpaired"])]
)
def test_a_row_waits_for_its_other_half_as_long_as_the_window_is(between: int, outcome: list[Any]) -> None:
    others = "".join(half("OTHER", f"x{i}", 0) for i in range(between))
    rows = half("IN", "a", 0) + others + half("OUT", "a", 9)
    found = read(rows, parse_format(PAIRED.encode(), "proxy"))
    told = [
        getattr(each, "quantity", None) if isinstance(each, UsageRecord) else each.reason for each in found
    ]
    assert sorted(map(str, told)) == sorted(map(str, outcome))
