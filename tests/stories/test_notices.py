"""Being told: from the telecoms manager's wish to the letter and the signed request, and back.

Sales may use ten minutes of calls in a month. Its manager wants to know at half of it, and so does a
program of the enterprise; nobody wants to be woken.
"""

import asyncio

import msgspec
import pytest
from fixtures_notices import ROOT, settings
from patience import until_there

from allotment.backend.notifying.notifying import Notifying
from allotment.backend.verifying import verify

LIMIT = """mutation { setLimit(input: {idempotencyKey: "l", node: "sales", usageType: "voice",
  quantity: "600", thresholds: [50, 100]}) { __typename } }"""
RECIPIENT = """mutation($email: String!) { setRecipient(input: {idempotencyKey: "r",
  recipient: "sales-manager", role: "cost centre manager", email: $email, filter: {node: "sales"},
  quiet: {starts: "22:00", ends: "07:00"}}) { __typename } }"""
WEBHOOK = """mutation($url: String!) { createWebhook(input: {idempotencyKey: "w", url: $url,
  filter: {node: "acme"}}) { ... on WebhookDone { secret webhook { id } } ... on Problem { message } } }"""
ROTATE = """mutation($id: ID!) { rotateWebhookSecret(input: {idempotencyKey: "o", webhook: $id,
  overlapSeconds: 0}) {
  ... on WebhookDone { secret } } }"""
REPLAY = """mutation($id: ID!) { replayWebhook(
  input: {idempotencyKey: "again", webhook: $id, afterSeq: "0"}) { __typename } }"""
LOG = """query($id: ID!) { deliveries(to: $id) { nodes { status attempts replays detail } } }"""


@pytest.fixture
def reachable(portal, monkeypatch):
    """The receiver of this test is on this machine, which webhooks may not reach otherwise."""
    monkeypatch.setattr(portal.client.app.state.around, "private_webhooks", True)


def test_a_crossing_is_told_to_the_manager_and_to_the_program(company, call, receiver, letters, reachable):
    company.ask(LIMIT)
    assert (
        company.ask(RECIPIENT, email="manager@example.com")["setRecipient"]["__typename"] == "RecipientDone"
    )
    made = company.ask(WEBHOOK, url=receiver.url)["createWebhook"]
    ident = made["webhook"]["id"]

    async def story():
        given = settings(smtp=letters.server)
        engine = company.portal.engine
        async with Notifying(engine.isolation, ROOT, given, _nobody, look_seconds=0.1):
            await asyncio.to_thread(company.use, call("c-1", 240))
            await asyncio.sleep(0.3)
            assert not receiver.came
            await asyncio.to_thread(company.use, call("c-2", 60))
            await until_there(lambda: receiver.came and letters.came)
            await asyncio.to_thread(company.use, call("c-3", 300))
            await until_there(lambda: len(receiver.came) == 2 and len(letters.came) == 2)
            await until_there(lambda: _settled(company, ident))

            # The program lost what it was told, and gets it again, signed with its new secret.
            rotated = await asyncio.to_thread(company.ask, ROTATE, id=ident)
            await asyncio.to_thread(company.ask, REPLAY, id=ident)
            await until_there(lambda: len(receiver.came) == 4)
            return rotated["rotateWebhookSecret"]["secret"]

    secret = asyncio.run(asyncio.wait_for(story(), 60))
    told = [msgspec.json.decode(body)["data"]["event"]["percent"] for _, body in receiver.came]
    assert sorted(told) == [50, 50, 100, 100]
    assert sorted(receiver.ids[:2]) == sorted(receiver.ids[2:])
    receiver.came = receiver.came[2:]
    assert receiver.verified(secret) == 2
    assert {message["Subject"] for _, message in letters.came} == {
        "Acme: Sales at 50 % of its limit on voice",
        "Acme: Sales at 100 % of its limit on voice",
    }
    assert verify(company.portal.engine.isolation, company.id).ok


def _settled(company, ident):
    nodes = company.ask(LOG, id=ident)["deliveries"]["nodes"]
    return {node["status"] for node in nodes} == {"DELIVERED"}


async def _nobody(*_):
    raise AssertionError("nothing is to be disabled")
