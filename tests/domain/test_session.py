"""Sessions: how much is granted, who stops it, and what is charged in the end.

Acme has 1,000 seconds of voice; calls to Germany are billed by the minute, others by the second.
"""

from typing import Any

import pytest
from msgspec.structs import replace

from allotment.domain.bucket import Allocate, Granted, Return, Trade
from allotment.domain.charging import UsageCharged
from allotment.domain.contract import PeriodOpened
from allotment.domain.hold import NO_HOLD
from allotment.domain.limit import SetLimit, ThresholdCrossed
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.session import (
    EXPIRED_MAX,
    VALIDITY_SECONDS,
    ExpireSession,
    ReleaseSession,
    Report,
    ReserveUnits,
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
    UpdateSession,
)
from allotment.domain.slicing import QUOTAS, SHARES
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord

GERMANY, WORLD = "+4930123456", "+12125550100"
VALIDITY = VALIDITY_SECONDS * 1_000_000


@pytest.fixture
def calling(acme, now):
    """Acme, with a line that calls: `calling("reserve", 60)`, `calling("release", total=60)`."""
    return Calling(acme, now)


class Calling:
    def __init__(self, company: Any, now: int) -> None:
        self.company = company
        self.now = now
        self.number = 0

    def reserve(self, quantity: int = 0, session: str = "s", to: str = WORLD, **changes: Any) -> list[Any]:
        return self.do(self.reserving(quantity, session, to, **changes))

    def reserving(self, quantity: int = 0, session: str = "s", to: str = WORLD, **changes: Any) -> Any:
        fields: dict[str, Any] = {"line": "r-1", "usage_type": "voice", "started_at": self.now} | changes
        self.number += 1
        record = UsageRecord(
            source="pbx", record_id=session, quantity=quantity, direction="outbound", counterpart=to, **fields
        )
        return ReserveUnits(record, self.number, fields["line"].encode(), b"sealed")

    def update(
        self, used: int = 0, requested: int | None = 0, session: str = "s", **report: Any
    ) -> list[Any]:
        self.number += 1
        return self.do(
            UpdateSession("pbx", session, self.number, Report(used, **report), requested, b"again")
        )

    def release(self, used: int = 0, session: str = "s", **report: Any) -> list[Any]:
        self.number += 1
        return self.do(ReleaseSession("pbx", session, self.number, Report(used, **report), b"again"))

    def expire(self, session: str = "s") -> list[Any]:
        return self.do(ExpireSession("pbx", session))

    def do(self, command: Any) -> list[Any]:
        return list(self.company.do(command, self.now))

    def refused(self, command: Any) -> str:
        return self.company.refusal(command, self.now)[0]

    def voice(self) -> tuple[int, int, int]:
        """(available, reserved, used) at the root."""
        family = self.company.family()
        return family.available(0), family.reserved[0], family.used[0]


# --- how much is granted ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used_before", "requested", "granted", "final"),
    [
        (0, 1, 1, False),
        (0, 999, 999, False),
        (0, 1000, 1000, True),  # exact fit
        (0, 1001, 1000, True),  # one over: what is left
        (999, 1, 1, True),
        (999, 60, 1, True),
        (1000, 1, 0, None),
        (0, 0, 120, False),  # as much as is usual
        (40, 0, 120, False),  # eight slices are left, just so
        (41, 0, 119, False),
        (520, 0, 60, False),
        (930, 0, 10, False),  # never less than the least, while there is that much
        (990, 0, 10, True),
        (995, 0, 5, True),
        (1000, 0, 0, None),
    ],
)
def test_a_first_slice(calling, used_before, requested, granted, final):
    calling.company.do(SetLimit("acme", "voice", 1000, ()))
    if used_before:
        calling.company.use(used_before, counterpart=WORLD)
    told = calling.reserve(requested)[0]
    if not granted:
        assert isinstance(told, SessionDenied)
        return
    assert (told.granted, told.final, told.held.billed) == (granted, final, granted)
    assert calling.voice() == (1000 - used_before - granted, granted, used_before + granted)


