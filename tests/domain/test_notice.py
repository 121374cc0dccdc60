"""Who is told of what: what may be asked for, and whom an event concerns."""

import pytest

from allotment.domain.bucket import Transferred
from allotment.domain.canonical import lines
from allotment.domain.contract import PeriodOpened
from allotment.domain.hierarchy import ResourceMoved
from allotment.domain.limit import LimitSet, ThresholdCrossed
from allotment.domain.notice import (
    OVERLAP_SECONDS_MAX,
    RECIPIENTS_MAX,
    SEQ_MAX,
    CreateWebhook,
    DisableWebhook,
    EnableWebhook,
    Filter,
    RemoveRecipient,
    ReplayWebhook,
    RotateWebhookSecret,
    SetRecipient,
    is_urgent,
)
from allotment.domain.quiet import QuietHours
from allotment.domain.refusals import Refused
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore

NOW = 1_794_744_000_000_000


@pytest.fixture(name="acme")
def the_tenant(acme):
    return acme.tenant


def crossed(node, percent=80, usage_type="voice"):
    return ThresholdCrossed(node, usage_type, "2026-11", percent, percent, 100)


def mail(recipient="r", node="sales", **more):
    return SetRecipient(recipient, "manager", b"address", Filter(node, **more))


def hook(webhook="w", node="acme", **more):
    return CreateWebhook(webhook, "https://hooks.example.com", b"address", b"one", Filter(node, **more))


def do(tenant, *commands):
    for command in commands:
        for event in tenant.decide(command, NOW):
            tenant.apply(event)
    return tenant


def told(tenant, event):
    notices = tenant.notices
    return [one.recipient for one in notices.recipients_of(event, tenant.hierarchy)] + [
        one.id for one in notices.webhooks_of(event, tenant.hierarchy)
    ]


@pytest.mark.parametrize(
    ("asked", "event", "is_told"),
    [
        ({"node": "sales"}, crossed("sales"), True),
        ({"node": "sales"}, crossed("emea"), False),
        ({"node": "sales"}, crossed("apac"), False),
        ({"node": "emea"}, crossed("sales"), True),
        ({"node": "emea"}, crossed("r-1"), True),
        ({"node": "acme"}, crossed("r-2"), True),
        ({"node": "emea", "below": False}, crossed("sales"), False),
        ({"node": "emea", "below": False}, crossed("emea"), True),
        ({"node": "acme", "percent_min": 80}, crossed("acme", 79), False),
        ({"node": "acme", "percent_min": 80}, crossed("acme", 80), True),
        ({"node": "acme", "usage_types": ("data",)}, crossed("acme"), False),
        ({"node": "acme", "usage_types": ("data", "voice")}, crossed("acme"), True),
        ({"node": "acme"}, LimitSet("acme", "voice", 1, (80,), "2026-11"), False),
        ({"node": "acme", "topics": ("limit.set",)}, LimitSet("emea", "voice", 1, (80,), "2026-11"), True),
        (
            {"node": "apac", "topics": ("bucket.transferred",)},
            Transferred("emea", "apac", "voice", "2026-11", 1, "trade", ""),
            True,
        ),
        (
            {"node": "sales", "topics": ("bucket.transferred",)},
            Transferred("emea", "apac", "voice", "2026-11", 1, "trade", ""),
            False,
        ),
        ({"node": "apac", "topics": ("hierarchy.resource_moved",)}, ResourceMoved("r-1", "apac", 5), True),
        (
            {"node": "acme", "topics": ("contract.period_opened",)},
            PeriodOpened("2026-12", 0, 1, "c", 1, overage=True),
            True,
        ),
        (
            {"node": "emea", "topics": ("contract.period_opened",)},
            PeriodOpened("2026-12", 0, 1, "c", 1, overage=True),
            False,
        ),
    ],
)
def test_who_asked_at_a_node_is_told_of_it_and_of_what_is_below(acme, asked, event, is_told):
    do(acme, mail(**asked), hook(**asked))
    assert told(acme, event) == (["r", "w"] if is_told else [])


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        ([], mail(node="nowhere"), "unknown_node"),
        ([], hook(node="nowhere"), "unknown_node"),
        ([], mail(topics=()), "unknown_topic"),
        ([], mail(topics=("limit.swallowed",)), "unknown_topic"),
        ([], mail(topics=("usage.charged",)), "unknown_topic"),
        ([], mail(usage_types=("fax",)), "unknown_usage_type"),
        ([], mail(percent_min=-1), "bad_percent"),
        ([], mail(percent_min=1001), "bad_percent"),
        ([], mail(recipient=""), "bad_text"),
        ([], SetRecipient("r", "", b"a", Filter("acme")), "bad_text"),
        ([], SetRecipient("r", "manager", b"a", Filter("acme"), note="\n"), "bad_text"),
        ([], SetRecipient("r", "manager", b"a", Filter("acme"), digest="week"), "bad_digest"),
        ([], SetRecipient("r", "manager", b"a", Filter("acme"), QuietHours(5, 5)), "bad_hours"),
        ([], RemoveRecipient("r"), "unknown_recipient"),
        ([hook()], hook(), "webhook_exists"),
        ([], RotateWebhookSecret("w", b"two"), "unknown_webhook"),
        ([hook()], RotateWebhookSecret("w", b"two", -1), "bad_overlap"),
        ([hook()], RotateWebhookSecret("w", b"two", OVERLAP_SECONDS_MAX + 1), "bad_overlap"),
        ([], DisableWebhook("w"), "unknown_webhook"),
        ([hook(), DisableWebhook("w")], DisableWebhook("w"), "webhook_disabled"),
        ([], EnableWebhook("w"), "unknown_webhook"),
        ([hook()], EnableWebhook("w"), "webhook_not_disabled"),
        ([], ReplayWebhook("w"), "unknown_webhook"),
        ([hook()], ReplayWebhook("w", -1), "bad_after"),
        ([hook()], ReplayWebhook("w", SEQ_MAX + 1), "bad_after"),
        ([hook(), DisableWebhook("w")], ReplayWebhook("w"), "webhook_disabled"),
    ],
)
def test_what_cannot_be_is_refused(acme, before, command, code):
    do(acme, *before)
    with pytest.raises(Refused) as refusal:
        acme.decide(command, NOW)
    assert refusal.value.code == code


