"""Who has a connection in hand asks for no other of the same pool: with all of them in such hands nobody
gets one, and whoever waits is told so after a quarter of a minute, again and again.

So everything works with a single connection for each role.
"""

import pytest
from backend.faults.scene import charged_ids, verified
from fixtures_loop import in_a_loop
from fixtures_writer import ROOT, call, furnish, statuses
from patience import until_there

from allotment.backend.engine import Engine
from allotment.backend.following import catch_up
from allotment.backend.notifying import matching
from allotment.backend.verifying import dump
from allotment.tenants import isolation as isolating
from allotment.tenants.isolation import Isolation


@pytest.fixture
def narrow(database, monkeypatch):
    monkeypatch.setattr(isolating, "POOL_SECONDS_MAX", 3)
    opened = Isolation(database, pool_max=1)
    yield opened
    opened.close()


@in_a_loop
async def test_notices_are_sent_with_one_connection(narrow, told, notifying, receiver, letters):
    told.webhook(receiver.url)
    told.recipient("manager@acme.example")
    told.cross()
    async with notifying(via=narrow, smtp=letters.server):
        await until_there(lambda: len(receiver.came) == 1 and len(letters.came) == 1)
    assert matching.state_now(narrow, told.tenant).notices.webhooks


@in_a_loop
async def test_records_are_charged_and_read_with_one_connection(narrow, postgres):
    async with postgres.opened() as writer:
        await furnish(writer, voice=10_000)
    async with Engine(narrow, ROOT) as engine:
        for first in range(0, 60, 20):
            outcomes = await engine.charge(
                postgres.tenant, [call(first + i, i % 10) for i in range(20)], "mediation:narrow"
            )
            assert statuses(outcomes) == ["charged"] * 20
    assert catch_up(narrow, postgres.tenant, chunk=10) == postgres.log.head().seq
    assert len(charged_ids(narrow, postgres.tenant)) == 60
    assert list(dump(narrow, postgres.tenant))
    verified(narrow, postgres.tenant)
