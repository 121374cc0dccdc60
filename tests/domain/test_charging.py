"""From a record to the event that says who paid what, and why.

Voice to "+49" is billed by the minute at 0.06 a minute, to "+" by the second at 0.01 a second,
to extensions free of charge; messages are not included. The allowance is 1000 seconds of voice.
"""

from fractions import Fraction

import msgspec
import pytest

from allotment.domain.bucket import Allocate
from allotment.domain.canonical import lines
from allotment.domain.charging import (
    CORPORATE,
    STEERING_DEFAULT,
    SUSPENSE,
    ChargeUsage,
    SuspendUsage,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
)
from allotment.domain.contract import (
    ContractSigned,
    Grant,
    OpenPeriod,
    PeriodNotOpen,
    PeriodOpened,
    SignContract,
)
from allotment.domain.hierarchy import (
    AddResource,
    EndResource,
    Identity,
    MoveResource,
    NodeAdded,
    ResourceAdded,
)
from allotment.domain.refusals import InvariantBroken
from allotment.domain.session import ReserveUnits
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import TenantOpened
from allotment.domain.usage import UsageRecord

MONTH = "2026-11"
DE, US = "+4930123456", "+12125550100"


def test_a_charge_tells_all_that_explains_it(acme, now):
    record = UsageRecord("pbx-1", "c-7", "+49301", "voice", 61, now, "outbound", DE, (("network", "fixed"),))
    (told,) = acme.tenant.decide(ChargeUsage(record, b"r-1", b"sealed"), now)
    assert told == UsageCharged(
        source="pbx-1",
        record_id="c-7",
        path=(4, 2, 1, 0),
        usage_type="voice",
        period=MONTH,
        started_at=now,
        direction="outbound",
        quantity=61,
        billed=120,
        tariff=1,
        rate=0,
        prefix="+49",
        zone="national",
        payer=CORPORATE,
        steering=STEERING_DEFAULT,
        drawn=((0, 120),),
        overage=0,
        amount=0,
        exact=(0, 1),
        sealed=b"sealed",
    )


def test_no_personal_data_stands_in_the_clear(acme, now):
    record = UsageRecord("pbx-1", "c-7", "+49301", "voice", 61, now, "outbound", "+4930999")
    for told in (
        acme.tenant.decide(ChargeUsage(record, b"r-1", b""), now)[0],
        acme.tenant.decide(ChargeUsage(record, b"nobody", b""), now)[0],
    ):
        assert "30999" not in repr(told)
        assert "49301" not in repr(told)


# --- what is billed and drawn ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("counterpart", "quantity", "billed", "drawn", "overage", "amount"),
    [
        (DE, 0, 0, (), 0, 0),
        (DE, 1, 60, ((0, 60),), 0, 0),
        (DE, 59, 60, ((0, 60),), 0, 0),
        (DE, 60, 60, ((0, 60),), 0, 0),
        (DE, 61, 120, ((0, 120),), 0, 0),
        # The allowance covers part of a call: the parts add up, the rest costs money.
        (US, 999, 999, ((0, 999),), 0, 0),
        (US, 1000, 1000, ((0, 1000),), 0, 0),
        (US, 1001, 1001, ((0, 1000),), 1, 10_000),
        (DE, 960, 960, ((0, 960),), 0, 0),
        (DE, 961, 1020, ((0, 1000),), 20, 20_000),
        (DE, 1020, 1020, ((0, 1000),), 20, 20_000),
        (DE, 1021, 1080, ((0, 1000),), 80, 80_000),
        ("200", 5000, 5000, ((0, 1000),), 4000, 0),
        ("", 5, 5, ((0, 5),), 0, 0),
    ],
)
def test_the_allowance_covers_what_it_can(acme, counterpart, quantity, billed, drawn, overage, amount):
    (told,) = acme.use(quantity, counterpart=counterpart)
    assert (told.billed, told.drawn, told.overage, told.amount) == (billed, drawn, overage, amount)
    assert sum(part for _, part in told.drawn) + told.overage == told.billed
    assert told.amount == round(Fraction(*told.exact) / 100) * 100


