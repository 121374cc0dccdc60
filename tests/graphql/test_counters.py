"""Live counters: told when something has changed, not more often than asked for, and only within reach."""

import asyncio
import time
from types import SimpleNamespace

import msgspec
import pytest
from patience import PATIENCE_SECONDS

from allotment.backend.web.request_context import RequestContext, Turns
from allotment.graphql.counters import counters
from allotment.graphql.refusals import QueryRefused


class Subscriber:
    """Somebody who listens in the product's own event loop."""

    def __init__(self, company, *roles, nodes=()):
        self.portal = company.portal
        self.token = company.token(*roles, nodes=nodes)
        self.told = []

    def listen(self, *nodes, for_each=None, until=1, lasts_seconds=900, **asked):
        """Until so many have been told; `for_each` happens after each."""

        async def listening():
            verified = await self.portal.verifier.verified(self.token)
            # Tokens end by the clock on the wall, the product here goes by its own.
            ends_at = self.portal.clock[0] // 1_000_000 + lasts_seconds
            principal = msgspec.structs.replace(verified, expires_at=ends_at)
            info = SimpleNamespace(context=RequestContext(self.portal.engine, principal, Turns()))
            async for told in counters(info, list(nodes), **asked):
                self.told.append((time.monotonic(), told))
                if len(self.told) >= until:
                    return
                if for_each is not None:
                    asyncio.get_running_loop().run_in_executor(None, for_each)

        self.portal.run(lambda: asyncio.wait_for(listening(), PATIENCE_SECONDS))
        return [
            {(one.node, one.usage_type): (one.used, one.remaining) for one in told.counters}
            for _, told in self.told
        ]


def test_first_everything_is_told_and_then_what_has_changed(company, call):
    calls = iter(("c1", "c2"))
    told = Subscriber(company).listen(
        *("emea", "apac", "anna"),
        usage_types=["voice"],
        per_second=10,
        until=3,
        for_each=lambda: company.use(call(next(calls), 60)),
    )
    assert told == [
        {("emea", "voice"): (0, 300), ("apac", "voice"): (0, 0), ("anna", "voice"): (0, 0)},
        {("emea", "voice"): (60, 240), ("anna", "voice"): (60, 0)},
        {("emea", "voice"): (120, 180), ("anna", "voice"): (120, 0)},
    ]


def test_however_fast_usage_flows_it_is_told_so_often_at_most_and_of_the_newest(company, call):
    subscriber = Subscriber(company)

    def flow():
        for number in range(6):
            company.use(call(f"{time.monotonic_ns()}-{number}", 1))

    subscriber.listen("acme", usage_types=["voice"], per_second=2, until=3, for_each=flow)
    (first, _), (second, _), (third, last) = subscriber.told
    assert third - first > 0.9
    assert second - first > 0.4
    assert last.counters[0].used >= 60


def test_what_is_out_of_reach_is_left_out_as_what_does_not_exist(company):
    told = Subscriber(company, nodes=("emea",)).listen(
        "acme", "emea", "apac", "chen", "nobody", "anna", usage_types=["voice"]
    )
    assert [list(one) for one in told] == [[("emea", "voice"), ("anna", "voice")]]


def test_it_ends_when_the_token_does(company, call):
    subscriber = Subscriber(company)

    def expire():
        company.portal.clock[0] += 2_000_000
        company.use(call("c1", 60))

    told = subscriber.listen("acme", until=2, lasts_seconds=1, for_each=expire)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("roles", "asked", "code"),
    [
        ((), {"nodes": []}, "too_many_members"),
        ((), {"nodes": [f"n{number}" for number in range(101)]}, "too_many_members"),
        ((), {"nodes": ["acme"], "per_second": 0}, "bad_rate"),
        ((), {"nodes": ["acme"], "per_second": 11}, "bad_rate"),
        ((), {"nodes": ["acme"], "usage_types": ["fax"]}, "unknown_usage_type"),
        (("mediation",), {"nodes": ["acme"]}, "not_permitted"),
    ],
)
def test_what_cannot_be_counted_is_refused(company, roles, asked, code):
    with pytest.raises(QueryRefused) as refused:
        Subscriber(company, *roles).listen(*asked.pop("nodes"), **asked)
    assert refused.value.extensions["code"] == code
