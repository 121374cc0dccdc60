"""Whatever is dated back, in whatever order: counters and buckets stand as if it had been told in time.

The naive count is a tenant that is told first how the hierarchy came to be, and then gets the usage.
"""

from collections import Counter
from typing import Any

from backdated import held, settle, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.bucket import Allocate
from allotment.domain.charging import CORPORATE
from allotment.domain.correcting import (
    CorrectEnd,
    CorrectJoin,
    CorrectMerge,
    CorrectMove,
    CorrectNodeMove,
    CorrectResumption,
    CorrectSuspension,
)
from allotment.domain.granting import TopUp
from allotment.domain.hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Identity,
    ResourceEnded,
    ResourceMoved,
)
from allotment.domain.life import LifeEvent, NodeClosed, ResumeResource, SuspendResource
from allotment.domain.usage import MONEY

HOUR, MONTH = 3_600_000_000, "2026-11"
NODES = ("emea", "sales", "apac", "north", "south")
LINES = ("r-1", "r-2", "r-3", "r-4")
MOMENTS = st.integers(1, 40)

MERGES = st.tuples(st.just("merge"), st.sampled_from(NODES), st.sampled_from(NODES), MOMENTS)
INTO_HOLDERS = st.tuples(st.just("merge"), st.sampled_from(NODES), st.sampled_from(("emea", "apac")), MOMENTS)
"""Successors with allowance of their own: what theirs was paid from would have been the same."""
USES = st.tuples(st.just("use"), st.sampled_from(LINES), st.integers(1, 400), MOMENTS)
CHANGES = st.one_of(
    st.tuples(st.just("node"), st.sampled_from(NODES), st.sampled_from(("acme", *NODES)), MOMENTS),
    st.tuples(st.just("move"), st.sampled_from(LINES), st.sampled_from(NODES), MOMENTS),
    *(
        st.tuples(st.just(act), st.sampled_from(LINES), st.just(""), MOMENTS)
        for act in ("join", "end", "suspend", "resume")
    ),
)
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
"""How long an example takes on a busy machine says nothing about the rules."""
HISTORIES = st.lists(st.one_of(USES, USES, CHANGES), min_size=4, max_size=24)


def furnish(company: Any, now: int, *, scarce: bool) -> None:
    """Two more nodes; a line that its second holder has since twelve hours ago; one that is suspended."""
    company.do(AddNode("north", "sales", "North", "group"))
    company.do(AddNode("south", "apac", "South", "group"))
    company.do(EndResource("r-2", now - 20 * HOUR))
    company.do(AddResource("r-3", "north", "sip", now - 30 * HOUR, (Identity(b"r-3", b""),)))
    company.do(AddResource("r-4", "south", "sip", now - 12 * HOUR, (Identity(b"r-2", b""),)))
    company.do(SuspendResource("r-1"), now - 18 * HOUR)
    company.do(ResumeResource("r-1"), now - 9 * HOUR)
    if not scarce:
        company.do(TopUp("voice", 1_000_000, MONTH))
    for node in ("emea", "apac"):
        company.do(Allocate("acme", node, "voice", MONTH, 100 if scarce else 300_000))


def command_of(act: tuple[Any, ...], number: int, now: int) -> Any:
    kind, member, to, hours = act
    job, at = f"j-{number}", now - hours * HOUR - 1
    match kind:
        case "node":
            return CorrectNodeMove(job, member, to, at)
        case "merge":
            return CorrectMerge(job, member, to, at)
        case "move":
            return CorrectMove(job, member, to, at)
    return {
        "join": CorrectJoin,
        "end": CorrectEnd,
        "suspend": CorrectSuspension,
        "resume": CorrectResumption,
    }[kind](job, member, at)