@pytest.mark.parametrize(
    ("handed", "quantity", "drawn", "overage"),
    [
        ([], 100, ((0, 100),), 0),
        ([("acme", "r-1", 10)], 10, ((4, 10),), 0),
        ([("acme", "r-1", 10)], 11, ((4, 10), (0, 1)), 0),
        ([("acme", "sales", 5), ("acme", "emea", 5)], 11, ((2, 5), (1, 5), (0, 1)), 0),
        (
            [("acme", "r-1", 1), ("acme", "sales", 2), ("acme", "emea", 3)],
            1001,
            ((4, 1), (2, 2), (1, 3), (0, 994)),
            1,
        ),
        # What a neighbour holds is not shared.
        ([("acme", "apac", 1000)], 1, (), 1),
        ([("acme", "apac", 990)], 11, ((0, 10),), 1),
    ],
)
def test_the_narrowest_scope_pays_first_and_the_order_is_written_down(acme, handed, quantity, drawn, overage):
    for source, target, part in handed:
        acme.do(Allocate(source, target, "voice", MONTH, part))
    (told,) = acme.use(quantity, counterpart=US)
    assert (told.drawn, told.overage) == (drawn, overage)


def test_what_is_reserved_is_not_drawn_by_others(acme, now):
    record = UsageRecord("src", "session", "r-2", "voice", 990, now, "outbound", US)
    acme.do(ReserveUnits(record, 1, b"r-2", b""))
    (told,) = acme.use(11, counterpart=US)
    assert (told.drawn, told.overage) == (((0, 10),), 1)


def test_a_rate_the_allowance_does_not_cover_leaves_it_alone(acme):
    acme.do(SignContract("frame", "2026-01-01", (Grant("messaging", 100),)))
    acme.do(OpenPeriod("2026-12"))
    december = acme.tenant.contracts.periods["2026-12"].starts_at
    (told,) = acme.use(3, "messaging", at=december, now=december)
    assert (told.drawn, told.overage, told.amount) == ((), 3, 150_000)
    assert acme.family("messaging", "2026-12").remaining[0] == 100
    assert acme.family("messaging", "2026-12").used[0] == 3


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [(0, 0), (1, 0), (1000, 0), (1001, 110_000), (1002, 120_000)],
)
def test_the_connect_fee_is_charged_with_the_first_unit_not_covered(acme, now, quantity, amount):
    fee = (Rate("voice", "world", "0.01", prefix="+", connect_fee="0.10"),)
    acme.do(PublishTariff("fees", now, "EUR", fee))
    assert acme.use(quantity, counterpart=US)[0].amount == amount


def test_a_minimum_is_billed_for_any_use_but_not_for_none(acme, now):
    acme.do(PublishTariff("min", now, "EUR", (Rate("voice", "world", "0.01", minimum=30),)))
    assert [acme.use(quantity)[0].billed for quantity in (0, 1, 30, 31)] == [0, 30, 30, 31]


# --- overage forbidden ----------------------------------------------------------------------


@pytest.fixture
def prepaid(told, acme):
    """As Acme, but usage beyond the allowance is rejected."""
    return told(
        *(
            ContractSigned("frame", 1, "2026-01-01", event.grants, overage=False)
            if isinstance(event, ContractSigned)
            else PeriodOpened(event.period, event.starts_at, event.ends_at, "frame", 1, overage=False)
            if isinstance(event, PeriodOpened)
            else event
            for event in acme.history
        )
    )


@pytest.mark.parametrize(
    ("usage_type", "counterpart", "quantity", "topic"),
    [
        ("voice", US, 0, "usage.charged"),
        ("voice", US, 1000, "usage.charged"),
        ("voice", US, 1001, "usage.rejected"),
        ("voice", DE, 960, "usage.charged"),
        # Rounded up to the minute it does not fit any more.
        ("voice", DE, 961, "usage.rejected"),
        # Free of charge is not free of allowance.
        ("voice", "200", 1001, "usage.rejected"),
        # What the allowance never covers costs money, forbidden overage or not.
        ("messaging", US, 5, "usage.charged"),
    ],
)
def test_without_overage_the_allowance_is_the_end(prepaid, usage_type, counterpart, quantity, topic):
    assert prepaid.use(quantity, usage_type, counterpart)[0].topic == topic