@pytest.mark.parametrize(
    ("node", "counted", "limit", "granted", "stopped_by"),
    [
        ("r-1", "voice", 100, 100, None),
        ("sales", "voice", 100, 100, None),
        ("emea", "voice", 100, 100, None),
        ("acme", "voice", 100, 100, None),
        ("apac", "voice", 0, 300, None),  # beside the path
        ("sales", "voice", 0, 0, 2),
        ("acme", "voice", 0, 0, 0),
        ("acme", "money", 0, 300, None),  # nothing costs money yet
        ("acme", "data", 0, 300, None),
    ],
)
def test_every_limit_on_the_path_bounds_a_slice(calling, node, counted, limit, granted, stopped_by):
    calling.company.do(SetLimit(node, counted, limit))
    told = calling.reserve(300)[0]
    assert getattr(told, "granted", 0) == granted
    if not granted:
        assert (told.reason, told.stopped_by, told.counted, told.limit) == (
            "limit_exceeded",
            stopped_by,
            counted,
            limit,
        )


@pytest.mark.parametrize(
    ("money", "granted"),
    [(0, 1000), (9_999, 1000), (10_000, 1001), (29_999, 1002), (30_000, 1003), (10**9, 1500)],
)
def test_a_limit_on_money_bounds_what_no_allowance_covers(calling, money, granted):
    """A second costs 0.01: beyond 1,000 seconds."""
    calling.company.do(SetLimit("sales", "money", money, ()))
    told = calling.reserve(1500)[0]
    assert (told.granted, told.held.amount) == (granted, (granted - 1000) * 10_000)


@pytest.mark.parametrize(("requested", "granted"), [(999, 999), (1000, 1000), (1001, 1000), (5000, 1000)])
def test_without_overage_the_allowance_is_the_end(acme, told, now, requested, granted):
    history = acme.history
    history = [
        replace(event, overage=False) if isinstance(event, PeriodOpened) else event for event in history
    ]
    calling = Calling(told(*history), now)
    answer = calling.reserve(requested)[0]
    assert (answer.granted, answer.final, answer.held.overage) == (granted, granted == 1000, 0)
    other = calling.reserve(1, "other")[0] if granted == 1000 else None
    if other is not None:
        assert (other.reason, other.stopped_by, other.limit) == ("insufficient_allowance", 0, 0)


def test_what_is_billed_by_the_minute_is_held_by_the_minute(calling):
    calling.company.do(SetLimit("acme", "voice", 150))
    told = calling.reserve(61, to=GERMANY)[0]
    assert (told.granted, told.held.billed, told.final) == (61, 120, False)
    assert calling.update(61, 60)[0].granted == 59
    assert calling.update(59, 60)[0].reason == "limit_exceeded"


def test_what_the_allowance_does_not_cover_costs_money_from_the_start(calling):
    told = calling.reserve(3, usage_type="messaging", to="")[0]
    assert (told.held.drawn, told.held.overage, told.held.amount) == ((), 3, 150_000)
    assert calling.release(total=3)[1].amount == 150_000


@pytest.mark.parametrize("usage_type", list(QUOTAS))
def test_every_usage_type_has_a_usual_slice(calling, usage_type):
    quota = QUOTAS[usage_type]
    assert 0 < quota.least <= quota.usual
    assert quota.least * SHARES >= quota.least


# --- what is held ----------------------------------------------------------------------------


def test_what_is_held_cannot_be_moved_nor_used_by_others(calling):
    calling.reserve(900)
    acme = calling.company
    assert acme.refusal(Allocate("acme", "apac", "voice", "", 101))[1]["available"] == 100
    acme.do(Allocate("acme", "apac", "voice", "", 100))
    other = acme.use(160, line="r-2", counterpart=WORLD)[0]
    assert (other.drawn, other.overage) == (((3, 100),), 60)
    charged = calling.release(total=900)[1]
    assert (charged.drawn, charged.overage) == (((0, 900),), 0)


