"""What a unit costs: which rate is found, what is billed, and how a charge is rounded, once."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain import tariff as tariffs
from allotment.domain.events import encode
from allotment.domain.rating import checking, finding
from allotment.domain.rating.language import DECIMALS_MAX
from allotment.domain.refusals import Refused
from allotment.domain.tariff import (
    NOTHING,
    CompiledRate,
    PublishTariff,
    Rate,
    Rated,
    Tariff,
    TariffPublished,
    Tariffs,
    round_to,
    round_up_to,
)

ANY = Rate("voice", "any", "1")


def published(*rates, method="half_up", decimals=4, version=1, valid_from=0):
    return TariffPublished("standard", version, valid_from, "EUR", method, decimals, rates)


def compiled(rate, method="half_up", decimals=4) -> CompiledRate:
    return Tariff(published(rate, method=method, decimals=decimals)).rates[0]


# --- which rate -----------------------------------------------------------------------------

ZONES = Tariff(
    published(
        Rate("voice", "internal", "0"),
        Rate("voice", "emergency", "0", prefix="112"),
        Rate("voice", "world", "1", prefix="+"),
        Rate("voice", "uk", "1", prefix="+44"),
        Rate("voice", "uk mobile", "1", prefix="+447"),
        Rate("voice", "uk called", "0", prefix="+44", direction="inbound"),
        Rate("voice", "one number", "1", prefix="+442071838750"),
        Rate("messaging", "out", "1", direction="outbound"),
        Rate("messaging", "in", "0", direction="inbound"),
        Rate("video", "public", "1", prefix="+"),
        Rate("video", "france only", "1", prefix="+33"),
    )
)


@pytest.mark.parametrize(
    ("usage_type", "direction", "counterpart", "zone"),
    [
        ("voice", "outbound", "+442071838751", "uk"),
        ("voice", "outbound", "+442071838750", "one number"),
        ("voice", "outbound", "+4420718387509", "one number"),
        ("voice", "outbound", "+447700900123", "uk mobile"),
        ("voice", "outbound", "+44", "uk"),
        ("voice", "outbound", "+4", "world"),
        ("voice", "outbound", "+", "world"),
        ("voice", "outbound", "+20212345678", "world"),
        # An extension is no public number: "200" is not Egypt, "44" is not the United Kingdom.
        ("voice", "outbound", "200", "internal"),
        ("voice", "outbound", "447700900123", "internal"),
        ("voice", "outbound", "112", "emergency"),
        ("voice", "outbound", "1123", "emergency"),
        ("voice", "outbound", "11", "internal"),
        ("voice", "outbound", "alice", "internal"),
        ("voice", "outbound", "", "internal"),
        ("messaging", "outbound", "+1", "out"),
        ("messaging", "inbound", "", "in"),
        ("video", "outbound", "+44", "public"),
        ("video", "outbound", "+331", "france only"),
        ("video", "inbound", "200", None),
        ("video", "inbound", "", None),
        ("data", "outbound", "", None),
        ("voice", "sideways", "+44", None),
    ],
)
def test_the_longest_prefix_wins(usage_type, direction, counterpart, zone):
    for _ in ("searched", "remembered"):
        found = ZONES.find(usage_type, direction, counterpart)
        assert (found.zone if found else None) == zone


def test_a_direction_of_its_own_is_told_apart():
    assert (
        Tariff(published(Rate("voice", "in", "1", direction="inbound"))).find("voice", "outbound", "") is None
    )


def test_a_rate_for_one_direction_goes_before_one_for_both_or_they_are_refused():
    both = Rate("voice", "both", "1", prefix="+44")
    inbound = Rate("voice", "inbound", "0", prefix="+44", direction="inbound")
    try:
        tariffs.check_tariff(PublishTariff("t", 0, "EUR", (both, inbound)))
    except Refused:
        return
    assert Tariff(published(both, inbound)).find("voice", "inbound", "+44").zone == "inbound"


@given(st.text("+0123", max_size=8), st.lists(st.text("+0123", max_size=4), unique=True, max_size=12))
def test_finding_agrees_with_trying_every_rate(counterpart, prefixes):
    tariff = Tariff(published(*(Rate("voice", f"z{prefix}", "1", prefix=prefix) for prefix in prefixes)))
    fitting = [prefix for prefix in prefixes if counterpart.startswith(prefix)]
    found = tariff.find("voice", "outbound", counterpart)
    assert (found.prefix if found else None) == (max(fitting, key=len) if fitting else None)


def test_what_is_remembered_of_look_ups_is_bounded(monkeypatch):
    monkeypatch.setattr(finding, "LOOKUPS_REMEMBERED_MAX", 3)
    tariff = Tariff(published(Rate("voice", "long", "1", prefix="+1234"), Rate("voice", "any", "1")))
    for counterpart in ("+1", "+2", "+3", "+4", "+1234", "+1"):
        zone = "long" if counterpart == "+1234" else "any"
        assert tariff.find("voice", "outbound", counterpart).zone == zone
        assert len(tariff.decks["voice", "outbound"]._remembered) <= 3


# --- what is billed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("increment", "minimum", "quantity", "billed"),
    [
        (1, 0, 0, 0),
        (1, 0, 1, 1),
        (60, 0, 0, 0),
        (60, 0, 1, 60),
        (60, 0, 59, 60),
        (60, 0, 60, 60),
        (60, 0, 61, 120),
        (60, 0, -1, 0),
        # The minimum counts for anything that is used at all, and is rounded to the increment too.
        (1, 30, 0, 0),
        (1, 30, 1, 30),
        (1, 30, 29, 30),
        (1, 30, 30, 30),
        (1, 30, 31, 31),
        (6, 30, 31, 36),
        (60, 30, 1, 60),
        (60, 61, 1, 120),
        (1_048_576, 0, 1_048_577, 2_097_152),
        (1, 0, 2**53, 2**53),
    ],
)
def test_billed_is_rounded_up_to_the_increment(increment, minimum, quantity, billed):
    rate = Rate("voice", "any", "1", increment=increment, minimum=minimum)
    assert compiled(rate).billed(quantity) == billed


@given(st.integers(1, 10**7), st.integers(0, 2**53))
def test_rounding_up_gives_the_next_multiple(increment, quantity):
    rounded = round_up_to(increment, quantity)
    assert rounded % increment == 0
    assert quantity <= rounded < quantity + increment


# --- what it costs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "exact", "rounded"),
    [
        # Rounded to whole steps of 10 000 micro-units, a cent.
        ("half_up", (0, 1), 0),
        ("half_up", (4_999, 1), 0),
        ("half_up", (5_000, 1), 10_000),
        ("half_up", (14_999_999, 1000), 10_000),
        ("half_up", (15_000, 1), 20_000),
        ("half_even", (5_000, 1), 0),
        ("half_even", (5_001, 1), 10_000),
        ("half_even", (15_000, 1), 20_000),
        ("half_even", (25_000, 1), 20_000),
        ("half_even", (25_000_001, 1000), 30_000),
        ("up", (0, 1), 0),
        ("up", (1, 10**9), 10_000),
        ("up", (10_000, 1), 10_000),
        ("up", (10_001, 1), 20_000),
        ("down", (9_999, 1), 0),
        ("down", (10_000, 1), 10_000),
        ("down", (19_999_999, 1000), 10_000),
    ],
)
def test_a_charge_is_rounded_by_the_method_its_tariff_names(method, exact, rounded):
    assert round_to(10_000, method, *exact) == rounded


@pytest.mark.parametrize(
    ("rate", "overage", "rated"),
    [
        (Rate("voice", "z", "1"), 0, NOTHING),
        (Rate("voice", "z", "1"), -1, NOTHING),
        (Rate("voice", "z", "1"), 1, Rated(1, 1_000_000, (1_000_000, 1))),
        (Rate("voice", "z", "0"), 1, Rated(1, 0, (0, 1))),
        (Rate("voice", "z", "0.06", per=60), 60, Rated(60, 60_000, (60_000, 1))),
        (Rate("voice", "z", "0.05", per=60), 1, Rated(1, 800, (2500, 3))),
        # A price may have more decimals than money has: it is exact until the end.
        (Rate("voice", "z", "0.000000049"), 1000, Rated(1000, 0, (49, 1))),
        (Rate("voice", "z", "0.00000005"), 1000, Rated(1000, 100, (50, 1))),
        (Rate("data", "z", "0.0123456789", per=1024), 7, Rated(7, 100, (864197523, 10_240_000))),
        # The fee is charged once, with the first unit that costs something.
        (Rate("voice", "z", "0.01", connect_fee="0.10"), 0, NOTHING),
        (Rate("voice", "z", "0.01", connect_fee="0.10"), 1, Rated(1, 110_000, (110_000, 1))),
        (Rate("voice", "z", "0", connect_fee="0.10"), 5, Rated(5, 100_000, (100_000, 1))),
        (Rate("voice", "z", "0.01", per=3, connect_fee="0.1"), 1, Rated(1, 103_300, (310_000, 3))),
    ],
)
def test_what_so_many_units_cost(rate, overage, rated):
    got = compiled(rate).rate(overage)
    assert (got.overage, got.amount) == (rated.overage, rated.amount)
    assert Fraction(*got.exact) == Fraction(*rated.exact)


@pytest.mark.parametrize(
    ("decimals", "amount"), [(0, 1_000_000), (1, 1_200_000), (2, 1_230_000), (4, 1_234_600), (6, 1_234_568)]
)
def test_money_has_as_many_decimals_as_the_tariff_says(decimals, amount):
    assert compiled(Rate("voice", "z", "1.2345678"), decimals=decimals).rate(1).amount == amount


def naive(rate: Rate, method: str, decimals: int, overage: int) -> int:
    """The charge by the book: one exact fraction, one rounding, nothing clever."""
    exact = Fraction(rate.price) * overage / rate.per + Fraction(rate.connect_fee)
    steps = exact * 10**decimals
    down = steps.numerator // steps.denominator
    rest = steps - down
    up = {
        "up": rest > 0,
        "down": False,
        "half_up": rest >= Fraction(1, 2),
        "half_even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1),
    }[method]
    return (down + up) * 10 ** (6 - decimals) if overage else 0


PRICES = st.builds(
    lambda whole, part: f"{whole}.{part}" if part else str(whole),
    st.integers(0, 999),
    st.text("0123456789", max_size=8),
)


@given(
    PRICES,
    PRICES,
    st.sampled_from([1, 3, 7, 60, 1000, 1024, 1_048_576]),
    st.sampled_from(["half_up", "half_even", "up", "down"]),
    st.integers(0, DECIMALS_MAX),
    st.integers(0, 10**9),
)
def test_rating_agrees_with_exact_fractions(price, fee, per, method, decimals, overage):
    rate = Rate("voice", "z", price, per=per, connect_fee=fee)
    rated = compiled(rate, method, decimals).rate(overage)
    assert rated.amount == naive(rate, method, decimals, overage)
    assert rated.overage == overage


@given(PRICES, st.sampled_from([1, 7, 60]), st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_rating_a_call_in_parts_equals_rating_it_whole(price, per, parts):
    rate = compiled(Rate("voice", "z", price, per=per))
    exact = sum((Fraction(*rate.rate(part).exact) for part in parts), Fraction(0))
    assert exact == Fraction(*rate.rate(sum(parts)).exact)


# --- publishing -----------------------------------------------------------------------------


def of(*rates, **fields):
    return PublishTariff(**{"tariff": "t", "valid_from": 0, "currency": "EUR", "rates": rates} | fields)


@pytest.mark.parametrize(
    ("command", "code", "field"),
    [
        (of(ANY, tariff=""), "bad_text", "tariff"),
        (of(ANY, decimals=-1), "bad_tariff", "decimals"),
        (of(ANY, decimals=7), "bad_tariff", "decimals"),
        (of(), "bad_tariff", "rates"),
        (of(Rate("voice", "", "1")), "bad_text", "rates[0].zone"),
        (of(Rate("voice", "z", "1", prefix="+44\n")), "bad_text", "rates[0].prefix"),
        (of(ANY, Rate("fax", "z", "1")), "bad_tariff", "rates[1].usage_type"),
        (of(Rate("money", "z", "1")), "bad_tariff", "rates[0].usage_type"),
        (of(Rate("voice", "z", "")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "0,05")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "-0.01")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "NaN")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "sNaN")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "Infinity")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "1000000000")), "bad_tariff", "rates[0].price"),
        (of(Rate("voice", "z", "1", connect_fee="-1")), "bad_tariff", "rates[0].connect_fee"),
        (of(Rate("voice", "z", "1", per=0)), "bad_tariff", "rates[0].per"),
        (of(Rate("voice", "z", "1", increment=0)), "bad_tariff", "rates[0].increment"),
        (of(Rate("voice", "z", "1", minimum=-1)), "bad_tariff", "rates[0].minimum"),
        (of(Rate("voice", "z", "1", direction="up")), "bad_tariff", "rates[0].direction"),
        (of(ANY, Rate("voice", "again", "2")), "bad_tariff", "rates[1].prefix"),
        (of(ANY, currency="USD"), "wrong_currency", None),
        # Several at once: the first in the order of checks.
        (of(Rate("fax", "z", "x", per=0), currency="USD"), "bad_tariff", "rates[0].usage_type"),
        (of(Rate("voice", "z", "x", per=0), currency="USD"), "bad_tariff", "rates[0].price"),
        (of(Rate("fax", "", "x"), tariff="", decimals=9), "bad_text", "tariff"),
        (of(Rate("fax", "", "x"), decimals=9), "bad_tariff", "decimals"),
        (of(Rate("fax", "", "x")), "bad_text", "rates[0].zone"),
    ],
)
def test_what_cannot_be_rated_with_is_refused_naming_rate_and_field(acme, command, code, field):
    told, facts = acme.refusal(command)
    assert (told, facts.get("field")) == (code, field)


@pytest.mark.parametrize("price", ["0", "0.0", "999999999.999999", "0.00000001"])
def test_prices_that_are_taken(acme, price):
    assert isinstance(acme.ask(of(Rate("voice", "z", price))), list)


@pytest.mark.parametrize("price", ["1_0", " 1 ", "1e3", "١", "-0", "+1", "1E-400"])
def test_a_price_is_digits_with_a_point(acme, price):
    assert acme.ask(of(Rate("voice", "z", price))) == "bad_tariff"


@pytest.mark.parametrize("price", ["0.01234567890123456789012345", "0." + "0" * 30 + "1"])
def test_a_price_with_too_many_decimals_is_refused_or_its_charges_can_be_stored(acme, now, price):
    decided = acme.ask(of(Rate("data", "z", price, included=False), valid_from=now - 1))
    if isinstance(decided, list):
        acme.tell(*decided)
        (charged,) = acme.use(1, "data", "")
        encode(charged, "test", bytes(8))


def test_a_charge_beyond_all_reason_can_be_stored_or_waits_in_suspense(acme, now):
    acme.do(of(Rate("data", "z", "999999999", included=False), valid_from=now - 1))
    (told, *_) = acme.use(2**45, "data", "")
    encode(told, "test", bytes(8))


@pytest.mark.parametrize("field", ["per", "increment", "minimum"])
def test_numbers_of_a_rate_that_cannot_be_stored_are_refused(acme, field):
    decided = acme.ask(of(Rate("voice", "z", "1", **{field: 2**64})))
    assert decided == "bad_tariff" or encode(decided[0], "test", bytes(8))


def test_there_may_be_so_many_rates_and_no_more(acme, monkeypatch):
    monkeypatch.setattr(checking, "RATES_MAX", 2)
    rates = [Rate("voice", "z", "1", prefix=str(digit)) for digit in range(3)]
    facts = {"field": "rates", "value": "3", "remedy": "give 1 to 2 rates"}
    assert acme.refusal(of(*rates)) == ("bad_tariff", facts)
    assert isinstance(acme.ask(of(*rates[:2])), list)


# --- versions -------------------------------------------------------------------------------

VERSIONS = [(1, 100), (2, 300), (3, 200), (4, 300)]


@pytest.mark.parametrize(
    ("moment", "version"),
    [(99, None), (100, 1), (199, 1), (200, 3), (299, 3), (300, 4), (10**15, 4)],
)
def test_usage_is_rated_with_the_version_that_was_valid_then(moment, version):
    known = Tariffs()
    for number, valid_from in VERSIONS:
        known.apply(published(ANY, version=number, valid_from=valid_from))
    found = known.at(moment)
    assert (found.published.version if found else None) == version


def test_versions_are_only_ever_added(acme):
    first = acme.do(of(ANY, valid_from=5))[0]
    second = acme.do(of(ANY, valid_from=5))[0]
    assert (first.version, second.version) == (2, 3)
    assert [tariff.published.version for tariff in acme.tenant.tariffs.versions] == [1, 2, 3]
    assert acme.tenant.tariffs.at(5).published.version == 3
