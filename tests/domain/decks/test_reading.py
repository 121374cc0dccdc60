"""Rate sheets, cell by cell: what is read exactly, and what is refused with line, field and remedy."""

from datetime import date

import pytest

from allotment.domain.decks.layout import USUAL, Columns, Layout, parse_layout
from allotment.domain.decks.reading import EVER, NEVER, read_sheet
from allotment.domain.refusals import Refused


def read(text, layout=USUAL):
    return read_sheet(text, layout, "EUR").rows


def refused(text, layout=USUAL):
    with pytest.raises(Refused) as refusal:
        read(text, layout)
    return refusal.value


def bad_lines(text, layout=USUAL):
    refusal = refused(text, layout)
    assert refusal.code == "bad_deck", refusal
    return [(bad["line"], bad["field"], bad["value"]) for bad in refusal.facts["lines"]]


@pytest.mark.parametrize(
    ("cell", "prefixes"),
    [
        ("44", ["+44"]),
        ("+44", ["+44"]),
        ("0044", ["+44"]),
        ('="44"', ["+44"]),
        ("'44", ["+44"]),
        ("1-5,7", ["+1", "+2", "+3", "+4", "+5", "+7"]),
        ("4470-4472", ["+4470", "+4471", "+4472"]),
        ("4470 - 4471", ["+4470", "+4471"]),
        ("+4470-+4471", ["+4470", "+4471"]),
        ("0044 0045", ["+44", "+45"]),
        ("4470-2", ["+4470", "+4471", "+4472"]),
        ("4470;4475", ["+4470", "+4475"]),
        ("44|45&46", ["+44", "+45", "+46"]),
        ("7, 7", ["+7"]),
        ("5-5", ["+5"]),
    ],
)
def test_prefixes_are_read_with_their_ranges(cell, prefixes):
    (row,) = read(f'prefix\tprice\n"{cell.replace(chr(34), chr(34) * 2)}"\t0.1')
    assert list(row.prefixes) == prefixes


@pytest.mark.parametrize(
    "cell",
    [
        *("", "abc", "0207", "4.4787E+11", "4,4787E+11", "44.0", "44e3", "5-4", "44-4500"),
        *("10000-30000", "1234567890123456789", "44-", "-5", "--"),
    ],
)
def test_a_prefix_that_says_nothing_certain_is_refused(cell):
    assert bad_lines(f'prefix\tprice\n"{cell}"\t0.1')[0][:2] == (2, "prefix")


def test_a_prefix_that_a_spreadsheet_made_a_number_of_has_its_remedy():
    (told,) = refused("prefix,price\n4.4787E+11,0.1").facts["lines"]
    assert "format Text" in told["remedy"]


def test_national_codes_take_the_country_code_of_their_row():
    (row,) = read('country code,codes,rate\n44,"7400-7402,07",0.1')
    assert row.prefixes == ("+447400", "+447401", "+447402", "+4407")


@pytest.mark.parametrize(
    ("cell", "decimal", "price"),
    [
        *(
            ("0.05", ".", "0.05"),
            (".05", ".", "0.05"),
            ("1", ".", "1"),
            ("0.10", ".", "0.1"),
            ("007.5", ".", "7.5"),
        ),
        *(("0,05", ",", "0.05"), ("0", ".", "0"), ("0.000000000001", ".", "0.000000000001")),
        *(
            ("0,05", ".", None),
            ("0.05", ",", None),
            ("1,000.5", ".", None),
            ("-1", ".", None),
            ("", ".", None),
        ),
        *(
            ("1e-3", ".", None),
            ("0.0000000000001", ".", None),
            ("$0.1", ".", None),
            ("1234567890", ".", None),
        ),
    ],
)
def test_a_price_is_a_plain_number_with_the_declared_decimal_sign(cell, decimal, price):
    text, layout = f'prefix\tprice\n44\t"{cell}"', Layout(decimal=decimal)
    if price is None:
        assert bad_lines(text, layout) == [(2, "price", cell)]
    else:
        assert read(text, layout)[0].price == price


@pytest.mark.parametrize(
    ("cell", "minimum", "increment"),
    [
        *(
            ("60/60", 60, 60),
            ("30/6", 30, 6),
            ("1/1", 1, 1),
            ("60", 60, 60),
            ("60+1", 60, 1),
            ("30 / 6", 30, 6),
        ),
        *(("0/60/60", 60, 60), ("", 1, 1), ("6-6", 6, 6)),
        *(
            ("45/30", None, None),
            ("1/6", None, None),
            ("0/1", None, None),
            ("x", None, None),
            ("5/1/1", None, None),
        ),
    ],
)
def test_increments_are_written_as_carriers_write_them(cell, minimum, increment):
    text = f"prefix,price,increment\n44,0.1,{cell}"
    if minimum is None:
        assert bad_lines(text) == [(2, "increment", cell)]
    else:
        assert (read(text)[0].minimum, read(text)[0].increment) == (minimum, increment)


def test_a_minimum_may_have_a_column_of_its_own():
    (row,) = read("prefix,price,minimum,increment\n44,0.1,30,6")
    assert (row.minimum, row.increment) == (30, 6)