def test_the_narrowest_bucket_is_held_first_and_each_report_looks_again(calling):
    calling.company.do(Allocate("acme", "sales", "voice", "", 50))
    assert calling.reserve(80)[0].held.drawn == ((2, 50), (0, 30))
    calling.company.do(Allocate("acme", "emea", "voice", "", 500))
    assert calling.update(80, 20)[0].held.drawn == ((2, 50), (1, 50))
    assert calling.company.refusal(Return("sales", "acme", "voice", "", 1))[0] == "insufficient_allowance"
    calling.release(0)
    assert calling.company.refusal(Trade("sales", "apac", "voice", "", 1))[0] == "insufficient_allowance"


def test_reports_without_a_request_keep_only_what_was_used(calling):
    calling.reserve(500)
    told = calling.update(10, None)[0]
    assert (told.granted, told.held.total) == (0, 10)
    assert calling.voice() == (990, 10, 10)


def test_a_limit_lowered_meanwhile_stops_the_next_slice_and_not_this_one(calling):
    calling.reserve(300)
    calling.company.do(SetLimit("emea", "voice", 100))
    told = calling.update(200, 60)[0]
    assert (told.reason, told.stopped_by, told.held.total) == ("limit_exceeded", 1, 200)
    assert calling.release(total=200)[1].quantity == 200


def test_a_limit_on_money_does_not_stop_what_costs_none(calling):
    calling.company.use(1100, counterpart=WORLD, line="r-2")
    calling.company.tell(Granted("acme", "voice", "2026-11", 100))
    calling.reserve(50)
    calling.company.do(SetLimit("acme", "money", 0))
    assert calling.update(50, 50)[0].granted == 50
    assert calling.update(50, 1)[0].counted == "money"


def test_a_denial_leaves_a_running_session_what_it_used(calling):
    calling.company.do(SetLimit("sales", "voice", 100))
    calling.reserve(100)
    told = calling.update(100, 50)[0]
    assert isinstance(told, SessionDenied)
    assert (told.used, told.held.total, told.stopped_by, told.limit) == (100, 100, 2, 100)
    assert calling.release(0)[1].quantity == 100


# --- what is charged -------------------------------------------------------------------------


def test_unused_units_are_given_back_and_the_used_are_charged_once(calling):
    calling.reserve(500)
    released, charged = calling.release(total=61)
    assert (released.used, released.overrun, released.late) == (61, 0, False)
    assert (charged.source, charged.record_id, charged.quantity, charged.drawn) == (
        "pbx",
        "s",
        61,
        ((0, 61),),
    )
    assert calling.voice() == (939, 0, 61)
    assert not calling.company.tenant.sessions.open


def test_a_call_that_nobody_answered_is_not_charged(calling):
    calling.reserve(500)
    assert len(calling.release(0)) == 1
    assert calling.voice() == (1000, 0, 0)


@pytest.mark.parametrize(
    ("limit", "charged", "overrun"),
    [(None, 150, 0), (150, 150, 0), (149, 149, 1), (100, 100, 50), (60, 100, 50)],
)
def test_what_was_used_beyond_the_grant_is_charged_as_far_as_limits_allow(calling, limit, charged, overrun):
    calling.reserve(100)
    if limit is not None:
        calling.company.do(SetLimit("sales", "voice", limit, ()))
    released, usage = calling.release(total=150)
    assert (usage.quantity, released.overrun) == (charged, overrun)


def test_rounding_happens_once_however_often_it_was_reported(calling):
    calling.reserve(10, to=GERMANY)
    for _ in range(5):
        calling.update(10, 10)
    charged = calling.release(11)[1]
    assert (charged.quantity, charged.billed) == (61, 120)