def test_a_rejection_is_remembered_with_what_stopped_it(prepaid, now):
    record = UsageRecord("pbx-1", "c-7", "+49301", "voice", 1001, now, "inbound", US)
    (told,) = prepaid.tenant.decide(ChargeUsage(record, b"r-1", b"sealed"), now)
    assert told == UsageRejected(
        source="pbx-1",
        record_id="c-7",
        path=(4, 2, 1, 0),
        usage_type="voice",
        period=MONTH,
        started_at=now,
        direction="inbound",
        quantity=1001,
        billed=1001,
        reason="insufficient_allowance",
        stopped_by=0,
        counted="voice",
        used=0,
        limit=1000,
        sealed=b"sealed",
    )
    prepaid.tell(told)
    assert prepaid.family().remaining[0] == 1000
    assert prepaid.use(1000, counterpart=US)[0].topic == "usage.charged"


# --- suspense -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ({"line": "nobody"}, "unknown_line"),
        ({"line": "", "usage_type": "data"}, "unknown_line"),
        ({"at": -1}, "line_not_active"),
        ({"counterpart": "200", "usage_type": "video"}, "no_rate"),
        ({"usage_type": "fax"}, "unknown_usage_type"),
        ({"direction": "sideways"}, "no_rate"),
        # Several at once: whose it is comes first, then when, then what it costs.
        ({"line": "nobody", "at": 2**60, "usage_type": "fax"}, "unknown_line"),
        ({"at": 2**60, "usage_type": "fax"}, "in_the_future"),
    ],
)
def test_what_cannot_be_charged_waits_with_its_reason(acme, use, reason):
    (told,) = acme.use(60, **use)
    assert (told.topic, told.reason, (told.field, told.detail)) == (
        "usage.suspended",
        reason,
        SUSPENSE[reason],
    )
    assert acme.tenant.charging.counts == {"charged": 0, "rejected": 0, "suspended": 1}


@pytest.mark.parametrize(
    ("moment", "reason"),
    [("2025-12-31 23:59", "no_contract"), ("2026-01-01 00:00", None), ("2026-11-15 12:00", None)],
)
def test_no_contract_no_charge(acme, at, moment, reason):
    (told,) = acme.use(60, at=at(moment))
    assert getattr(told, "reason", None) == reason


def test_a_suspended_record_keeps_what_is_needed_to_recycle_it(acme, now):
    record = UsageRecord("pbx", "7", "x", "voice", 61, now, "inbound", DE, (("network", "fixed"),))
    (told,) = acme.tenant.decide(ChargeUsage(record, b"nobody", b"sealed", "calls.csv:12"), now)
    field, detail = SUSPENSE["unknown_line"]
    assert told == UsageSuspended(
        source="pbx",
        record_id="7",
        reason="unknown_line",
        field=field,
        detail=detail,
        position="calls.csv:12",
        usage_type="voice",
        quantity=61,
        started_at=now,
        direction="inbound",
        attributes=(("network", "fixed"),),
        sealed=b"sealed",
        subject=b"nobody",
        readable=True,
        value=120_000,
    )


def test_an_unreadable_record_waits_as_it_came(acme):
    (told,) = acme.do(
        SuspendUsage("pbx", "7", "malformed", "row", "is no JSON", "c.csv:1", b"raw", b"who", 5)
    )
    assert (told.readable, told.usage_type, told.quantity, told.direction) == (False, "", 0, "")
    assert (told.source, told.record_id, told.sealed, told.started_at) == ("pbx", "7", b"raw", 5)


DAY = 86_400_000_000


@pytest.mark.parametrize(("ahead", "topic"), [(0, "usage.charged"), (1, "usage.suspended")])
def test_a_record_may_be_a_day_ahead_of_our_clock(acme, now, ahead, topic):
    assert acme.use(60, at=now + DAY + ahead)[0].topic == topic


@pytest.mark.parametrize("moment", [0, -1, 31_000_000_000_000, -(10**17)])
def test_a_record_of_no_month_that_can_be_opened_waits_in_suspense(company, moment):
    ancient = ResourceAdded("old", 6, "sales", "sip", -(2**62), (Identity(b"old", b""),))
    (told,) = company(ancient).use(60, line="old", at=moment)
    assert (told.topic, told.reason) == ("usage.suspended", "no_contract")


def test_a_record_of_1970_in_the_tenants_zone_waits_in_suspense(told):
    company = told(
        TenantOpened("Acme", "America/New_York", "USD", ""),
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
        ResourceAdded("r-1", 1, "acme", "sip", 0, (Identity(b"r-1", b""),)),
    )
    assert company.use(60, at=31_536_000_000_000)[0].topic == "usage.suspended"


