"""Kinds of invoice lines: each has one number for ever, and is stored once."""

import pytest

from allotment.domain.refusals import InvariantBroken
from allotment.projections.line_kinds import number_of, store

VOICE = ("2026-11", "voice", "outbound", "national", 1, 3)
DATA = ("2026-11", "data", "outbound", "", 1, 0)


def kinds_held(db):
    found = db.execute("SELECT kind, period, usage_type, direction, zone, tariff, rate FROM invoice_kinds")
    return {number: tuple(kind) for number, *kind in found}


def test_the_number_of_a_kind_is_the_same_for_ever():
    assert number_of(VOICE) == -6405924639392837120
    assert number_of(DATA) == 7024475992577362865


def test_kinds_differ_where_their_texts_meet_at_another_place():
    assert number_of(("2026-1", "1voice", "", "", 1, 3)) != number_of(("2026-11", "voice", "", "", 1, 3))


def test_a_kind_is_stored_once_also_by_who_does_not_know_that_it_is_held(enterprise):
    made, known = enterprise().opened(), set()
    with made.isolation.transaction(made.tenant, "projector") as db:
        store(db, {1: VOICE}, known)
        store(db, {1: VOICE, 2: DATA}, known)
        store(db, {1: VOICE, 2: DATA}, set())
        assert kinds_held(db) == {1: VOICE, 2: DATA}
    assert known == {1, 2}


def test_two_kinds_of_one_number_are_never_added_up(enterprise):
    made = enterprise().opened()
    with made.isolation.transaction(made.tenant, "projector") as db:
        store(db, {1: VOICE}, set())
        with pytest.raises(InvariantBroken):
            store(db, {1: DATA}, set())
