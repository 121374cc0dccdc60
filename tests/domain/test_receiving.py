"""What files and streams brought: counts that add up are told, and no others."""

import pytest

from allotment.domain.canonical import lines
from allotment.domain.receiving import (
    BeginImport,
    CountDuplicates,
    DuplicatesCounted,
    FinishImport,
    ImportBegun,
    ImportFinished,
    SourceCounts,
)
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore

TEN = SourceCounts("pbx", 10, 4, 3, 2, 1, unreadable=1, amount=5)


def test_an_import_is_open_until_it_is_finished(acme):
    assert acme.do(BeginImport("i-1", "calls.csv", "asterisk-csv", "d")) == [
        ImportBegun("i-1", "calls.csv", "asterisk-csv", "d")
    ]
    assert list(acme.tenant.receiving.open) == ["i-1"]
    assert acme.do(FinishImport("i-1", 14, 3, 1, (TEN,))) == [
        ImportFinished("i-1", "calls.csv", "asterisk-csv", "d", 14, 3, 1, (TEN,))
    ]
    assert acme.tenant.receiving.open == {}


def test_the_same_content_again_is_known(acme):
    for again, ident in enumerate(("i-1", "i-2")):
        acme.do(BeginImport(ident, "calls.csv", "f", "d"))
        (told,) = acme.do(FinishImport(ident, 0, 0, 0, ()))
        assert told.again is bool(again)
    acme.do(BeginImport("i-3", "stdin", "f", ""))
    acme.do(BeginImport("i-4", "stdin", "f", ""))
    for ident in ("i-3", "i-4"):
        assert not acme.do(FinishImport(ident, 0, 0, 0, ()))[0].again


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (FinishImport("other", 10, 0, 0, (TEN,)), "unknown_import"),
        (FinishImport("i-1", 9, 0, 0, (TEN,)), "counts_do_not_add_up"),
        (FinishImport("i-1", 11, 0, 0, (SourceCounts("pbx", 11, 4, 3, 2, 1),)), "counts_do_not_add_up"),
        (FinishImport("i-1", 1, 0, 0, (SourceCounts("pbx", 1, 2, -1, 0, 0),)), "counts_do_not_add_up"),
        (FinishImport("i-1", 1, 0, 0, (SourceCounts("p", 1, 1, 0, 0, 0, 1),)), "counts_do_not_add_up"),
        (FinishImport("i-1", 9, -1, 0, (TEN,)), "bad_counts"),
        (BeginImport("i-2", "", "f"), "bad_text"),
        (CountDuplicates("http", (("pbx", -1),)), "bad_counts"),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_not_taken(acme, command, code):
    acme.do(BeginImport("i-1", "calls.csv", "f", "d"))
    assert acme.refusal(command)[0] == code


def test_a_door_tells_what_left_no_event(acme):
    assert acme.do(CountDuplicates("http", (("pbx", 3),), 2, 1)) == [
        DuplicatesCounted("http", (("pbx", 3),), 2, 1)
    ]


def test_a_snapshot_gives_back_what_is_under_way(acme):
    acme.do(BeginImport("i-1", "calls.csv", "f", "d"))
    acme.do(FinishImport("i-1", 0, 0, 0, ()))
    acme.do(BeginImport("i-2", "calls.csv", "f", "e"))
    restored = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert b"".join(lines(restored)) == b"".join(lines(acme.tenant))
    assert list(restored.receiving.open) == ["i-2"]