def test_there_is_a_last_recipient_and_changing_one_is_no_new_one(acme):
    for number in range(RECIPIENTS_MAX):
        do(acme, mail(f"r{number}"))
    do(acme, mail("r0", "emea"))
    with pytest.raises(Refused, match="too_many_recipients"):
        acme.decide(mail("one more"), NOW)


def test_a_recipient_that_is_removed_is_told_nothing_more(acme):
    do(acme, mail(), RemoveRecipient("r"))
    assert told(acme, crossed("sales")) == []


def test_a_webhook_that_is_disabled_is_told_nothing_until_it_is_enabled(acme):
    do(acme, hook(), DisableWebhook("w", "failing"))
    assert told(acme, crossed("sales")) == []
    do(acme, EnableWebhook("w"))
    assert told(acme, crossed("sales")) == ["w"]


def test_after_a_rotation_both_secrets_sign_until_the_overlap_ends(acme):
    do(acme, hook(), RotateWebhookSecret("w", b"two", 60))
    webhook = acme.notices.webhooks["w"]
    assert webhook.secrets_at(NOW + 59_999_999) == [b"two", b"one"]
    assert webhook.secrets_at(NOW + 60_000_000) == [b"two"]


def test_without_an_overlap_the_old_secret_is_gone_at_once(acme):
    do(acme, hook(), RotateWebhookSecret("w", b"two", 0))
    assert acme.notices.webhooks["w"].secrets_at(NOW) == [b"two"]


@pytest.mark.parametrize(("event", "urgent"), [(crossed("acme", 99), False), (crossed("acme", 100), True)])
def test_what_stops_usage_is_urgent(event, urgent):
    assert is_urgent(event) is urgent


def test_a_snapshot_keeps_who_is_told(acme):
    do(acme, mail("a"), mail("b", "emea"), hook("w"), hook("v"), RotateWebhookSecret("w", b"two"))
    do(acme, DisableWebhook("v", "gone"), RemoveRecipient("b"))
    again = restore(encode_counters(copy_counters(acme)), encode_structure(acme))
    assert list(lines(again)) == list(lines(acme))
    assert any(b'"is":"webhook"' in line for line in lines(again))
    again.check_whole()
