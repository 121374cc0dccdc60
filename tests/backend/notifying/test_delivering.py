"""Deliveries: at least once, under the same id, whatever happens on the way."""

import asyncio
import time

import pytest
from fixtures_loop import in_a_loop
from fixtures_notices import Receiver
from patience import until_there

from allotment.backend.notifying import matching, queue
from allotment.backend.notifying.queue import Place, notice_id
from allotment.domain.limit import ThresholdCrossed
from allotment.domain.notice import DisableWebhook, ReplayWebhook, RotateWebhookSecret
from allotment.domain.quiet import QuietHours
from allotment.tenants.address_book import erase_addresses


def log_of(told, channel="webhook", endpoint="w"):
    with told.isolation.transaction(told.tenant) as db:
        return queue.logged(db, channel, endpoint, None, 100, None)


def crossings(told):
    from allotment.backend.log import recorded

    rows = told.log.read()
    return [row.seq for row in rows if isinstance(recorded(row).event, ThresholdCrossed)]


@in_a_loop
async def test_a_crossing_reaches_a_webhook_signed_as_a_cloud_event(told, receiver, notifying):
    secret = told.webhook(receiver.url)
    async with notifying():
        told.cross()
        await until_there(lambda: receiver.came)
        # The receiver has it a moment before its answer stands in the log.
        await until_there(lambda: log_of(told)[0].status == "delivered")
    assert receiver.verified(secret) == 1
    headers, _ = receiver.came[0]
    (event,) = receiver.events()
    (seq,) = crossings(told)
    assert headers["webhook-id"] == event["id"] == notice_id(told.tenant, seq)
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert {name: event[name] for name in ("specversion", "type", "subject", "tenantid")} == {
        "specversion": "1.0",
        "type": "allotment.limit.threshold_crossed",
        "subject": "sales",
        "tenantid": str(told.tenant),
    }
    assert event["data"]["event"]["percent"] == 10
    assert "Sales reached 10 %" in event["data"]["sentence"]
    (line,) = log_of(told)
    assert (line.status, line.attempts, line.detail, line.seq) == ("delivered", 1, "204", seq)


@in_a_loop
async def test_a_webhook_bound_to_a_node_is_not_told_of_what_is_beyond(told, receiver, notifying):
    told.webhook(receiver.url, "apac", "apac")
    told.webhook(receiver.url, "emea", "emea")
    async with notifying():
        told.cross(3)
        await until_there(lambda: len(receiver.came) == 3)
        await asyncio.sleep(0.3)
    assert len(receiver.came) == 3
    assert log_of(told, endpoint="apac") == []


@in_a_loop
async def test_what_fails_is_tried_again_under_the_same_id_later_each_time(told, receiver, notifying):
    told.webhook(receiver.url)
    receiver.answers = [500, 503, 302, 200]
    async with notifying(backoff_seconds=(0, 0, 1)):
        told.cross()
        await until_there(lambda: len(receiver.came) == 4)
        await until_there(lambda: log_of(told)[0].status == "delivered")
    assert len(set(receiver.ids)) == 1
    assert receiver.at[3] - receiver.at[2] >= 1
    assert log_of(told)[0].attempts == 4


@in_a_loop
async def test_who_asks_us_to_wait_is_not_asked_sooner(told, receiver, notifying):
    told.webhook(receiver.url)
    receiver.answers, receiver.headers = [429, 200], {"retry-after": "1"}
    async with notifying(backoff_seconds=(0, 0)):
        told.cross()
        await until_there(lambda: len(receiver.came) == 2)
    assert receiver.at[1] - receiver.at[0] >= 1


@in_a_loop
async def test_after_the_last_attempt_the_webhook_is_disabled(told, receiver, notifying):
    told.webhook(receiver.url)
    receiver.answers = [500]
    async with notifying(backoff_seconds=(0, 0)) as notices:
        told.cross()
        (command,) = await until_there(lambda: notices.disabled)
    assert (command.webhook, command.reason) == ("w", "failing")
    assert command.note == "the last answer: 500"
    assert len(receiver.came) == 3


@in_a_loop
async def test_one_that_says_it_is_gone_is_disabled_at_once(told, receiver, notifying):
    told.webhook(receiver.url)
    receiver.answers = [410]
    async with notifying() as notices:
        told.cross()
        (command,) = await until_there(lambda: notices.disabled)
    assert command.reason == "gone"


@in_a_loop
async def test_a_disabled_webhook_is_told_nothing_also_of_what_waited(told, receiver, notifying):
    told.webhook(receiver.url)
    told.cross()
    told.do(DisableWebhook("w"))
    told.commit()
    told.cross()
    async with notifying():
        await asyncio.sleep(0.5)
    assert not receiver.came


