"""A row that could not be read is read again by itself, by a format that was corrected since."""

import io

import pytest
from sheet_format import SHEET

from allotment.backend.intake.formats import parse_format
from allotment.backend.intake.reading import HEADER_MAX, read_records
from allotment.backend.intake.rereading import cut, kept, read_alone
from allotment.domain.usage import UnreadableRecord, UsageRecord

JSON = """
kind = "json"
source = "page"
[json]
list = "data.calls"
[fields]
id = "id"
usage_type = {{ constant = "voice" }}
line = "from"
[times]
at = {{ start = "began" }}
started_at = ["start"]
format = "iso8601"
[quantity]
at = "{seconds}"
"""
ROW = "c-1,+442071838750,+4930123456,2026-11-15T10:00:00Z,bad,61"
HEADER = "Id,From,To,Began,Seconds,Billed"


def format_of(text, **given):
    return parse_format(text.format(**given).encode(), "given")


def unreadable(text, format):
    (found,) = [one for one in read(text, format) if isinstance(one, UnreadableRecord)]
    return found


def read(text, format):
    return list(read_records(io.BytesIO(text.encode()), format, time_zone="Europe/Berlin", name="calls"))


def reread(record, format):
    header, raw = cut(kept(record))
    return read_alone(header, raw, format, time_zone="Europe/Berlin", source=record.source, name="calls")


@pytest.mark.parametrize(
    ("csv", "before", "header"),
    [
        ('header = "yes"', "", HEADER),
        ('header = "yes"', "", HEADER.upper() + ",Other"),
        ('header = "yes"\nskip_lines = 2', "written by\nthe switch\n", HEADER),
        ('header = "yes"\ntype_row = ["VARCHAR", "INTEGER"]', "", HEADER),
        ('header = "detect"\ncolumns = ["Id", "From", "To", "Began", "Seconds", "Billed"]', "", HEADER),
        ('header = "no"\ncolumns = ["Id", "From", "To", "Began", "Seconds", "Billed"]', "", ""),
    ],
)
def test_a_row_of_a_csv_file_is_read_by_the_header_that_was_kept_with_it(csv, before, header):
    wrong, right = (format_of(SHEET, csv=csv, seconds=seconds) for seconds in ("Seconds", "Billed"))
    other = "" if len(header.split(",")) < 7 else ",x"
    types = "VARCHAR,VARCHAR,VARCHAR,VARCHAR,INTEGER,INTEGER\n" if "type_row" in csv else ""
    text = f"{before}{header}\n{types}{ROW}{other}\n".lstrip()
    record = unreadable(text, wrong)
    assert (record.header, record.raw) == (header, ROW + other)
    again = reread(record, right)
    assert isinstance(again, UsageRecord), again
    assert (again.record_id, again.quantity, again.line) == ("c-1", 61, "+442071838750")
    assert [again] == read(text, right)


def test_a_member_of_a_json_page_is_read_alone():
    call = '{"id": "c-1", "from": "+442071838750", "began": "2026-11-15T10:00:00Z", "a": "bad", "b": 61}'
    page = f'{{"data": {{"calls": [{call}]}}}}'
    wrong, right = (format_of(JSON, seconds=seconds) for seconds in ("a", "b"))
    record = unreadable(page, wrong)
    assert record.header == ""
    assert [reread(record, right)] == read(page, right)


def test_what_was_kept_without_a_header_says_so_where_one_is_needed():
    right = format_of(SHEET, csv='header = "yes"', seconds="Billed")
    old = UnreadableRecord("pbx", "c-1", "bad_value", "quantity", "", ROW)
    assert kept(old) == ROW.encode()
    assert reread(old, right) == "the header of its file was not kept with it: give the record by hand"


def test_a_format_that_is_another_says_why_it_cannot_be():
    wrong = format_of(SHEET, csv='header = "yes"', seconds="Seconds")
    record = unreadable(f"{HEADER}\n{ROW}\n", wrong)
    assert "the header lacks Minutes" in reread(
        record, format_of(SHEET, csv='header = "yes"', seconds="Minutes")
    )
    again = reread(record, wrong)
    assert isinstance(again, UnreadableRecord)
    assert again.reason == record.reason


def test_a_header_beyond_measure_is_not_kept():
    wrong = format_of(SHEET, csv='header = "yes"', seconds="Seconds")
    wide = HEADER + "," + "x" * HEADER_MAX
    assert unreadable(f"{wide}\n{ROW},\n", wrong).header == ""


@pytest.mark.parametrize("raw", ["", "a,b", "\u00e9\u4e1c", '{"id": 1}'])
@pytest.mark.parametrize("header", ["", "Id,From", "\u00e9"])
def test_what_is_kept_comes_back_as_it_was(header, raw):
    assert cut(kept(UnreadableRecord("s", "i", "r", "", "", raw, "", header))) == (header, raw)
