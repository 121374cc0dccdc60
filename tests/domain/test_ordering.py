"""Allowance in order: late usage, transfers in between, and what must not change."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.bucket import Allocate, Return
from allotment.domain.cap import SetCap
from allotment.domain.charging import UsageCharged
from allotment.domain.events import Recorded
from allotment.domain.granting import TopUp
from allotment.domain.ordering import Ordering, Tracks, parts
from allotment.domain.rating_job import RatingStarted, Scope, StartRating
from allotment.domain.refusals import Refused
from allotment.domain.rerated import Again, RerateCharges, UsageRerated, unsealed

MONTH, DE = "2026-11", "+4930123456"
MINUTE = 60_000_000


def charges(company: Any) -> list[Again]:
    held: dict[int, Again] = {}
    for seq, event in enumerate(company.history, 1):
        if isinstance(event, UsageCharged):
            held[seq] = Again(seq, seq, unsealed(event), DE)
        elif isinstance(event, UsageRerated):
            held.pop(event.seq)
            held[seq] = Again(seq, event.first, event.charge, DE)
    return [held[seq] for seq in sorted(held)]


def changing(company: Any, now: int) -> list[Again]:
    tracks = Tracks(MONTH)
    ordinals = {member.id: member.ordinal for member in company.tenant.hierarchy.members}
    for seq, event in enumerate(company.history, 1):
        tracks.tell(Recorded(seq, 0, event.topic, "", b"", None, event), ordinals)
    started = RatingStarted("j-1", Scope(period=MONTH, in_order=True), "late_usage", "")
    return list(Ordering(company.tenant.rerating.parts, started, now, tracks).told(charges(company)))


def put_in_order(company: Any, now: int) -> int:
    """How many parts it took."""
    scope = Scope(period=MONTH, in_order=True)
    if "j-1" not in company.tenant.rerating.jobs:
        company.do(StartRating("j-1", scope, "late_usage"))
    found = list(parts(changing(company, now), company.tenant.families))
    for part in found:
        company.do(RerateCharges("j-1", tuple(part)), now)
    return len(found)


def got(company: Any) -> dict[int, tuple[Any, int]]:
    """Of each record by when it was used: what its allowance paid, and what it costs."""
    return {one.charge.started_at: (one.charge.drawn, one.charge.amount) for one in charges(company)}


def test_a_late_record_gets_the_allowance_that_a_later_one_took(acme, now):
    acme.use(960, at=now)
    acme.use(120, at=now - MINUTE)
    assert got(acme)[now - MINUTE][0] == ((0, 40),)
    assert put_in_order(acme, now) == 1
    assert got(acme) == {now - MINUTE: (((0, 120),), 0), now: (((0, 880),), 80_000)}
    assert put_in_order(acme, now) == 0


def test_narrow_buckets_change_hands_in_order(acme, now):
    acme.do(Allocate("acme", "sales", "voice", MONTH, 120))
    acme.use(120, at=now)
    acme.use(120, at=now - MINUTE)
    assert got(acme) == {now: (((2, 120),), 0), now - MINUTE: (((0, 120),), 0)}
    put_in_order(acme, now)
    assert got(acme) == {now: (((0, 120),), 0), now - MINUTE: (((2, 120),), 0)}


def test_what_was_granted_later_is_not_for_who_was_charged_before(acme, now):
    acme.use(1200, at=now - MINUTE)
    acme.do(TopUp("voice", 600, MONTH))
    acme.use(60, at=now)
    assert changing(acme, now) == []


def test_what_was_handed_on_stays_handed_on(acme, now):
    acme.use(600, at=now)
    acme.do(Allocate("acme", "apac", "voice", MONTH, 400))
    acme.use(600, at=now - MINUTE)
    assert got(acme)[now - MINUTE][0] == ()
    put_in_order(acme, now)
    assert got(acme)[now - MINUTE][0] == ((0, 600),)
    assert acme.family().remaining[3] == 400


def test_a_large_record_takes_from_many_small_ones_in_one_part(acme, now):
    for number in range(16):
        acme.use(60, at=now + number)
    acme.use(960, at=now - MINUTE)
    assert put_in_order(acme, now) == 1
    assert got(acme)[now - MINUTE] == (((0, 960),), 0)
    assert acme.family().remaining[0] == 1000 - 960 - sum(
        part for at, (drawn, _) in got(acme).items() if at >= now for _, part in drawn
    )


def test_capped_allowance_is_not_put_in_order(acme, now):
    acme.do(SetCap("sales", "voice", 100))
    with pytest.raises(Refused, match="capped_allowance"):
        acme.do(StartRating("j-1", Scope(period=MONTH, in_order=True)))


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.sampled_from(["r-1", "r-2"]), st.integers(1, 600), st.booleans()),
        st.tuples(
            st.just("allocate"), st.sampled_from(["emea", "sales", "apac"]), st.integers(1, 500), st.just(0)
        ),
        st.tuples(
            st.just("return"), st.sampled_from(["emea", "sales", "apac"]), st.integers(1, 300), st.just(0)
        ),
        st.tuples(st.just("top_up"), st.just(""), st.integers(1, 300), st.just(0)),
    ),
    max_size=25,
)


def act(company: Any, acts: list[Any], now: int, *, late: bool) -> None:
    for number, (kind, who, quantity, behind) in enumerate(acts):
        try:
            match kind:
                case "use":
                    at = now + number - (100 if late and behind else 0)
                    company.use(quantity, at=at, line=who)
                case "allocate":
                    company.do(Allocate("acme", who, "voice", MONTH, quantity))
                case "return":
                    company.do(Return(who, "acme", "voice", MONTH, quantity))
                case "top_up":
                    company.do(TopUp("voice", quantity, MONTH))
        except Refused:
            pass


@given(acts=ACTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_came_in_order_does_not_change(company, now, acts):
    acme = company()
    act(acme, acts, now, late=False)
    assert changing(acme, now) == []


@given(acts=ACTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_put_in_order_the_earlier_is_served_first_and_twice_is_once(company, now, acts):
    acme = company()
    act(acme, acts, now, late=True)
    family = acme.family()
    used, granted = list(family.used), family.granted_total
    wanted = {one.seq: one.drawn for one in changing(acme, now)}
    first = {one.seq: one.first for one in charges(acme)}
    put_in_order(acme, now)
    held = {one.first: one.charge.drawn for one in charges(acme)}
    assert all(held[first[seq]] == drawn for seq, drawn in wanted.items())
    assert (list(family.used), family.granted_total) == (used, granted)
    assert acme.family("money").used[0] == sum(one.charge.amount for one in charges(acme))
    assert put_in_order(acme, now) == 0
