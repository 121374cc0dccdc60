"""Any file, with a map of its columns."""

import io
from typing import Any

import pytest

from allotment.backend.intake.column_map import mapped
from allotment.backend.intake.formats import FormatError, load_format
from allotment.backend.intake.reading import read_records
from allotment.backend.intake.unpacking import UnreadableFile

OWN = "id,type,line,counterpart,direction,start,quantity\n"
ROW = "7,voice,+442071838750,+13051416799,outbound,2026-03-01T12:00:00,60\n"

NESTED = (
    '[{"a": {"id": 7}, "type": "voice", "line": "020 7183 8750", "quantity": 60,'
    ' "counterpart": "+13051416799", "start": "2026-03-01T12:00:00Z"}]'
)
LINE = (
    '{"id": 7, "type": "voice", "line": "+442071838750", "quantity": "60",'
    ' "counterpart": "+13051416799", "start": "2026-03-01T13:00:00+01:00"}\n'
)


def read(text: str, *told: str, format: str = "generic-csv") -> list[Any]:
    declared = mapped(load_format(format), told)
    return list(read_records(io.BytesIO(text.encode()), declared, time_zone="Europe/London", name="f"))


@pytest.mark.parametrize(
    ("text", "told", "format"),
    [
        (OWN + ROW, [], "generic-csv"),
        (
            "Ref;From;To;When;Ms\n7;+442071838750;+13051416799;01.03.2026 12:00;59500\n",
            [
                "id=Ref", "line=From", "counterpart=To", "start=When", "quantity=Ms", "type:=voice",
                "unit:=ms", "separator:=;", "time_format:=%d.%m.%Y %H:%M", "source:=import",
            ],
            "generic-csv",
        ),
        (
            "Ref,From,To,Way,When,S\n7,+442071838750,+13051416799,outbound,1772366400,60\n",
            [
                "id=Ref", "caller=From", "called=To", "direction=Way", "start=When", "quantity=S",
                "type:=voice", "time_format:=epoch_s",
            ],
            "generic-csv",
        ),
        (
            NESTED,
            ["id=a.id", "region:=GB"],
            "generic-json",
        ),
        (
            LINE,
            [],
            "generic-ndjson",
        ),
    ],
)  # fmt: skip
def test_a_map_says_which_column_is_which(text: str, told: list[str], format: str) -> None:
    assert read(text, *told, format=format) == read(OWN + ROW)


def test_a_file_may_lack_what_nobody_asked_for_and_nothing_else() -> None:
    short = "id,type,line,start,quantity\n7,voice,100,2026-03-01T12:00:00,60\n"
    (record,) = read(short)
    assert (record.direction, record.counterpart) == ("outbound", "")
    with pytest.raises(UnreadableFile, match="the header lacks To"):
        read(short, "counterpart=To")


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ("liné=x", "--map liné: write FIELD=COLUMN or FIELD:=TEXT, for one of id"),
        ("line", "--map line: write"),
        ("line=", "--map line: write"),
        ("unit=ms", "--map unit: is not read from a column; write unit:=TEXT"),
        ("unit:=furlong", "quantity.unit: 'furlong' is not one of"),
        ("round:=sideways", "--map: Invalid enum value 'sideways'"),
        ("type:=fax", "fields.usage_type: 'fax' is not one of"),
        ("caller=From", "fields: caller and called go together"),
        ("separator:=||", "csv.separator"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(told: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        mapped(load_format("generic-csv"), [told])