# --- silence ---------------------------------------------------------------------------------


def test_a_silent_session_is_ended_and_what_it_reported_is_charged(calling):
    calling.reserve(100)
    calling.update(40, 100)
    calling.now += VALIDITY - 1
    assert [*calling.company.tenant.due(calling.now)] == []
    assert calling.refused(ExpireSession("pbx", "s")) == "not_expired"
    calling.now += 1
    assert [one.session for one in calling.company.tenant.due(calling.now)] == ["s"]
    expired, charged = calling.expire()
    assert isinstance(expired, SessionExpired)
    assert (charged.quantity, calling.voice()) == (40, (960, 0, 40))


def test_a_report_keeps_a_session_alive(calling):
    calling.reserve(100)
    calling.now += VALIDITY - 1
    calling.update(1)
    calling.now += VALIDITY - 1
    assert calling.refused(ExpireSession("pbx", "s")) == "not_expired"


@pytest.mark.parametrize("end", ["update", "release"])
def test_a_late_report_charges_what_is_new_in_it_as_a_record_of_its_own(calling, end):
    calling.reserve(100)
    calling.update(40, 100)
    calling.now += VALIDITY
    calling.expire()
    released, charged = getattr(calling, end)(25)
    assert (released.late, released.used, released.overrun) == (True, 65, 0)
    assert (charged.record_id, charged.quantity, charged.sealed) == ("s+late", 25, b"again")
    assert calling.voice() == (935, 0, 65)
    assert calling.refused(ReleaseSession("pbx", "s", 99, Report())) == "unknown_session"


def test_a_late_report_with_nothing_new_charges_nothing(calling):
    calling.reserve(100)
    calling.now += VALIDITY
    assert len(calling.expire()) == 1
    assert len(calling.release(0)) == 1


def test_only_so_many_are_remembered_for_a_late_report(calling, monkeypatch):
    monkeypatch.setattr("allotment.domain.authorising.EXPIRED_MAX", 2)
    assert EXPIRED_MAX > 2
    for name in "abc":
        calling.reserve(1, name)
    calling.now += VALIDITY
    for name in "abc":
        calling.expire(name)
    assert [name for _, name in calling.company.tenant.sessions.expired] == ["b", "c"]


# --- thresholds ------------------------------------------------------------------------------


def percents(events):
    return [event.percent for event in events if isinstance(event, ThresholdCrossed)]


def test_a_threshold_fires_when_it_is_held_and_not_again_when_it_is_charged(calling):
    calling.company.do(SetLimit("sales", "voice", 500, (50, 80, 100)))
    assert percents(calling.reserve(250)) == [50]
    assert percents(calling.update(250, 249)) == [80]
    assert percents(calling.update(0, 250)) == [100]
    assert percents(calling.release(total=500)) == []
    assert percents(calling.company.use(1, counterpart=WORLD)) == []


def test_what_came_back_does_not_fire_again(calling):
    calling.company.do(SetLimit("sales", "voice", 100))
    assert percents(calling.reserve(90)) == [80]
    calling.release(0)
    assert percents(calling.reserve(90, "again")) == []
    assert percents(calling.update(90, 60, "again")) == [100]


def test_an_overrun_fires_what_it_reaches(calling):
    calling.company.do(SetLimit("sales", "voice", 100))
    calling.reserve(70)
    assert percents(calling.release(total=85)) == [80]


