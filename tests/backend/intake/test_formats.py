"""What a format may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from allotment.backend.intake.formats import FormatError, format_names, load_format, parse_format

SOUND = """
kind = "csv"
source = "switch"
[fields]
id = "ref"
usage_type = { constant = "voice" }
line = "caller"
[times]
at = { start = "began" }
started_at = ["start"]
format = "iso8601"
[quantity]
at = "seconds"
unit = "s"
"""


@pytest.mark.parametrize("name", format_names())
def test_every_shipped_format_loads_by_its_name(name: str) -> None:
    assert load_format(name).name == name


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(FormatError, match=r"'asterisk'.*allotment, asterisk-csv.*\.toml"):
        load_format("asterisk")


def test_a_carriers_own_file_is_a_format_named_after_the_file(tmp_path: Path) -> None:
    (tmp_path / "our-switch.toml").write_text(SOUND)
    assert load_format(str(tmp_path / "our-switch.toml")).name == "our-switch"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"gone\.toml"):
        load_format(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("said", "instead", "complaint"),
    [
        ('kind = "csv"', 'kind = "xml"', "kind: Invalid enum value 'xml'"),
        ('kind = "csv"', 'kind = "csv', "docs/formats.md"),
        ('id = "ref"', 'ident = "ref"', "fields: Object contains unknown field `ident`"),
        ('id = "ref"', 'id = [{ at = "ref", patern = "x" }]', r"fields\.id\[0\]: .*patern"),
        ('id = "ref"', 'id = { at = "ref", pattern = "(" }', "fields.id: pattern is not a regular"),
        ('id = "ref"', 'id = { at = "ref", pattern = "r" }', "fields.id: pattern has 0 groups"),
        ('id = "ref"', 'id = { at = "ref", constant = "1" }', "fields.id: give either at or constant"),
        ('constant = "voice"', 'constant = "fax"', "fields.usage_type: 'fax' is not one of data, voice"),
        ('line = "caller"', 'caller = "caller"', "fields: caller and called go together"),
        ('line = "caller"', 'counterpart = "dst"', "fields: give line"),
        ('["start"]', '["answer"]', "times.started_at: 'answer' is not a time; times.at has start"),
        ('"iso8601"', '"iso"', "times.format: is neither a strptime pattern nor one of iso8601"),
        ("[times]", '[times]\nzone = "Mars/Base"', "times.zone: 'Mars/Base' is not a time zone"),
        ('unit = "s"', 'unit = "kB"', "quantity.unit: 'kB' cannot be counted as voice, in seconds"),
        ('unit = "s"', 'unit = "furlong"', "quantity.unit: 'furlong' is not one of us"),
        ('unit = "s"', 'sum = ["a", "b"]', "quantity: give one of at, sum"),
        ('source = "switch"', "", "source: is missing"),
        ("[times]", '[csv]\nseparator = "||"\n[times]', "csv.separator: '||' is not one"),
        ("[times]", '[csv]\nencoding = "utf-16"\n[times]', "csv.encoding: 'utf-16' is not"),
        ("[times]", '[csv]\nheader = "no"\n[times]', "csv.columns: name the columns"),
        (
            "[times]",
            '[csv]\ncolumns = ["ref", "caller", "began"]\n[times]',
            "quantity.at: 'seconds' is not in",
        ),
        ("[times]", '[csv]\noptional = [["x"]]\n[times]', "csv.optional: 'x' is not in csv.columns"),
        ("[times]", '[legs]\nleg = ["n"]\nfirst = "start"\n[times]', "quantity: with legs, give from and to"),
        ("[times]", '[numbers]\nregion = "UK1"\n[times]', "numbers.region: 'UK1'"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_with_its_key(
    said: str, instead: str, complaint: str
) -> None:
    with pytest.raises(FormatError, match=complaint.replace("||", r"\|\|")):
        parse_format(SOUND.replace(said, instead, 1).encode(), "mine")
