"""Lanes: requests are taken in the order they came, in parts where they must be, and answered whole."""

import asyncio

import pytest
from fixtures_loop import in_a_loop
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend.asking import Order, Slice
from allotment.backend.keys import usage_identity
from allotment.backend.lanes import RUN_MAX, Lane
from allotment.domain.session import ReleaseSession, Report


class Asking:
    """A lane, and what its callers are told."""

    def __init__(self) -> None:
        self.lane = Lane(goes_first=False)
        self.answered: list[asyncio.Future[list[str]]] = []

    def ask(self, *items: str, actor: str = "mediation") -> None:
        answered = asyncio.get_running_loop().create_future()
        self.answered.append(answered)
        if len(items) == 1:
            self.lane.add_one(items[0], actor, f"at {items[0]}", answered)
        else:
            self.lane.add([*items], actor, [f"at {item}" for item in items], answered)

    def decide(self, room: int) -> list[str]:
        """Take what there is room for, and answer each item by its own name in capitals."""
        slice, decided = Slice(), self.lane.take(room)
        for share in decided:
            share.enter(slice)
        assert [*map(slice.position, range(len(slice.items)))] == [f"at {item}" for item in slice.items]
        at = 0
        for share in decided:
            share.outcomes = [item.upper() for item in slice.items[at : at + share.size]]
            at += share.size
            share.answer()
        return slice.items

    @property
    def told(self) -> list[list[str] | None]:
        return [answered.result() if answered.done() else None for answered in self.answered]


@in_a_loop
async def test_requests_are_taken_in_the_order_they_came_whatever_their_size():
    asking = Asking()
    for items in (("a",), ("b",), ("c", "d"), ("e",)):
        asking.ask(*items)
    assert asking.decide(10) == ["a", "b", "c", "d", "e"]
    assert asking.told == [["A"], ["B"], ["C", "D"], ["E"]]
    assert not asking.lane


@in_a_loop
async def test_a_run_and_a_request_are_taken_in_parts_where_there_is_no_room():
    asking = Asking()
    for items in (("a",), ("b",), ("c",), ("d", "e", "f")):
        asking.ask(*items)
    assert asking.decide(2) == ["a", "b"]
    asking.ask("g")
    assert asking.decide(2) == ["c", "d"]
    assert asking.told == [["A"], ["B"], ["C"], None, None]
    assert asking.decide(2) == ["e", "f"]
    assert asking.decide(2) == ["g"]
    assert asking.told[3:] == [["D", "E", "F"], ["G"]]


@in_a_loop
async def test_who_comes_while_a_run_is_taken_in_parts_joins_it():
    asking = Asking()
    asking.ask("a")
    asking.ask("b")
    assert asking.decide(1) == ["a"]
    asking.ask("c")
    assert asking.decide(9) == ["b", "c"]
    asking.ask("d")
    assert asking.decide(9) == ["d"]


@in_a_loop
async def test_a_run_is_no_longer_than_a_slice():
    asking = Asking()
    for number in range(RUN_MAX + 1):
        asking.ask(str(number))
    assert [share.size for share in asking.lane.take(10 * RUN_MAX)] == [RUN_MAX, 1]


@in_a_loop
async def test_each_of_a_run_is_asked_for_by_its_own_caller():
    asking, slice = Asking(), Slice()
    asking.ask("a", actor="mediation")
    asking.ask("b", actor="voice switch")
    (share,) = asking.lane.take(2)
    share.enter(slice)
    assert slice.actors == ["mediation", "voice switch"]
    assert slice.before == [None, None]


@in_a_loop
async def test_what_was_decided_before_goes_with_each_of_a_run():
    asking, slice = Asking(), Slice()
    asking.ask("a")
    asking.ask("b")
    (share,) = asking.lane.take(2)
    share.before = ["first", "second"]
    share.enter(slice)
    assert slice.before == ["first", "second"]


@in_a_loop
async def test_a_caller_who_left_does_not_keep_the_others_from_their_answer():
    asking = Asking()
    for item in "abc":
        asking.ask(item)
    asking.answered[1].cancel()
    asking.decide(3)
    assert (asking.answered[0].result(), asking.answered[2].result()) == (["A"], ["C"])
    assert asking.answered[1].cancelled()


@in_a_loop
async def test_all_who_wait_in_a_lane_or_were_taken_from_it_are_told_of_a_failure():
    asking = Asking()
    for items in (("a",), ("b",), ("c", "d"), ("e",)):
        asking.ask(*items)
    asking.answered[4 - 1].cancel()
    taken = asking.lane.take(3)
    asking.lane.fail(ConnectionError("gone"))
    for share in taken:
        share.fail(ConnectionError("gone"))
    for answered in asking.answered[:3]:
        with pytest.raises(ConnectionError):
            answered.result()
    assert not asking.lane
    asking.ask("f")
    assert asking.decide(5) == ["f"]


@in_a_loop
async def test_records_that_commands_of_a_run_may_charge_are_known():
    asking, slice = Asking(), Slice()
    for number in range(2):
        answered = asyncio.get_running_loop().create_future()
        ended = ReleaseSession("network", f"call-{number}", 1, Report(10))
        asking.lane.add_one(Order(ended, bytes([number])), "network", "", answered)
    for share in asking.lane.take(2):
        share.enter(slice)
    for number in range(2):
        assert usage_identity("network", f"call-{number}") in slice.charged_by_commands


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 5), st.just(0)), max_size=40), st.lists(st.integers(1, 7), min_size=1)
)
def test_every_item_is_decided_once_in_order_and_every_caller_answered(steps, rooms):
    """A step is a request of so many items; 0 takes from the lane."""

    async def play() -> None:
        asking, decided, asked, turn = Asking(), [], 0, 0
        for step in steps:
            if step:
                asking.ask(*(str(asked + place) for place in range(step)))
                asked += step
            else:
                decided += asking.decide(rooms[turn % len(rooms)])
                turn += 1
        while asking.lane:
            decided += asking.decide(rooms[turn % len(rooms)])
            turn += 1
        assert decided == [str(number) for number in range(asked)]
        assert [one for told in asking.told for one in told] == decided

    asyncio.run(play())