@pytest.mark.parametrize(
    ("cell", "formats", "day"),
    [
        ("2026-12-01", USUAL.date_formats, date(2026, 12, 1)),
        ("01.12.2026", USUAL.date_formats, date(2026, 12, 1)),
        ("2026-12-01 00:00:00", USUAL.date_formats, date(2026, 12, 1)),
        ("12/01/2026", ("%m/%d/%Y",), date(2026, 12, 1)),
        ("12/01/2026", USUAL.date_formats, None),
        ("2026-02-29", USUAL.date_formats, None),
        ("2026-12-01 10:00", USUAL.date_formats, None),
        ("", USUAL.date_formats, EVER),
    ],
)
def test_a_date_is_read_by_a_declared_pattern_and_never_guessed(cell, formats, day):
    text, layout = f"prefix,price,effective date\n44,0.1,{cell}", Layout(date_formats=formats)
    if day is None:
        assert bad_lines(text, layout) == [(2, "starts_on", cell)]
    else:
        assert read(text, layout)[0].starts_on == day


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_separator_is_found_and_a_byte_order_mark_does_not_matter(separator, mark):
    lines = [("Carrier A-Z", "", ""), ("Destination", "Prefix", "Rate"), ("UK", "44", "0.1"), ("", "", "")]
    (row,) = read(mark + "\r\n".join(map(separator.join, lines)))
    assert (row.line, row.destination, row.prefixes, row.price) == (3, "UK", ("+44",), "0.1")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["44,0.1,,", "44,0.2,,"], (3, "prefix")),
        (["44,0.1,,", "33,1,,", "44,0.1,,"], (4, "prefix")),
        (["44,0.1,2026-12-01,", "44-45,0.2,2026-12-01,"], (3, "prefix")),
        (["44,0.1,2026-12-01,2026-12-31", "44,0.2,2026-12-31,"], (3, "prefix")),
        (["44,0.2,2026-12-15,", "44,0.1,2026-12-01,2026-12-31"], (3, "prefix")),
        (["44,0.1,2026-12-02,2026-12-01"], (2, "ends_on")),
        (["44,0.1"], (2, "line")),
        (["44,0.1,,,more"], (2, "line")),
        (["44,0.1,,", "44,0.2,2026-12-01,"], None),
        (["44,0.1,2026-12-01,2026-12-31", "44,0.2,2027-01-01,"], None),
        (["44,0.1,2026-12-01,2026-12-01", "447,0.2,2026-12-01,"], None),
    ],
)
def test_rows_may_follow_each_other_but_never_hold_at_once(rows, told):
    text = "\n".join(["prefix,price,start date,end date", *rows])
    if told is None:
        assert len(read(text)) == len(rows)
    else:
        assert bad_lines(text)[0][:2] == told


def test_every_bad_line_is_told_and_nothing_is_read():
    text = "prefix,price,currency,status\n44,0.1,EUR,new\n33,x,EUR,\n1,0.1,USD,\n49,0.1,EUR,perhaps\nz,,,"
    assert bad_lines(text) == [
        (3, "price", "x"),
        (4, "currency", "USD"),
        (5, "status", "perhaps"),
        (6, "prefix", "z"),
    ]


def test_what_is_blocked_needs_no_price_and_an_end_is_the_last_day():
    rows = read("prefix,price,status,end date\n44,-,Blocked,\n33,0.1,,2026-12-31\n1,n/a,deleted,")
    assert [(row.status, row.ends_on) for row in rows] == [
        ("blocked", NEVER),
        ("plain", date(2026, 12, 31)),
        ("removed", NEVER),
    ]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2", "prefix,price", "prefix,price,price\n44,1,2", "prefix,price\n\0,1", "\n" * 50]
)
def test_a_file_that_is_no_sheet_is_refused(text):
    assert refused(text).code == "bad_sheet"


def test_a_line_break_within_quotes_keeps_the_count_of_lines():
    assert bad_lines('prefix,price,destination\n44,1,"a\nb"\n33,x,c') == [(4, "price", "x")]


def test_a_carrier_declares_its_own_columns():
    layout = parse_layout(
        """
        decimal = ","
        date_formats = ["%d/%m/%Y"]
        per = 1
        whole = false
        [columns]
        prefix = "Vorwahl"
        price = ["EUR/s", "Preis"]
        starts_on = "Gültig ab"
        [statuses]
        blocked = ["gesperrt"]
        """
    )
    (row,) = read("Ziel;Vorwahl;Preis;gültig  AB\nx;44;0,001;02/12/2026", layout)
    assert (row.price, row.starts_on) == ("0.001", date(2026, 12, 2))
    assert layout.columns == Columns("Vorwahl", ("EUR/s", "Preis"), starts_on="Gültig ab")


@pytest.mark.parametrize(
    ("text", "field"),
    [("colums = 1", "layout"), ('[columns]\nprize = "x"', "columns"), ("per = 0", "per"), ("x", "layout")],
)
def test_a_layout_that_cannot_be_used_says_where(text, field):
    with pytest.raises(Refused) as refusal:
        parse_layout(text)
    assert (refusal.value.code, refusal.value.facts["field"]) == ("bad_layout", field)
