"""Records that wait: corrected, decided again on the state as it is, or written off; never charged twice.

Voice to "+" costs 0.01 a second where nothing is left of the allowance, messages 0.05 each.
"""

import pytest

from allotment.domain.canonical import lines
from allotment.domain.charging import (
    CONFLICTING,
    SUSPENSE,
    ChargeUsage,
    SuspendUsage,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
)
from allotment.domain.contract import ContractSigned
from allotment.domain.hierarchy import Identity, NodeAdded, ResourceAdded
from allotment.domain.limit import SetLimit
from allotment.domain.rating.language import Span, Window
from allotment.domain.refusals import InvariantBroken
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.suspense import (
    AmendUsage,
    RecycleUsage,
    UsageAmended,
    UsageRecycled,
    follows,
    waiting_id,
)
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.tenant import TenantOpened
from allotment.domain.usage import UsageRecord
from allotment.domain.writing_off import DismissUsage, UsageDismissed

US = "+12125550100"


def charge_of(line="r-9", record_id="c-1", at=0, **changes):
    fields = {"usage_type": "voice", "quantity": 60, "counterpart": US, "started_at": at}
    record = UsageRecord("pbx", record_id, line, **{**fields, **changes})
    return ChargeUsage(record, line.encode(), b"sealed " + line.encode())


def suspend(acme, now, **given):
    """A record that waits, and by what it is known."""
    (told,) = acme.do(charge_of(**{"at": now, **given}))
    assert isinstance(told, UsageSuspended)
    return waiting_id(told)


def provide_line(acme, line="r-9"):
    ordinal = len(acme.tenant.hierarchy.members)
    acme.tell(ResourceAdded(line, ordinal, "sales", "msisdn", 0, (Identity(line.encode(), b""),)))


# --- recycling ------------------------------------------------------------------------------


def test_what_waited_is_charged_once_its_cause_is_gone(acme, now):
    waiting = suspend(acme, now)
    provide_line(acme)
    recycled, charged = acme.do(RecycleUsage(waiting, 0, charge_of(at=now), note="line added"))
    assert recycled == UsageRecycled(
        waiting, "pbx", "c-1", "charged", "", "", "", 1, "voice", 0, "line added"
    )
    assert isinstance(charged, UsageCharged)
    assert charged.billed == 60
    assert follows(recycled, charged)
    assert acme.tenant.suspense.waiting == {}
    assert acme.tenant.suspense.settled == {"charged": 1, "rejected": 0, "dismissed": 0}
    assert acme.tenant.charging.counts == {"charged": 1, "rejected": 0, "suspended": 1}


def test_recycled_in_vain_it_waits_on_as_the_same_record_with_the_new_reason(acme, now):
    waiting = suspend(acme, now)
    provide_line(acme)
    (told,) = acme.do(RecycleUsage(waiting, 0, charge_of(at=now, usage_type="fax")))
    assert (told.outcome, told.reason, told.attempt) == ("suspended", "unknown_usage_type", 1)
    assert acme.tenant.suspense.waiting == {waiting: 1}
    assert acme.tenant.charging.counts["suspended"] == 1


def test_what_a_limit_stops_now_is_rejected_and_waits_no_more(acme, now):
    waiting = suspend(acme, now)
    provide_line(acme)
    acme.do(SetLimit("sales", "voice", 59))
    recycled, rejected = acme.do(RecycleUsage(waiting, 0, charge_of(at=now)))
    assert (recycled.outcome, recycled.reason) == ("rejected", "limit_exceeded")
    assert isinstance(rejected, UsageRejected)
    assert acme.tenant.suspense.settled["rejected"] == 1


def test_what_is_rejected_keeps_what_its_record_said_besides(acme, now):
    acme.do(SetLimit("sales", "voice", 59))
    (told,) = acme.do(charge_of(line="r-1", at=now, attributes=(("network", "fixed"),)))
    assert (told.reason, told.attributes) == ("limit_exceeded", (("network", "fixed"),))


def test_what_has_been_charged_under_its_id_is_not_charged_again(acme, now):
    waiting = suspend(acme, now)
    provide_line(acme)
    (told,) = acme.do(RecycleUsage(waiting, 0, charge_of(at=now), taken=True))
    assert (told.outcome, told.reason, told.field, told.detail) == ("suspended", *CONFLICTING)
    assert acme.tenant.charging.counts["charged"] == 0


def test_of_two_who_recycle_at_once_one_comes_too_late(acme, now):
    waiting = suspend(acme, now)
    provide_line(acme)
    command = RecycleUsage(waiting, 0, charge_of(at=now))
    acme.do(command)
    assert acme.refusal(command)[0] == "not_waiting"


@pytest.mark.parametrize("kind", [RecycleUsage, AmendUsage])
def test_what_was_touched_since_it_was_read_is_looked_at_again(acme, now, kind):
    waiting = suspend(acme, now)
    acme.do(AmendUsage(waiting, 0, charge_of(line="r-1", at=now), ("line",), "a slip"))
    given = {"fields": ("line",), "note": "x"} if kind is AmendUsage else {}
    assert acme.refusal(kind(waiting, 0, charge_of(at=now), **given))[0] == "record_changed"


def test_a_record_leaves_suspense_once(acme, now):
    waiting = suspend(acme, now)
    dismissed = UsageDismissed(waiting, "pbx", "c-1", "test call")
    acme.tell(dismissed)
    with pytest.raises(InvariantBroken, match="leaves suspense once"):
        acme.tell(dismissed)


# --- correcting -----------------------------------------------------------------------------


