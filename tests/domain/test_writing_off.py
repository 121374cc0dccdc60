"""Writing off beyond an amount a day, or what nobody can value, takes two persons.

One person may write off 1.00 alone in a day. Calls to "+1" cost 0.01 a second.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.canonical import lines
from allotment.domain.charging import ChargeUsage
from allotment.domain.contract import QUANTITY_MAX
from allotment.domain.lateness import HOUR
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.suspense import AmendUsage, RecycleUsage, waiting_id
from allotment.domain.usage import UsageRecord
from allotment.domain.writing_off import (
    DismissalRuleSet,
    DismissUsage,
    KeepUsage,
    SetDismissalRule,
    UsageDismissalAsked,
    UsageDismissed,
    UsageKept,
)

ONE = 1_000_000
ANN, BOB = "carrier:ann", "carrier:bob"


def charge_of(number, at):
    record = UsageRecord("pbx", f"c-{number}", "r-9", "voice", 60, at, "outbound", "+12125550100")
    return ChargeUsage(record, b"r-9", b"sealed %d" % number)


class Clerks:
    def __init__(self, acme, now):
        self.acme, self.now, self.waiting = acme, now, []
        acme.do(SetDismissalRule(ONE, "section 5"))

    def suspend(self):
        (told,) = self.acme.do(charge_of(len(self.waiting), self.now))
        self.waiting.append(waiting_id(told))
        return len(self.waiting) - 1

    def dismiss(self, number, by, value, later=0, revision=0):
        about = (self.waiting[number], revision, "pbx", f"c-{number}", "a test call")
        return self._do(DismissUsage(*about, value), by, later)

    def keep(self, number, by=ANN):
        return self._do(KeepUsage(self.waiting[number], 0, "pbx", f"c-{number}", "no"), by, 0)

    def _do(self, command, by, later):
        try:
            events = self.acme.tenant.decide(command, self.now + later, by)
        except Refused as refusal:
            return refusal.code
        self.acme.tell(*events)
        self.acme.tenant.check_whole()
        return events[0]


@pytest.fixture
def clerks(acme, now):
    return Clerks(acme, now)


@pytest.mark.parametrize(
    ("value", "asked"), [(0, False), (ONE - 1, False), (ONE, False), (ONE + 1, True), (None, True)]
)
def test_from_the_amount_on_or_without_a_value_another_person_is_asked(clerks, value, asked):
    told = clerks.dismiss(clerks.suspend(), ANN, value)
    assert isinstance(told, UsageDismissalAsked if asked else UsageDismissed)
    assert (told.value, len(clerks.acme.tenant.suspense.waiting)) == (value, int(asked))


def test_many_small_records_are_no_way_around_it_but_each_day_is_new(clerks):
    half, other, third, fourth = (clerks.suspend() for _ in range(4))
    assert isinstance(clerks.dismiss(half, ANN, ONE // 2), UsageDismissed)
    assert isinstance(clerks.dismiss(other, ANN, ONE // 2 + 1), UsageDismissalAsked)
    assert isinstance(clerks.dismiss(third, BOB, ONE), UsageDismissed), "what others do does not count"
    # It is noon in Berlin: twelve hours on, a day begins.
    assert clerks.dismiss(other, ANN, ONE // 2 + 1, later=12 * HOUR - 1) == "dismissal_asked"
    assert isinstance(clerks.dismiss(fourth, ANN, ONE, later=12 * HOUR), UsageDismissed)


def test_who_asked_does_not_write_off_and_who_acts_for_another_is_the_same_person(clerks):
    number = clerks.suspend()
    clerks.dismiss(number, ANN, 2 * ONE)
    assert clerks.dismiss(number, ANN, 2 * ONE) == "dismissal_asked"
    assert clerks.dismiss(number, "telecoms_manager:u-1;act=ann", 2 * ONE) == "dismissal_asked"
    told = clerks.dismiss(number, BOB, 2 * ONE)
    assert isinstance(told, UsageDismissed)
    assert (told.asked_by, told.by, told.value) == (ANN, "", 2 * ONE)
    assert clerks.acme.tenant.suspense.writing_off.alone == {}, "two persons did it: none did it alone"
    assert clerks.dismiss(number, BOB, 2 * ONE) == "not_waiting"


def test_the_request_ends_with_whatever_else_happens_to_the_record(clerks, now):
    amended, recycled, kept = (clerks.suspend() for _ in range(3))
    for number in (amended, recycled, kept):
        clerks.dismiss(number, ANN, 2 * ONE)
    clerks.acme.do(AmendUsage(clerks.waiting[amended], 0, charge_of(amended, now), ("line",), "a slip"))
    clerks.acme.do(RecycleUsage(clerks.waiting[recycled], 0, charge_of(recycled, now)))
    assert isinstance(clerks.keep(kept, BOB), UsageKept)
    assert clerks.acme.tenant.suspense.writing_off.asked == {}
    for number, revision in ((amended, 1), (recycled, 1), (kept, 0)):
        assert isinstance(clerks.dismiss(number, BOB, 2 * ONE, revision=revision), UsageDismissalAsked)


def test_nothing_is_kept_that_nobody_wants_to_write_off(clerks):
    assert clerks.keep(clerks.suspend()) == "dismissal_not_asked"


def test_once_the_rule_is_lifted_one_person_is_enough(clerks):
    number = clerks.suspend()
    clerks.dismiss(number, ANN, None)
    clerks.acme.do(SetDismissalRule(None))
    told = clerks.dismiss(number, ANN, None)
    assert isinstance(told, UsageDismissed)
    assert (told.by, told.at) == ("", 0), "without a rule nobody is counted"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SetDismissalRule(-1), "quantity_out_of_range"),
        (SetDismissalRule(QUANTITY_MAX + 1), "quantity_out_of_range"),
        (SetDismissalRule(0, "a\nb"), "bad_text"),
        (SetDismissalRule(None), "no_dismissal_rule"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(acme, command, code):
    assert acme.ask(command) == code
    assert acme.do(SetDismissalRule(0)) == [DismissalRuleSet(0, "")]


def test_what_does_not_wait_cannot_be_asked_for(clerks):
    clerks.acme.tell(UsageDismissalAsked(b"gone", "pbx", "c-1", 1, ANN, "x"))
    with pytest.raises(InvariantBroken, match="wants to write off waits"):
        clerks.acme.tenant.check_whole()


def test_a_snapshot_gives_back_who_asked_and_what_was_written_off(clerks):
    asked, alone = clerks.suspend(), clerks.suspend()
    clerks.dismiss(asked, ANN, None)
    clerks.dismiss(alone, BOB, ONE)
    tenant = clerks.acme.tenant
    restored = restore(encode_counters(copy_counters(tenant)), encode_structure(tenant))
    assert b"".join(lines(restored)) == b"".join(lines(tenant))
    kept, held = restored.suspense.writing_off, tenant.suspense.writing_off
    assert (kept.rule, kept.asked, kept.alone) == (held.rule, held.asked, held.alone)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.none() | st.integers(0, 700_000)), max_size=12)
)
def test_nobody_ever_writes_off_more_than_the_rule_alone_in_a_day(asked, bare_company, now):
    clerks, alone = Clerks(bare_company(), now), {ANN: 0, BOB: 0}
    for by, value in asked:
        told = clerks.dismiss(clerks.suspend(), by, value)
        if isinstance(told, UsageDismissed):
            assert value is not None
            alone[by] += value
    assert max(alone.values()) <= ONE