@in_a_loop
async def test_both_secrets_sign_while_they_overlap(told, receiver, notifying):
    old = told.webhook(receiver.url)
    told.now = time.time_ns() // 1_000
    told.do(RotateWebhookSecret("w", b"another", 60))
    told.commit()
    async with notifying():
        told.cross()
        await until_there(lambda: receiver.came)
    assert receiver.verified(old) == receiver.verified(told.book.secret(b"another")) == 1


@in_a_loop
async def test_one_slow_webhook_holds_nobody_up(told, receiver, notifying):
    slow = Receiver()
    slow.open.clear()
    try:
        told.webhook(slow.url, "slow")
        told.webhook(receiver.url)
        async with notifying():
            told.cross(8)
            await until_there(lambda: len(receiver.came) == 8)
            assert len(slow.came) <= 4, "those that it has not answered"
            slow.open.set()
    finally:
        slow.open.set()
        slow.close()


@in_a_loop
async def test_what_was_claimed_by_who_died_is_delivered_by_another_under_the_same_id(
    told, receiver, notifying, isolation
):
    told.webhook(receiver.url)
    end = told.cross(2)
    known = matching.Known(isolation, told.tenant, None)
    clock = [time.time_ns() // 1_000]
    (now,) = clock
    matching.step(isolation, known, now)
    place = Place(told.tenant, "webhook", "w")
    with isolation.transaction(told.tenant) as db:
        _, mine = queue.claim(db, place, now, limit=10, seconds=1)
        assert len(mine) == 2
        assert queue.claim(db, place, now, limit=10) == (0, [])
    async with notifying(clock=lambda: clock[0]):
        await asyncio.sleep(0.3)
        assert not receiver.came
        clock[0] += 1_000_000
        await until_there(lambda: len(receiver.came) == 2)
    assert set(receiver.ids) == {notice_id(told.tenant, seq) for seq in crossings(told)}
    assert end == told.log.head().seq


@in_a_loop
async def test_two_that_send_at_once_send_each_notice_once(told, receiver, notifying, database):
    from allotment.tenants.isolation import Isolation

    told.webhook(receiver.url)
    other = Isolation(database)
    try:
        async with notifying(), notifying(via=other):
            for _ in range(10):
                told.cross()
                await asyncio.sleep(0.02)
            await until_there(lambda: len(receiver.came) >= 10)
            await asyncio.sleep(0.3)
    finally:
        other.close()
    assert len(receiver.came) == len(set(receiver.ids)) == 10


@in_a_loop
async def test_what_was_told_can_be_told_again_from_any_point(told, receiver, notifying):
    told.webhook(receiver.url)
    async with notifying():
        told.cross(4)
        await until_there(lambda: len(receiver.came) == 4)
        await until_there(lambda: {line.status for line in log_of(told)} == {"delivered"})
        second = sorted(crossings(told))[1]
        told.do(ReplayWebhook("w", second))
        told.commit()
        await until_there(lambda: len(receiver.came) == 6)
        await asyncio.sleep(0.3)
    assert sorted(receiver.ids[4:]) == sorted(notice_id(told.tenant, seq) for seq in crossings(told)[2:])
    assert [line.replays for line in log_of(told)] == [1, 1, 0, 0]


@in_a_loop
async def test_a_replay_tells_what_happened_before_the_webhook_was_there(told, receiver, notifying):
    told.cross(3)
    told.webhook(receiver.url)
    async with notifying():
        await asyncio.sleep(0.2)
        assert not receiver.came
        told.do(ReplayWebhook("w"))
        told.commit()
        await until_there(lambda: len(receiver.came) == 3)


@in_a_loop
async def test_an_erased_address_is_told_nothing(told, receiver, notifying):
    told.webhook(receiver.url)
    with told.isolation.transaction(told.tenant) as db:
        erase_addresses(db, [told.book.ref(receiver.url)])
    async with notifying():
        told.cross()
        (line,) = await until_there(lambda: [one for one in log_of(told) if one.status == "failed"])
    assert line.detail == "its address was erased"


@in_a_loop
async def test_a_private_address_is_not_reached_whoever_asked(told, receiver, notifying):
    told.webhook(receiver.url.replace("http://127.0.0.1", "https://localhost"))
    async with notifying(private_webhooks=False, backoff_seconds=(60,)):
        told.cross()
        (line,) = await until_there(lambda: [one for one in log_of(told) if one.attempts])
    assert line.detail.startswith("private_address")
    assert not receiver.came


def test_what_was_settled_long_ago_leaves_the_delivery_log_and_what_waits_stays(told, receiver, isolation):
    told.webhook(receiver.url)
    told.cross(2)
    matching.step(isolation, matching.Known(isolation, told.tenant, None), told.now)
    place = Place(told.tenant, "webhook", "w")
    with isolation.transaction(told.tenant) as db:
        queue.delivered(db, place, crossings(told)[:1], told.now, 1, "204")
        month = queue.KEPT_DAYS * 86_400_000_000
        assert queue.forget_old(db, told.now + month) == 0
        assert queue.forget_old(db, told.now + month + 1) == 1
    assert [line.seq for line in log_of(told)] == crossings(told)[1:]


# --- e-mail ------------------------------------------------------------------------------------------


@in_a_loop
async def test_a_crossing_reaches_a_person_by_mail(told, letters, notifying):
    told.recipient("anna@example.com")
    async with notifying(smtp=letters.server):
        told.cross()
        ((to, message),) = await until_there(lambda: letters.came)
    assert to == ["anna@example.com"]
    assert message["Subject"] == "Acme: Sales at 10 % of its limit on voice"
    assert "Sales reached 10 %" in message.get_content()
    assert message["Message-ID"]


@in_a_loop
async def test_what_is_held_for_the_night_comes_in_one_letter(told, letters, notifying):
    # All day, as far as this recipient is concerned.
    told.recipient("anna@example.com", quiet=QuietHours(0, 23 * 60 + 59))
    clock = [told.now]
    async with notifying(smtp=letters.server, clock=lambda: clock[0]):
        told.cross(3)
        await until_there(lambda: len(log_of(told, "email", "r")) == 3)
        await asyncio.sleep(0.3)
        assert not letters.came
        clock[0] += 24 * 3_600_000_000
        ((_, message),) = await until_there(lambda: letters.came)
    assert message["Subject"] == "Acme: 3 notices"
    assert message.get_content().count("Sales reached") == 3


@in_a_loop
async def test_what_stops_usage_waits_for_no_morning_if_so_asked(told, letters, notifying):
    night = QuietHours(0, 23 * 60 + 59)
    told.recipient("anna@example.com", "at once", quiet=night, digest="day", urgent_at_once=True)
    told.recipient("bert@example.com", "later", quiet=night, urgent_at_once=False)
    async with notifying(smtp=letters.server, clock=lambda: told.now):
        told.cross(10)
        await until_there(lambda: letters.came)
        await asyncio.sleep(0.3)
    ((to, message),) = letters.came
    assert to == ["anna@example.com"]
    assert "100 %" in message["Subject"]


@in_a_loop
async def test_an_address_that_the_mail_server_refuses_is_given_up(told, letters, notifying):
    told.recipient("nobody@example.com")
    letters.refusing = "550 no such user"
    async with notifying(smtp=letters.server):
        told.cross()
        (line,) = await until_there(
            lambda: [one for one in log_of(told, "email", "r") if one.status == "failed"]
        )
    assert "nobody" not in line.detail


@in_a_loop
async def test_a_mail_server_that_is_busy_is_asked_again(told, letters, notifying):
    told.recipient("anna@example.com")
    letters.refusing = "451 try later"
    async with notifying(smtp=letters.server, backoff_seconds=(0, 0, 0, 0, 0)):
        told.cross()
        await until_there(lambda: [one for one in log_of(told, "email", "r") if one.attempts])
        letters.refusing = ""
        await until_there(lambda: letters.came)


@in_a_loop
async def test_without_a_mail_server_letters_wait(told, letters, notifying):
    told.recipient("anna@example.com")
    told.cross()
    async with notifying():
        await until_there(lambda: log_of(told, "email", "r"))
        await asyncio.sleep(0.3)
    assert log_of(told, "email", "r")[0].status == "waiting"
    async with notifying(smtp=letters.server):
        await until_there(lambda: letters.came)


# --- what nobody may see -----------------------------------------------------------------------------


def test_neither_address_nor_secret_stands_anywhere_in_clear(told, receiver, isolation):
    secret = told.webhook(receiver.url)
    told.recipient("anna@example.com")
    with isolation.transaction(told.tenant) as db:
        kept = b"".join(row[0] for row in db.execute("SELECT sealed FROM notice_addresses").fetchall())
    stored = b"".join(row.state for row in told.log.read()) + kept
    for what in (b"anna", b"s3cret", b"example.com", secret.encode(), secret[6:30].encode()):
        assert what not in stored


def test_a_tenant_of_which_nobody_asks_anything_is_not_looked_at(told, isolation):
    told.cross()
    assert matching.behind(isolation, 10) == []


@pytest.mark.parametrize("chunk", [1, 3, 5_000])
def test_every_crossing_is_queued_once_however_the_log_is_cut(told, receiver, isolation, monkeypatch, chunk):
    monkeypatch.setattr(matching, "CHUNK", chunk)
    told.webhook(receiver.url)
    told.cross(10)
    known = matching.Known(isolation, told.tenant, None)
    more = True
    while more:
        _, more = matching.step(isolation, known, told.now)
        _, again = matching.step(isolation, matching.Known(isolation, told.tenant, None), told.now)
        more = more and again
    assert sorted(line.seq for line in log_of(told)) == sorted(crossings(told))