def play(company: Any, history: Any, now: int) -> list[Any]:
    """Everything, as it happened; how the hierarchy was told to have been."""
    told: list[Any] = []
    for number, act in enumerate(history):
        if act[0] == "use":
            use(company, act[1].replace("r-4", "r-2"), act[2], now - act[3] * HOUR, now)
            continue
        command = command_of(act, number, now)
        if isinstance(company.ask(command, now), str):
            continue
        told += [
            one
            for one in company.do(command, now)
            if isinstance(one, LifeEvent | ResourceMoved | ResourceEnded)
        ]
        settle(company, now)
        company.tenant.check_whole()
    return told


def two_companies(company: Any, now: int) -> tuple[Any, Any]:
    """Alike, with enough of everything."""
    late, in_time = company(), company()
    for one in (late, in_time):
        furnish(one, now, scarce=False)
    return late, in_time


def told_late_and_in_time(company: Any, history: Any, now: int) -> tuple[Any, Any]:
    """One that was told of its history late, and one that was told before it was used."""
    late, in_time = two_companies(company, now)
    in_time.tell(*play(late, history, now))
    for act in history:
        if act[0] == "use":
            use(in_time, act[1].replace("r-4", "r-2"), act[2], now - act[3] * HOUR, now)
    return late, in_time


def counters(company: Any) -> dict[str, list[int]]:
    return {kind: list(company.family(kind).used) for kind in ("voice", MONEY)}


@settings(max_examples=120, deadline=None, suppress_health_check=SLOW)
@given(HISTORIES)
def test_it_is_as_if_it_had_been_told_in_time(company, now, history):
    late, in_time = told_late_and_in_time(company, history, now)
    assert counters(late) == counters(in_time)
    for part in ("remaining", "consumed"):
        assert getattr(late.family(), part) == getattr(in_time.family(), part)


@settings(max_examples=120, deadline=None, suppress_health_check=SLOW)
@given(HISTORIES, st.lists(INTO_HOLDERS, min_size=1, max_size=3))
def test_what_was_merged_earlier_has_left_what_it_would_have_left_in_time(company, now, history, merges):
    late, in_time = two_companies(company, now)
    told = play(late, [*history, *merges], now)
    happen(in_time, told, history, now)
    assert counters(late) == counters(in_time)
    for part in ("remaining", "consumed"):
        assert getattr(late.family(), part) == getattr(in_time.family(), part)


def happen(company: Any, told: list[Any], history: Any, now: int) -> None:
    """As it was: who stood where is known, and each node gives up what it has when it is merged."""
    company.tell(*told)
    uses = [(now - act[3] * HOUR, act) for act in history if act[0] == "use"]
    merges = [(one.at, one) for one in told if isinstance(one, NodeClosed)]
    members, life = company.tenant.hierarchy.by_id, company.tenant.life
    for at, what in sorted((*uses, *merges), key=lambda one: one[0]):
        if isinstance(what, NodeClosed):
            company.tell(*life.emptied(members[what.node], members[what.successor], at, ""))
        else:
            use(company, what[1].replace("r-4", "r-2"), what[2], at, now)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.one_of(USES, USES, CHANGES, MERGES), min_size=4, max_size=24))
def test_merged_in_whatever_order_all_is_counted_and_nothing_is_left_behind(company, now, history):
    late, in_time = told_late_and_in_time(company, history, now)
    assert counters(late) == counters(in_time)
    assert sum(late.family().consumed) == sum(in_time.family().consumed)
    assert not any(late.family().remaining[ordinal] for ordinal in late.tenant.hierarchy.closed)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.one_of(USES, USES, CHANGES, MERGES), min_size=4, max_size=24))
def test_where_allowance_is_scarce_all_that_is_counted_is_what_charges_say(company, now, history):
    acme = company()
    furnish(acme, now, scarce=True)
    play(acme, history, now)
    used, drawn = Counter[int](), Counter[int]()
    for _, charge in held(acme).values():
        if charge.payer == CORPORATE:
            used.update(dict.fromkeys(charge.path, charge.billed))
            drawn.update(dict(charge.drawn))
    family = acme.family()
    assert family.used == [used[ordinal] for ordinal in range(len(family.used))]
    assert family.consumed == [drawn[ordinal] for ordinal in range(len(family.used))]
