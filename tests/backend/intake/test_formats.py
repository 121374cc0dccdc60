"""What a format may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from allotment.backend.intake.formats import (
    FormatError,
    format_names,
    load_format,
    parse_format,
    shipped_format,
)

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

DERIVED = """[times.derived.x]
from = "{}"
{}
[quantity]"""
PAIRS = """[pairs]
begins = {{ m = ["A"] }}
ends = {{ m = ["B"] }}
same = {}
crossed = [{}]
[times]"""


@pytest.mark.parametrize("name", format_names())
def test_every_shipped_format_loads_by_its_name(name: str) -> None:
    assert load_format(name).name == name


@pytest.mark.parametrize("name", format_names())
def test_every_shipped_format_is_documented_and_says_what_it_reads(name: str) -> None:
    documented = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    assert f"`{name}`" in documented
    assert load_format(name).description


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
        ("[times]", '[numbers]\nmasked = "0"\n[times]', "numbers.masked: a digit"),
        (
            "[times]",
            '[csv]\ntype_row = ["INT"]\nheader = "no"\n[times]',
            "csv.type_row: stands after a header",
        ),
        ("[times]", "[json]\nsingle = true\n[times]", "json: says something of json, but the kind is csv"),
        ("[times]", '[blocks]\ntitle = "x"\n[times]', "blocks: says something of blocks"),
        ('id = "ref"', 'id = { at = "ref", smallest = true }', "fields.id: smallest needs several"),
        ('id = "ref"', 'id = { at = "ref", address = "ipv6" }', "Invalid enum value 'ipv6'"),
        ('unit = "s"', 'unit = "s"\ntimes = 0', "quantity: times must be at least 1"),
        ('at = "seconds"\nunit = "s"', 'sum = ["a"]\ntimes = 2', "quantity.times: belongs to at"),
        ("[quantity]", DERIVED.format("ended", 'minus = ["d"]'), "derived.x: 'ended' is not in times.at"),
        ("[quantity]", DERIVED.format("start", ""), "derived.x: adds and takes nothing"),
        (
            "[quantity]",
            DERIVED.format("start", 'plus = ["d"]\nunit = "byte"'),
            "'byte' is not a unit of time",
        ),
        ("[times]", PAIRS.format("[]", '"a"'), "pairs.same: names no column"),
        ("[times]", PAIRS.format('["a"]', '"a"'), "pairs.crossed: needs two columns"),
        ("[times]", PAIRS.format('["a"]', ""), "pairs: nothing is read of the row that ends"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_with_its_key(
    said: str, instead: str, complaint: str
) -> None:
    with pytest.raises(FormatError, match=complaint.replace("||", r"\|\|")):
        parse_format(SOUND.replace(said, instead, 1).encode(), "mine")


def test_a_shipped_format_is_read_once_for_all_requests_and_an_unknown_one_is_refused_each_time():
    assert shipped_format("allotment") is shipped_format("allotment")
    for _ in range(2):
        with pytest.raises(FormatError, match="not known"):
            shipped_format("nothing")
