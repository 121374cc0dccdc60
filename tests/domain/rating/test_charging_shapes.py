"""Shaped rates where they are applied: charging, its fast path, sessions, snapshots."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from allotment.domain.canonical import lines
from allotment.domain.charging import CORPORATE, ChargeUsage, UsageCharged, rated_again
from allotment.domain.contract import first_form
from allotment.domain.events import decode, encode
from allotment.domain.rating.basis import Basis
from allotment.domain.rating.language import Band, Span, Window, Zone
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.usage import UsageRecord
from allotment.domain.worked import working_of

ZONES = (Zone("eu", ("+33", "+39"), ("208",)), Zone("home", ("+49",)))
WINDOWS = (Window("peak", (Span(("mon", "tue", "wed", "thu", "fri"), 480, 1_080),)),)
RATES = (
    Rate("voice", "home", "0.06", 60, increment=60, bands=(Band(120, "0.03", 60),)),
    Rate("voice", "eu", "0.12", 60, window="peak", split=True),
    Rate("voice", "eu", "0.06", 60, split=True),
    Rate("video", "eu", "0.01"),
    Rate("video", "any", "0.02", prefix="+"),
    Rate("data", "any", "0.01", 1_000),
    Rate("data", "roaming", "0.05", 1_000, origin="eu", included=False),
    Rate("messaging", "gift", "0", percent="10", included=False),
)
SHAPED = PublishTariff("shaped", 0, "EUR", RATES, zones=ZONES, windows=WINDOWS)


@pytest.fixture
def shaped(acme):
    acme.do(SHAPED)
    return acme


def record(usage_type, quantity, at, counterpart="", ident="r", **attributes):
    return UsageRecord(
        "src", ident, "+4930999", usage_type, quantity, at, "outbound", counterpart, tuple(attributes.items())
    )


def charge(company, used):
    (told, *_) = company.do(ChargeUsage(used, b"r-1", b""))
    return told


def test_a_charge_keeps_what_it_was_rated_on_and_can_be_rated_again(shaped, now):
    told = charge(shaped, record("data", 2_000, now, network="208-01"))
    assert (told.zone, told.amount, told.basis) == ("roaming", 100_000, Basis("eu"))
    assert decode(told.topic, encode(told, "a", bytes(8))).event == told
    rate = shaped.tenant.tariffs.versions[told.tariff - 1].rate_of(told.rate, told.prefix, told.basis)
    assert rated_again(rate, told).exact == told.exact
    assert sum((one.exact for one in working_of(rate, told)), Fraction()) == Fraction(*told.exact)


def test_what_waits_is_worth_what_it_would_cost_at_its_time_and_place(shaped, now):
    at_peak, at_night = now + 86_400_000_000, now
    for at, worth in ((at_peak, 120_000), (at_night, 60_000)):
        used = record("voice", 60, at, "+33123")
        (told,) = shaped.tenant.decide(ChargeUsage(used, b"nobody", b""), at_peak)
        assert (told.reason, told.value) == ("unknown_line", worth)


def test_the_allowance_takes_the_first_minutes_and_the_rest_costs_the_later_band(shaped, now):
    # 1000 seconds are granted: of 1200 the last 200 cost 0.03 a minute.
    told = charge(shaped, record("voice", 1_200, now, "+4930"))
    assert (told.billed, told.overage, told.amount) == (1_200, 200, 100_000)


def test_what_does_not_state_what_its_rate_asks_for_waits_in_suspense(shaped, now):
    told = charge(shaped, record("messaging", 1, now))
    assert (told.reason, told.field, told.value) == ("no_value", "attributes", None)
    paid = charge(shaped, record("messaging", 1, now, ident="s", value="12.50"))
    assert (paid.amount, paid.basis.value) == (1_250_000, "12.50")


@pytest.mark.parametrize(
    ("usage_type", "counterpart", "is_plain"),
    [
        *(("voice", "+4930", False), ("voice", "+33", False), ("data", "", False)),
        *(("video", "+33", True), ("video", "+1", True)),
    ],
)  # fmt: skip
def test_the_fast_path_takes_what_is_plain_and_leaves_the_rest_untouched(
    shaped, now, usage_type, counterpart, is_plain
):
    used = record(usage_type, 61, now, counterpart)
    (decided, *_) = shaped.tenant.decide(ChargeUsage(used, b"r-1", b""), now)
    counts = dict(shaped.tenant.charging.counts)
    told = shaped.tenant.plain.charge(used, b"r-1", b"", now)
    assert told == (decided if is_plain else None)
    assert (shaped.tenant.charging.counts == counts) is not is_plain
    shaped.tenant.check_whole()


def session(company, quantity, parts, at, counterpart):
    """What one session is charged that reports its usage in parts."""
    used = record("voice", 0, at, counterpart, ident=f"s-{len(company.history)}")
    company.do(ReserveUnits(used, 1, b"r-1", b""))
    for number, part in enumerate(parts, 2):
        company.do(UpdateSession("src", used.record_id, number, Report(part)))
    rest = quantity - sum(parts)
    told = company.do(ReleaseSession("src", used.record_id, len(parts) + 2, Report(rest)))
    return next(event for event in told if isinstance(event, UsageCharged))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_session_costs_what_it_costs_as_one_record_however_it_reports(company, now, data):
    whole, parted = company(), company()
    whole.do(SHAPED)
    parted.do(SHAPED)
    counterpart, quantity = data.draw(st.sampled_from(["+4930", "+331"])), data.draw(st.integers(1, 3_000))
    at = now + data.draw(st.integers(-10 * 86_400, 0)) * 1_000_000
    parts, left = [], quantity
    for _ in range(data.draw(st.integers(0, 4))):
        parts.append(data.draw(st.integers(0, left)))
        left -= parts[-1]
    one = charge(whole, record("voice", quantity, at, counterpart))
    other = session(parted, quantity, parts, at, counterpart)
    assert (one.billed, one.overage, one.amount, one.exact, one.basis) == (
        *(other.billed, other.overage, other.amount, other.exact, other.basis),
    )
    assert (one.prefix, one.zone, other.payer) == (other.prefix, other.zone, CORPORATE)


def test_a_command_that_says_nothing_new_has_the_digest_it_had():
    plain = PublishTariff("t", 5, "EUR", (Rate("voice", "z", "1"), Rate("data", "z", "1", per=9)))
    first = ["t", 5, "EUR", [["voice", "z", "1", 1, "", "", 1, 0, "0", True],
             ["data", "z", "1", 9, "", "", 1, 0, "0", True]], "half_up", 4]  # fmt: skip
    assert msgpack.decode(msgpack.encode(first_form(plain))) == first
    assert first_form(SHAPED) != first_form(PublishTariff("shaped", 0, "EUR", RATES))


def test_shapes_and_the_basis_of_a_session_survive_a_snapshot(shaped, now):
    shaped.do(ReserveUnits(record("voice", 0, now, "+33123"), 1, b"r-1", b""))
    kept = encode_counters(copy_counters(shaped.tenant)), encode_structure(shaped.tenant)
    restored = restore(*kept)
    assert list(lines(restored)) == list(lines(shaped.tenant))
    ended = ReleaseSession("src", "r", 2, Report(1_100))
    assert restored.decide(ended, now) == shaped.tenant.decide(ended, now)