# --- which time -----------------------------------------------------------------------------


def test_a_late_record_is_charged_to_its_own_period(acme, at):
    (told,) = acme.use(60, at=at("2026-10-31 23:59"))
    assert told.period == "2026-10"
    assert acme.family(period="2026-10").remaining[0] == 940
    assert acme.family().remaining[0] == 1000


def test_the_period_of_a_record_is_opened_before_it_is_charged(acme, at):
    record = UsageRecord("pbx", "7", "x", "voice", 61, at("2026-10-31 23:59"))
    with pytest.raises(PeriodNotOpen) as needed:
        acme.tenant.decide(ChargeUsage(record, b"r-1", b""), at("2026-11-15 12:00"))
    assert needed.value.period == "2026-10"


@pytest.mark.parametrize(
    ("moment", "offset", "period"),
    [
        ("2026-11-01 00:00", -1, "2026-10"),
        ("2026-11-01 00:00", 0, "2026-11"),
        ("2026-10-25 02:30", 0, "2026-10"),
        ("2026-03-29 03:00", -1, "2026-03"),
        ("2026-04-01 00:00", -1, "2026-03"),
    ],
)
def test_the_first_and_the_last_microsecond_of_a_month_are_charged_to_it(acme, at, moment, offset, period):
    assert acme.use(60, at=at(moment) + offset)[0].period == period


def test_usage_is_rated_with_the_tariff_that_was_valid_when_it_happened(acme, at, now):
    acme.do(PublishTariff("new", now, "EUR", (Rate("voice", "flat", "1"),)))
    assert [(told.tariff, told.zone) for told in (acme.use(60, at=now - 1)[0], acme.use(60, at=now)[0])] == [
        (1, "national"),
        (2, "flat"),
    ]


def test_usage_is_charged_along_the_path_that_was_valid_when_it_happened(acme, now):
    acme.do(MoveResource("r-1", "apac", now))
    acme.do(EndResource("r-1", now + 10))
    assert [acme.use(60, at=now + after)[0] for after in (-1, 0, 9, 10)] == acme.history[-4:]
    before, moved, last, ended = acme.history[-4:]
    assert (before.path, moved.path, last.path) == ((4, 2, 1, 0), (4, 3, 0), (4, 3, 0))
    assert ended.reason == "line_not_active"
    assert acme.family().used == [180, 60, 60, 120, 180, 0]


def test_a_number_used_again_by_another_resource_charges_whoever_had_it(acme, now):
    acme.do(EndResource("r-1", now - 100))
    acme.do(AddResource("heir", "apac", "msisdn", now - 50, (Identity(b"r-1", b""),)))
    told = [acme.use(60, at=now - ago)[0] for ago in (101, 100, 51, 50, 0)]
    assert [event.path if event.topic == "usage.charged" else event.reason for event in told] == [
        (4, 2, 1, 0),
        "line_not_active",
        "line_not_active",
        (6, 3, 0),
        (6, 3, 0),
    ]


def test_deciding_changes_nothing(acme, now):
    before = b"".join(lines(acme.tenant))
    record = UsageRecord("pbx", "7", "x", "voice", 5000, now, "outbound", DE)
    first = acme.tenant.decide(ChargeUsage(record, b"r-1", b""), now)
    assert acme.tenant.decide(ChargeUsage(record, b"r-1", b""), now) == first
    assert b"".join(lines(acme.tenant)) == before


def test_a_charge_whose_parts_do_not_add_up_stops_the_writer(acme, now):
    record = UsageRecord("pbx", "7", "x", "voice", 60, now, "outbound", DE)
    (told,) = acme.tenant.decide(ChargeUsage(record, b"r-1", b""), now)
    with pytest.raises(InvariantBroken, match="parts of a charge add up"):
        acme.tenant.apply(msgspec.structs.replace(told, overage=1))


def test_counts_tell_what_became_of_each_record(acme):
    for quantity, line in ((60, "r-1"), (0, "r-2"), (60, "nobody"), (2000, "r-1")):
        acme.use(quantity, line=line, counterpart=US)
    assert acme.tenant.charging.counts == {"charged": 3, "rejected": 0, "suspended": 1}
    assert acme.tenant.charging.amount_total == 1_060 * 10_000