# --- saying no -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"line": "nobody"}, "unknown_line"),
        ({"started_at": -1}, "line_not_active"),
        ({"started_at": 1_794_744_000_000_000 + 3 * 86_400_000_000}, "in_the_future"),
        ({"started_at": 1_700_000_000_000_000}, "no_contract"),
        ({"usage_type": "video"}, "no_rate"),
        ({"session": "open"}, "session_exists"),
        ({"quantity": -1}, "quantity_out_of_range"),
        ({"quantity": 2**60 + 1}, "quantity_out_of_range"),
    ],
)
def test_what_nobody_can_authorise_is_refused(calling, changes, code):
    calling.reserve(1, "open")
    assert calling.refused(calling.reserving(**changes)) == code


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (UpdateSession("pbx", "other", 9, Report()), "unknown_session"),
        (UpdateSession("elsewhere", "s", 9, Report()), "unknown_session"),
        (ReleaseSession("pbx", "other", 9, Report()), "unknown_session"),
        (ExpireSession("pbx", "other"), "unknown_session"),
        (UpdateSession("pbx", "s", 2, Report()), "report_out_of_order"),
        (ReleaseSession("pbx", "s", 1, Report()), "report_out_of_order"),
        (UpdateSession("pbx", "s", 9, Report(-1)), "usage_taken_back"),
        (ReleaseSession("pbx", "s", 9, Report(total=4)), "usage_taken_back"),
        (UpdateSession("pbx", "s", 9, Report(2**61)), "quantity_out_of_range"),
        (UpdateSession("pbx", "s", 9, Report(), -1), "quantity_out_of_range"),
    ],
)
def test_reports_that_cannot_be_are_refused(calling, command, code):
    calling.reserve(10)
    calling.update(5)
    assert calling.refused(command) == code


def test_so_many_sessions_may_run(calling, monkeypatch):
    monkeypatch.setattr("allotment.domain.authorising.OPEN_MAX", 1)
    calling.reserve(1, "a")
    assert calling.refused(calling.reserving(1, "b")) == "too_many_sessions"


def test_deciding_changes_nothing(calling):
    from allotment.domain.canonical import lines

    calling.reserve(100)
    before = [*lines(calling.company.tenant)]
    for command in (
        calling.reserving(60, "b"),
        UpdateSession("pbx", "s", 9, Report(50)),
        ReleaseSession("pbx", "s", 9, Report(50)),
    ):
        calling.company.ask(command)
    assert [*lines(calling.company.tenant)] == before


# --- asserted in the running system ----------------------------------------------------------


def test_a_session_that_gives_back_what_it_did_not_hold_stops_the_writer(calling):
    (reserved,) = calling.reserve(100)
    wrong = SessionReleased(
        "pbx", "s", 1, 9, reserved.path, "voice", "2026-11", 0, "outbound", 0, 0, False, NO_HOLD
    )
    with pytest.raises(InvariantBroken, match="gives back what it held"):
        calling.company.tenant.apply(wrong)


def test_a_hold_beyond_its_buckets_stops_the_writer(calling):
    (reserved,) = calling.reserve(100)
    held = replace(reserved.held, billed=2000, drawn=((0, 2000),))
    with pytest.raises(InvariantBroken, match="reserved <= remaining"):
        calling.company.tenant.apply(replace(reserved, session="other", held=held))


def test_units_reserved_for_nobody_are_noticed(calling):
    calling.reserve(100)
    calling.company.family().reserved[0] += 1
    with pytest.raises(InvariantBroken, match="the holds of sessions"):
        calling.company.tenant.check_whole()


def test_a_session_needs_an_open_tenant():
    with pytest.raises(Refused, match="tenant_not_open"):
        Tenant().decide(ExpireSession("pbx", "s"), 0)


def test_what_was_told_of_a_session_leads_to_the_same_session(calling):
    calling.reserve(100)
    calling.update(40, 100)
    calling.company.tell(Granted("acme", "voice", "2026-11", 1))
    again = Tenant()
    for event in calling.company.history:
        again.apply(event)
    assert again.sessions.open == calling.company.tenant.sessions.open
    assert isinstance(calling.company.history[-2], SessionUpdated)
    assert isinstance(calling.company.history[-3], SessionReserved)
    assert not any(isinstance(event, UsageCharged) for event in calling.company.history)
