"""Which rate is a usage's: zones, origins, networks; and what no tariff may say."""

import json
from pathlib import Path

import pytest

from allotment.domain.rating.basis import NO_BASIS
from allotment.domain.rating.language import Band, Span, Window, Zone
from allotment.domain.refusals import Refused
from allotment.domain.tariff import CompiledRate, PublishTariff, Rate, Tariff, check_tariff, published_as

EU = Zone("eu", ("+33", "+39", "+49"), ("208", "222-01", "26201"))
UK = Zone("uk", ("+44", "+4420"), ("234-15", "234-150"))
ISLES = Zone("isles", ("+441481", "+441534"))


def tariff(*rates, zones=(EU, UK, ISLES), **more):
    command = PublishTariff("t", 0, "EUR", rates, zones=zones, **more)
    check_tariff(command)
    return Tariff(published_as(command, 1, "UTC"))


PAIRS = tariff(
    Rate("voice", "eu", "1"),
    Rate("voice", "uk", "1"),
    Rate("voice", "isles", "1"),
    Rate("voice", "one number", "1", prefix="+442071838750"),
    Rate("voice", "world", "1", prefix="+"),
    Rate("voice", "eu", "1", origin="eu"),
    Rate("voice", "home", "1", prefix="+44", origin="eu"),
    Rate("voice", "called", "1", direction="inbound", origin="eu"),
    Rate("data", "any", "1"),
    Rate("data", "roaming", "1", origin="eu"),
    Rate("data", "at home", "1", origin="uk"),
    Rate("messaging", "eu", "1"),
    Rate("messaging", "any", "1", prefix="+"),
)


@pytest.mark.parametrize(
    ("usage_type", "direction", "counterpart", "line", "network", "found"),
    [
        # From nowhere in particular: the longest prefix, of a zone or of its own.
        ("voice", "outbound", "+33123", "100", "", ("eu", "+33", "")),
        ("voice", "outbound", "+441", "100", "", ("uk", "+44", "")),
        ("voice", "outbound", "+4420", "100", "", ("uk", "+4420", "")),
        ("voice", "outbound", "+441481", "100", "", ("isles", "+441481", "")),
        ("voice", "outbound", "+44148", "100", "", ("uk", "+44", "")),
        ("voice", "outbound", "+442071838750", "100", "", ("one number", "+442071838750", "")),
        ("voice", "outbound", "+1", "100", "", ("world", "+", "")),
        ("voice", "outbound", "33123", "100", "", None),
        # Pairs: rates for the origin go before those for any, and these are what is left.
        ("voice", "outbound", "+33123", "+391", "", ("eu", "+33", "eu")),
        ("voice", "outbound", "+4420", "+391", "", ("home", "+44", "eu")),
        ("voice", "outbound", "+1", "+391", "", ("world", "+", "eu")),
        ("voice", "inbound", "+1", "+391", "", ("called", "", "eu")),
        ("voice", "inbound", "+1", "+441", "", ("world", "+", "")),
        # The network that served it goes before the line's own number.
        ("voice", "outbound", "+4420", "+441", "20801", ("home", "+44", "eu")),
        ("voice", "outbound", "+4420", "+441", "208-99", ("home", "+44", "eu")),
        ("voice", "outbound", "+4420", "+441", "222-01", ("home", "+44", "eu")),
        ("voice", "outbound", "+4420", "+441", "222-10", ("uk", "+4420", "")),
        ("voice", "outbound", "+4420", "+441", "2620", ("uk", "+4420", "")),
        ("voice", "outbound", "+4420", "+441", "26201", ("home", "+44", "eu")),
        ("voice", "outbound", "+4420", "+441", "262-011", ("uk", "+4420", "")),
        ("voice", "outbound", "+4420", "+441", "abroad", ("uk", "+4420", "")),
        # Data knows no other party.
        ("data", "outbound", "", "+441", "20801", ("roaming", "", "eu")),
        ("data", "outbound", "", "+441", "23415", ("at home", "", "uk")),
        ("data", "outbound", "", "+441", "234150", ("at home", "", "uk")),
        ("data", "outbound", "", "+441", "23433", ("at home", "", "uk")),
        ("data", "outbound", "", "+1", "23433", ("any", "", "")),
        ("data", "outbound", "", "", "", ("any", "", "")),
        # No rate of this type asks where it comes from.
        ("messaging", "outbound", "+33", "+391", "20801", ("eu", "+33", None)),
        ("messaging", "outbound", "+1", "+391", "20801", ("any", "+", None)),
    ],
)
def test_zones_pairs_and_networks(usage_type, direction, counterpart, line, network, found):
    attributes = (("network", network),) if network else ()
    rate = PAIRS.find(usage_type, direction, counterpart, 0, line, attributes)
    told = rate and (rate.zone, rate.prefix, rate.basis.origin if rate.basis else None)
    assert told == found
    if rate is not None:
        assert PAIRS.has_prefix(rate.index, rate.prefix)
        again = PAIRS.rate_of(rate.index, rate.prefix, rate.basis)
        assert (again.zone, again.prefix, again.basis) == (rate.zone, rate.prefix, rate.basis)


