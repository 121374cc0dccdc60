"""Which charges are counted again, in which order, and from where on: without any log."""

from msgspec.structs import replace

from allotment.backend.counted_charges import CountedCharges
from allotment.domain.charging import UsageCharged
from allotment.domain.events import Recorded
from allotment.domain.planned import Counting
from allotment.domain.rating.basis import Basis
from allotment.domain.rating.standing import Counted
from allotment.domain.rerated import UsageRerated, was

MINE, OTHER = Counting("minutes", "2026-11", 0), Counting("minutes", "2026-11", 4)


def charge(at, units, of=0):
    basis = Basis(counted=Counted("minutes", of, 0, 0, units, 10 * units))
    return UsageCharged(
        *("switch", f"at-{at}", (4, 2, 0), "voice", "2026-11", at, "outbound", units, units, 1, 0),
        *("+44", "uk", "corporate", "default", (), units, 10 * units, (10 * units, 1), b""),
        basis=basis,
    )


def counted(*charges):
    found = CountedCharges()
    for seq, one in enumerate(charges, 1):
        found.tell(told(seq, one))
    return found


def told(seq, event):
    return Recorded(seq, 0, event.topic, "", b"", None, event)


def again(seq, first, one):
    return told(seq, UsageRerated(first, first, "j-1", "requested", was(one), one))


def test_all_of_a_counter_in_the_order_of_use_and_of_one_moment_in_that_of_charging():
    found = counted(charge(5, 1), charge(3, 1), charge(4, 1, of=4), charge(3, 1))
    assert found.all_of({MINE}).seqs == [2, 4, 1]
    assert found.all_of({MINE, OTHER}).seqs == [2, 4, 3, 1]


def test_what_is_to_enter_a_counter_is_gone_through_with_it_once():
    found = counted(charge(5, 1), replace(charge(3, 1), basis=None))
    found.enter(2)
    assert found.all_of({MINE}).seqs == [2, 1]
    assert found.all_of({MINE}).seqs == [1]


def test_what_came_as_expected_is_no_change_and_whoever_comes_after_what_did_not_is():
    found = counted(charge(1, 5), charge(2, 5), charge(3, 5))
    found.all_of({MINE})
    found.expect(2, charge(2, 7))
    found.tell(again(4, 2, charge(2, 7)))
    assert found.since_changed({MINE}).seqs == []
    found.tell(again(5, 2, charge(2, 9)))
    run = found.since_changed({MINE})
    assert (run.seqs, run.positions.of(MINE)) == ([5, 3], (5, 50))


def test_what_did_not_come_is_known_by_the_charge_that_still_holds():
    found = counted(charge(1, 5), charge(2, 5))
    found.expect(1, charge(1, 7))
    assert found.not_come() == [1]


def test_whoever_left_a_counter_moves_all_of_it():
    found = counted(charge(1, 5), charge(2, 5), charge(3, 5))
    found.all_of({MINE})
    found.tell(again(4, 2, charge(2, 5, of=4)))
    assert found.since_changed({MINE}).seqs == [1, 3]


def test_a_record_that_was_denied_at_first_has_its_place_once_it_is_charged():
    found = counted(charge(1, 5), replace(charge(9, 1), basis=None))
    found.tell(told(5, charge(3, 5)))
    found.all_of({MINE})
    found.tell(again(6, 3, charge(2, 7)))
    assert found.since_changed({MINE}).seqs == [6, 5]
    found.expect(3, charge(2, 8))
    found.tell(again(7, 3, charge(2, 8)))
    assert found.since_changed({MINE}).seqs == []
    assert found.all_of({MINE}).seqs == [1, 7, 5]
