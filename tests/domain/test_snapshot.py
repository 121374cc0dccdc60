"""Snapshots of the state: what comes back is what was, in everything that a decision looks at."""

import random
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from allotment.backend.reading_log import decode_charges
from allotment.domain import canonical, snapshot
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.charging import UsageCharged
from allotment.domain.events import SCHEMA, Envelope, encode
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import InvariantBroken
from allotment.domain.tenant import Tenant

DAY = 86_400_000_000
CACHES = {"_finder", "_last", "_origins", "_remembered", "decks", "rates"}
"""What only saves a look-up, or is compiled when it is first asked for: it may be empty."""


def copied(tenant: Tenant) -> Tenant:
    counters = snapshot.encode_counters(snapshot.copy_counters(tenant))
    return snapshot.restore(counters, snapshot.encode_structure(tenant))


def told(thing: Any, known: dict[int, int]) -> Any:
    """Everything that an object holds, and which of its parts are one and the same."""
    if thing is None or isinstance(thing, int | str | bytes | ZoneInfo):
        return str(thing) if isinstance(thing, ZoneInfo) else thing
    if isinstance(thing, dict):
        return {key: told(value, known) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(told(one, known) for one in thing)
    if hasattr(thing, "__struct_fields__"):
        return thing
    if id(thing) in known:
        return f"the same as {known[id(thing)]}"
    known[id(thing)] = len(known)
    names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", ())]
    return {name: told(getattr(thing, name), known) for name in sorted(names) if name not in CACHES}


def whole(tenant: Tenant) -> Any:
    return told(tenant, {})


def live(company: Any, seed: int, steps: int = 60) -> list[Any]:
    """Things that happen, by chance; the same after the same."""
    chance = random.Random(seed)
    return [_step(company, chance) for _ in range(steps)]


def _step(company: Any, chance: random.Random) -> Any:
    number = len(company.history)
    nodes = ["acme", "emea", "sales", "apac"]
    resources = ["r-1", "r-2"]
    at = company_now = 1_794_744_000_000_000
    commands = [
        AddNode(f"n{number}", chance.choice(nodes), "", "group"),
        AddResource(f"x{number}", chance.choice(nodes), "sip", 0, (Identity(b"x%d" % number, b"s"),)),
        MoveResource(chance.choice(resources), chance.choice(nodes), at + number),
        EndResource(chance.choice(resources), at + DAY + number),
        Allocate("acme", chance.choice(nodes), "voice", "2026-11", chance.randrange(200)),
        Return("sales", "emea", "voice", "2026-11", chance.randrange(50)),
        Trade("emea", "apac", "data", "2026-11", chance.randrange(50)),
        SetLimit(
            chance.choice([*nodes, *resources]),
            chance.choice(["voice", "money", "data"]),
            chance.choice([None, 0, 100, 500, 10**9]),
        ),
    ]
    if chance.random() < 0.7:
        usage = chance.choice(["voice", "data", "messaging", "video"])
        when = at - chance.choice([0, 1, 20]) * DAY
        line = chance.choice(["r-1", "r-2", "nobody"])
        return company.use(chance.randrange(120), usage, at=when, line=line, now=company_now)
    command = chance.choice(commands)
    answer = company.ask(command)
    return company.do(command) if isinstance(answer, list) else answer


@pytest.mark.parametrize("seed", range(25))
def test_what_is_restored_is_what_was_and_decides_the_same(seed, company):
    original = company()
    live(original, seed)
    restored = company()
    restored.history = list(original.history)
    restored.tenant = copied(original.tenant)
    assert whole(restored.tenant) == whole(original.tenant)
    assert live(restored, seed + 1000) == live(original, seed + 1000)
    assert whole(restored.tenant) == whole(original.tenant)
    assert [*canonical.lines(restored.tenant)] == [*canonical.lines(original.tenant)]


def test_nothing_restores_as_nothing():
    assert whole(copied(Tenant())) == whole(Tenant())


def test_a_copy_does_not_follow_what_is_charged_later(acme):
    before = [*canonical.lines(acme.tenant)]
    taken = snapshot.copy_counters(acme.tenant)
    structure = snapshot.encode_structure(acme.tenant)
    acme.use(60)
    assert [*canonical.lines(snapshot.restore(snapshot.encode_counters(taken), structure))] == before


def test_more_members_than_a_block_holds(company, monkeypatch):
    monkeypatch.setattr(snapshot, "BLOCK", 2)
    original = company()
    live(original, 5)
    assert whole(copied(original.tenant)) == whole(original.tenant)


# --- runs of charges -----------------------------------------------------------------------------


def charges_of(events: list[Any]) -> list[Envelope[UsageCharged]]:
    return [Envelope(SCHEMA, "", b"", event) for event in events if isinstance(event, UsageCharged)]


def test_a_run_of_charges_counts_as_one_after_the_other_does(company):
    one_by_one, at_once = company(), company()
    charged = [event for number in range(40) for event in one_by_one.use(number, "voice")]
    snapshot.count_all(at_once.tenant, charges_of(charged))
    assert whole(at_once.tenant) == whole(one_by_one.tenant)


def in_brief(charges: list[UsageCharged]) -> Any:
    """As a replay reads them."""
    return decode_charges(len(charges), b"".join(encode(charge, "test", b"12345678") for charge in charges))


@pytest.mark.parametrize("seed", range(25))
def test_any_history_read_in_brief_and_counted_in_runs_comes_to_the_same_bytes(seed, company):
    one_by_one, at_once = company(), company()
    begun = len(one_by_one.history)
    live(one_by_one, seed, 120)
    happened = one_by_one.history[begun:]
    for charged, run in groupby(happened, key=lambda event: isinstance(event, UsageCharged)):
        if charged:
            snapshot.count_all(at_once.tenant, in_brief([*run]))
        else:
            for event in run:
                at_once.tenant.apply(event)
    assert whole(at_once.tenant) == whole(one_by_one.tenant)
    assert [*canonical.lines(at_once.tenant)] == [*canonical.lines(one_by_one.tenant)]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"overage": 1}, "parts of a charge add up"),
        ({"drawn": ((0, 10**15),), "billed": 10**15}, "no bucket is overdrawn"),
        ({"drawn": ((0, 61), (0, -1))}, "no bucket is overdrawn"),
    ],
)
def test_a_run_that_cannot_be_is_noticed(company, changes, broken):
    (charged,) = (event for event in company().use(60, "voice") if isinstance(event, UsageCharged))
    with pytest.raises(InvariantBroken, match=broken):
        snapshot.count_all(company().tenant, charges_of([replace(charged, **changes)]))


def test_a_run_that_passes_a_limit_is_noticed(company):
    free, limited = company(), company()
    charged = [event for _ in range(4) for event in free.use(60, "voice")]
    limited.do(SetLimit("acme", "voice", 100))
    with pytest.raises(InvariantBroken, match="never passes a limit"):
        snapshot.count_all(limited.tenant, charges_of(charged))