def test_a_zone_alone_leaves_a_rate_plain():
    found = PAIRS.find("messaging", "outbound", "+33")
    assert type(found) is CompiledRate
    assert found.basis is None


def test_the_other_name_of_the_network_is_understood():
    assert PAIRS.find("data", "outbound", "", 0, "", (("mcc_mnc", "208-01"),)).zone == "roaming"


def test_every_network_of_the_world_is_in_the_zone_of_its_country():
    path = Path(__file__).parents[4] / "shared" / "data" / "reference" / "mcc-mnc-list.json"
    if not path.is_file():
        pytest.skip("the reference list is not beside this checkout")
    listed = [one for one in json.loads(path.read_text()) if one["mcc"] and (one["mnc"] or "").isdigit()]
    countries = {one["mcc"] for one in listed if len(one["mcc"]) == 3}
    zones = [Zone(f"zone {code}", (), (code,)) for code in sorted(countries)]
    rates = [Rate("data", zone.name, "1", origin=zone.name) for zone in zones]
    world = tariff(*rates, zones=zones)
    for one in listed:
        for text in (one["mcc"] + one["mnc"], f"{one['mcc']}-{one['mnc']}"):
            if len(one["mnc"]) in (2, 3):
                assert world.find("data", "outbound", "", 0, "", (("network", text),)).zone[5:] == one["mcc"]


DAY = Window("day", (Span((), 480, 1_080),))
ANY = Rate("voice", "z", "1")