def test_a_correction_tells_what_was_corrected_by_whom_and_why_and_the_record_waits_on(acme, now):
    waiting = suspend(acme, now)
    (told,) = acme.do(AmendUsage(waiting, 0, charge_of(line="r-1", at=now), ("line",), "digits swapped"))
    assert told == UsageAmended(
        waiting, "pbx", "c-1", ("line",), "voice", 60, now, "outbound", (), b"sealed r-1", b"r-1",
        value=600_000, note="digits swapped",
    )  # fmt: skip
    recycled, charged = acme.do(RecycleUsage(waiting, 1, charge_of(line="r-1", at=now)))
    assert (recycled.attempt, charged.path[0]) == (2, 4)


def test_what_could_not_be_read_is_given_by_hand(acme, now):
    (told,) = acme.do(SuspendUsage("pbx", "c-1", "malformed", "row", "is no CSV", "a.csv:3", b"raw", b"raw"))
    waiting = waiting_id(told)
    acme.do(AmendUsage(waiting, 0, charge_of(line="r-1", at=now), ("line", "quantity"), "from the switch"))
    _, charged = acme.do(RecycleUsage(waiting, 1, charge_of(line="r-1", at=now)))
    assert charged.billed == 60


def test_written_off_it_is_nobodys_any_more(acme, now):
    waiting = suspend(acme, now)
    assert acme.do(DismissUsage(waiting, 0, "pbx", "c-1", "a test call")) == [
        UsageDismissed(waiting, "pbx", "c-1", "a test call")
    ]
    assert acme.tenant.suspense.waiting == {}
    assert acme.refusal(RecycleUsage(waiting, 0, charge_of(at=now)))[0] == "not_waiting"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (lambda w, c: AmendUsage(w, 0, c, ("line",), ""), "bad_text"),
        (lambda w, c: AmendUsage(w, 0, c, (), "why"), "nothing_amended"),
        (lambda w, c: DismissUsage(w, 0, "pbx", "c-1", ""), "bad_text"),
        (lambda w, c: DismissUsage(w, 1, "pbx", "c-1", "why"), "record_changed"),
        (lambda w, c: DismissUsage(b"other", 0, "pbx", "c-1", "why"), "not_waiting"),
        (lambda w, c: RecycleUsage(w, 0, c, note="a\nb"), "bad_text"),
    ],
)
def test_what_cannot_be_done_is_refused(acme, now, command, code):
    waiting = suspend(acme, now)
    assert acme.refusal(command(waiting, charge_of(at=now)))[0] == code


# --- what is at stake -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason", "value"),
    [
        ({}, "unknown_line", 600_000),
        ({"counterpart": "+4930"}, "unknown_line", 60_000),
        ({"quantity": 0}, "unknown_line", 0),
        ({"usage_type": "messaging", "quantity": 3}, "unknown_line", 150_000),
        ({"counterpart": "sip:x", "line": "r-1"}, "no_rate", None),
        ({"usage_type": "fax", "line": "r-1"}, "unknown_usage_type", None),
    ],
)
def test_what_waits_says_what_it_would_cost_as_if_no_allowance_paid(told, now, changes, reason, value):
    rates = (
        Rate("voice", "national", "0.06", per=60, prefix="+49", increment=60),
        Rate("voice", "world", "0.60", per=60, prefix="+"),
        Rate("messaging", "any", "0.05"),
    )
    acme = told(
        TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier"),
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
        ResourceAdded("r-1", 1, "acme", "msisdn", 0, (Identity(b"r-1", b""),)),
        ContractSigned("frame", 1, "2026-01-01", (), overage=True),
        TariffPublished("standard", 1, 0, "EUR", "half_up", 4, rates),
    )
    (waits,) = acme.do(charge_of(at=now, **changes))
    assert (waits.reason, waits.value) == (reason, value)


@pytest.mark.parametrize(("counterpart", "value"), [("+1", 60_000), ("+2", 600_000), ("+3", None)])
def test_what_waits_is_valued_at_the_time_it_was_used(told, now, counterpart, value):
    noon = Window("noon", (Span((), 11 * 60, 13 * 60),))
    rates = (
        Rate("voice", "one", "0.60", per=60, prefix="+1"),
        Rate("voice", "one", "0.06", per=60, prefix="+1", window="noon"),
        Rate("voice", "two", "0.60", per=60, prefix="+2"),
        Rate("voice", "three", "0", prefix="+3", percent="10"),
    )
    acme = told(
        TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier"),
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
        TariffPublished("standard", 1, 0, "EUR", "half_up", 4, rates, windows=(noon,)),
    )
    assert acme.do(charge_of(at=now, counterpart=counterpart))[0].value == value


def test_what_waits_costs_nothing_known_where_no_tariff_is_valid(told, now):
    acme = told(
        TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier"),
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
    )
    (waits,) = acme.do(charge_of(at=now))
    assert (waits.reason, waits.value) == ("unknown_line", None)


def test_reasons_have_a_field_and_a_remedy():
    assert all(field and detail for field, detail in SUSPENSE.values())


# --- what comes back ------------------------------------------------------------------------


def test_a_snapshot_gives_back_what_waits(acme, now):
    suspend(acme, now, record_id="c-1")
    touched = suspend(acme, now, record_id="c-2")
    gone = suspend(acme, now, record_id="c-3")
    acme.do(AmendUsage(touched, 0, charge_of(record_id="c-2", line="r-1", at=now), ("line",), "a slip"))
    acme.do(DismissUsage(gone, 0, "pbx", "c-3", "a test call"))
    restored = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert list(restored.suspense.waiting.items()) == list(acme.tenant.suspense.waiting.items())
    assert b"".join(lines(restored)) == b"".join(lines(acme.tenant))
    restored.check_whole()