@pytest.mark.parametrize(
    ("field", "rates", "more"),
    [
        ("rates[0].bands[0].from", [Rate("voice", "z", "1", bands=(Band(0, "1"),))], {}),
        ("rates[0].bands[1].from", [Rate("voice", "z", "1", bands=(Band(9, "1"), Band(9, "1")))], {}),
        ("rates[0].bands[0].price", [Rate("voice", "z", "1", bands=(Band(9, "1,5"),))], {}),
        ("rates[0].bands[0].per", [Rate("voice", "z", "1", bands=(Band(9, "1", 0),))], {}),
        ("rates[0].bands[0].increment", [Rate("voice", "z", "1", bands=(Band(9, "1", 1, 0),))], {}),
        ("rates[0].bands[0].minimum", [Rate("voice", "z", "1", bands=(Band(9, "1", 1, 1, -1),))], {}),
        # By the minute, the increment that begins at 0 ends where the second band holds already.
        (
            "rates[0].bands[0].from",
            [Rate("voice", "z", "1", increment=60, bands=(Band(30, "1"), Band(60, "1")))],
            {},
        ),
        ("rates[0].bands", [Rate("voice", "z", "1", bands=tuple(Band(n, "1") for n in range(1, 23)))], {}),
        ("rates[0].origin", [Rate("voice", "z", "1", origin="mars")], {}),
        ("rates[0].window", [Rate("voice", "z", "1", window="day")], {}),
        # In a window, and at no other time.
        ("rates[0].window", [Rate("voice", "z", "1", window="day")], {"windows": (DAY,)}),
        ("rates[0].split", [Rate("data", "z", "1", split=True)], {}),
        ("rates[1].split", [ANY, Rate("voice", "z", "1", window="day", split=True)], {"windows": (DAY,)}),
        (
            "rates[1].increment",
            [
                Rate("voice", "z", "1", split=True),
                Rate("voice", "z", "1", window="day", split=True, increment=60),
            ],
            {"windows": (DAY,)},
        ),
        ("rates[1].prefix", [ANY, Rate("voice", "z", "2")], {}),
        ("rates[1].prefix", [Rate("voice", "eu", "1"), Rate("voice", "x", "1", prefix="+33")], {}),
        ("rates[1].origin", [Rate("voice", "z", "1", origin="eu"), Rate("voice", "z", "1", origin="too")],
         {"zones": (EU, Zone("too", ("+33",)))}),
        ("rates[0].minimum_charge", [Rate("voice", "z", "1", minimum_charge="-1")], {}),
        ("rates[0].maximum_charge", [Rate("voice", "z", "1", maximum_charge="x")], {}),
        ("rates[0].maximum_charge", [Rate("voice", "z", "1", minimum_charge="2", maximum_charge="1")], {}),
        ("rates[0].ends", [Rate("voice", "z", "1", ends=True)], {}),
        ("rates[0].percent", [Rate("voice", "z", "1", percent="2,5")], {}),
        ("rates[0].times", [Rate("voice", "z", "1", times="people")], {}),
        # The exact cost would have a denominator that nothing can hold.
        ("rates[0].per", [Rate("voice", "z", "0.000000000001", 999_999_999_989, bands=(Band(1, "1", 11),))],
         {}),
        ("zones[1].name", [ANY], {"zones": (EU, EU)}),
        ("zones[0]", [ANY], {"zones": (Zone("empty"),)}),
        ("zones[0].prefixes[1]", [ANY], {"zones": (Zone("twice", ("+1", "+1")),)}),
        ("zones[0].networks[0]", [ANY], {"zones": (Zone("far", (), ("12",)),)}),
        ("windows[0].spans", [ANY], {"windows": (Window("never", ()),)}),
        ("windows[0].spans[0].to", [ANY], {"windows": (Window("never", (Span((), 480, 480),)),)}),
        ("windows[0].spans[0].from", [ANY], {"windows": (Window("w", (Span((), -1, 480),)),)}),
        ("windows[0].spans[0].days", [ANY], {"windows": (Window("w", (Span(("someday",)),)),)}),
        ("windows[1].name", [ANY], {"windows": (DAY, DAY)}),
        ("holidays[0]", [ANY], {"holidays": ("2026-02-29",)}),
        ("holidays[1]", [ANY], {"holidays": ("02-29", "30-02")}),
        ("time_zone", [ANY], {"time_zone": "Mars/Olympus"}),
        ("time_zone", [ANY], {"time_zone": "../etc/passwd"}),
    ],
)  # fmt: skip
def test_what_no_tariff_may_say_is_refused_with_its_place(field, rates, more):
    command = PublishTariff("t", 0, "EUR", tuple(rates), **{"zones": (EU,)} | more)
    with pytest.raises(Refused) as refused:
        check_tariff(command)
    assert (refused.value.code, refused.value.facts["field"]) == ("bad_tariff", field)
    assert refused.value.facts["remedy"]


def test_windows_that_cover_all_of_time_need_no_other_rate():
    night = Window("night", (Span((), 1_080, 480),))
    rows = [Rate("voice", "z", "1", window=name) for name in ("day", "night")]
    check_tariff(PublishTariff("t", 0, "EUR", tuple(rows), windows=(DAY, night)))


def test_a_time_that_no_rate_is_for_is_named():
    week = Window("week", (Span(("mon", "tue", "wed", "thu", "fri"), 0, 1_440),))
    weekend = Window("weekend", (Span(("sat", "sun"), 0, 1_440),))
    rows = tuple(Rate("voice", "z", "1", window=name) for name in ("week", "weekend"))
    check_tariff(PublishTariff("t", 0, "EUR", rows, windows=(week, weekend)))
    with pytest.raises(Refused) as refused:
        check_tariff(PublishTariff("t", 0, "EUR", rows, windows=(week, weekend), holidays=("12-25",)))
    assert "no rate for holiday 00:00" in refused.value.facts["remedy"]


def test_a_charge_is_found_again_by_what_it_knows_where_its_record_is_gone():
    record = PAIRS.find("voice", "outbound", "+4420", 0, "+441", (("network", "20801"),))
    again = PAIRS.find_again("voice", "outbound", record.prefix, 0, record.basis)
    assert (again.index, again.prefix, again.basis) == (record.index, record.prefix, record.basis)
    plain = PAIRS.find("messaging", "outbound", "+331")
    assert PAIRS.find_again("messaging", "outbound", plain.prefix, 0, plain.basis or NO_BASIS) is not None
    gifts = tariff(Rate("messaging", "gift", "0.01", percent="10", times="segments"))
    told = gifts.find("messaging", "outbound", "", 0, "", (("segments", "3"), ("value", "12.50")))
    assert gifts.find_again("messaging", "outbound", "", 0, told.basis).basis == told.basis
