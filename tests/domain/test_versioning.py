"""Tariff versions: amended by sheets, withdrawn before they hold, own rates laid over any base."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain.rating.amending import Amendment, AmendTariff, TariffWithdrawn, WithdrawTariff
from allotment.domain.rating.language import Rate, Zone
from allotment.domain.rating.overriding import Discount, OverrideRates, Overrides, RatesOverridden
from allotment.domain.refusals import Refused
from allotment.domain.tariff import PublishTariff, Tariffs
from allotment.domain.usage import USAGE_TYPES
from allotment.domain.versioning import LATE_MAX, About, check_versions, decide_versions

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")

DAY = 86_400_000_000
NOW = 1_000 * DAY
ABOUT = About("EUR", USAGE_TYPES, "Europe/Berlin")
UK = Rate("voice", "UK", "0.02", 60, "+44", "outbound")
FRANCE = Rate("voice", "France", "0.03", 60, "+33", "outbound")
PERU = Rate("voice", "Peru", "0.1", 60, direction="outbound")
PERU_ZONE = Zone("Peru", ("+51", "+519"))
TENTH_OFF = Overrides((), (Discount("voice", 1000),))


class Company:
    """The tariffs of a tenant, by what happens to them."""

    def __init__(self, *commands):
        self.tariffs = Tariffs()
        self.do(PublishTariff("standard", NOW - 100 * DAY, "EUR", (UK, FRANCE)), *commands)

    def do(self, *commands, now=NOW):
        told = []
        for command in commands:
            told = decide_versions(self.tariffs, command, ABOUT, now)
            for event in told:
                self.tariffs.apply(event)
            check_versions(self.tariffs)
        return told

    def refused(self, command, now=NOW):
        with pytest.raises(Refused) as refusal:
            decide_versions(self.tariffs, command, ABOUT, now)
        return refusal.value.code

    def price(self, number, days=0):
        tariff = self.tariffs.at(NOW + days * DAY)
        rate = tariff.find("voice", "outbound", number)
        return None if rate is None else (tariff.published.rates[rate.index].price, rate.prefix)


def amend(*changes, seen=1, **more):
    return AmendTariff(changes, seen, **more)


def dearer(of=1, days=1, place=0, price="0.04"):
    return Amendment(of, NOW + days * DAY, (place,), (Rate("voice", "UK", price, 60, "+44", "outbound"),))


def test_an_amendment_changes_what_it_says_and_nothing_else():
    company = Company(amend(dearer(), Amendment(2, NOW + 2 * DAY, (), (PERU,), (), (PERU_ZONE,))))
    assert [company.price("+447", days) for days in (0, 1, 2)] == [
        ("0.02", "+44"),
        ("0.04", "+44"),
        ("0.04", "+44"),
    ]
    assert [company.price("+5191", days) for days in (1, 2)] == [None, ("0.1", "+519")]
    assert company.price("+33", 2) == ("0.03", "+33")


def test_what_is_blocked_is_not_rated_by_a_shorter_prefix():
    blocked = Rate("voice", "special", "0", prefix="+447", direction="outbound", blocked=True)
    company = Company(amend(Amendment(1, NOW, (), (blocked,))))
    assert company.price("+447") is None
    assert company.price("+446") == ("0.02", "+44")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (amend(dearer(), seen=0), "tariffs_changed"),
        (amend(), "bad_amendment"),
        (amend(dearer(of=2)), "unknown_version"),
        (amend(dearer(of=0)), "unknown_version"),
        (amend(dearer(place=2)), "bad_amendment"),
        (amend(dearer(place=1)), "bad_amendment"),
        (amend(dearer(price="x")), "bad_tariff"),
        (amend(Amendment(1, NOW, (0, 1))), "bad_amendment"),
        (amend(Amendment(1, NOW, (), (PERU,), (), (Zone("Peru", ("+44", "+51")),))), "bad_amendment"),
        (amend(dearer(days=-1)), "holds_in_the_past"),
        (amend(Amendment(1, NOW - LATE_MAX, (0,))), None),
        (amend(dearer(days=-1), supersede=True), None),
        (amend(dearer(), note="\n"), "bad_text"),
        (amend(Amendment(1, NOW, (), (replace(PERU, prefix="+51", plan="none"),))), "bad_tariff"),
        (WithdrawTariff(1), "holds_already"),
        (WithdrawTariff(2), "unknown_version"),
        (WithdrawTariff(0), "unknown_version"),
        (OverrideRates(TENTH_OFF, NOW - DAY), "holds_in_the_past"),
        (OverrideRates(TENTH_OFF, NOW - 200 * DAY, supersede=True), "no_base"),
        (OverrideRates(Overrides((), (Discount("voice", 1, "Peru"),)), NOW), "bad_override"),
        (OverrideRates(Overrides((Rate("voice", "UK", "x", 60, "+44"),)), NOW), "bad_override"),
        (OverrideRates(Overrides((replace(UK, plan="none"),)), NOW), "bad_override"),
    ],
)
def test_what_cannot_be_is_refused(command, code):
    if code is None:
        Company(command)
    else:
        assert Company().refused(command) == code


def test_a_scheduled_version_is_withdrawn_before_it_holds_and_not_after():
    company = Company(amend(dearer()))
    assert company.refused(WithdrawTariff(2), now=NOW + DAY) == "holds_already"
    assert company.do(WithdrawTariff(2, "too dear")) == [TariffWithdrawn(2, "too dear")]
    assert company.price("+44", 5) == ("0.02", "+44")
    assert company.tariffs.next_after(NOW) is None
    assert company.refused(WithdrawTariff(2)) == "withdrawn_already"
    # Its number is never given again.
    company.do(AmendTariff((dearer(price="0.03"),), 2))
    assert company.price("+44", 1) == ("0.03", "+44")
    assert len(company.tariffs.versions) == 3


def test_own_rates_are_laid_over_the_base_again_when_it_changes():
    company = Company(OverrideRates(TENTH_OFF, NOW, "agreed"))
    assert company.price("+44") == ("0.018", "+44")
    told = company.do(AmendTariff((dearer(),), 2))
    assert [type(event).__name__ for event in told] == ["TariffAmended", "RatesOverridden"]
    assert told[1].since == NOW
    assert [company.price("+44", days) for days in (0, 1)] == [("0.018", "+44"), ("0.036", "+44")]
    # A base of another name too, and one that is published for a moment between them.
    company.do(
        PublishTariff("gold", NOW + 12 * DAY, "EUR", (UK,)), OverrideRates(Overrides(), NOW + 20 * DAY)
    )
    assert [company.price("+44", days) for days in (1, 12, 20)] == [
        ("0.036", "+44"),
        ("0.018", "+44"),
        ("0.02", "+44"),
    ]
    assert company.price("+33", 12) is None


def test_withdrawing_a_base_or_own_rates_leaves_the_other():
    company = Company(OverrideRates(TENTH_OFF, NOW + DAY), AmendTariff((dearer(days=2),), 2))
    assert company.refused(WithdrawTariff(4)) == "laid_over_base"
    told = company.do(WithdrawTariff(3))
    assert [event.version for event in told] == [3, 4]
    assert company.price("+44", 5) == ("0.018", "+44")
    company.do(AmendTariff((dearer(days=2),), 4))
    assert company.price("+44", 5) == ("0.036", "+44")
    company.do(WithdrawTariff(2))
    assert [company.price("+44", days) for days in (1, 2)] == [("0.02", "+44"), ("0.04", "+44")]


def test_a_base_that_own_rates_do_not_fit_is_refused():
    own = Overrides((), (Discount("voice", 1000, "France"),))
    company = Company(OverrideRates(own, NOW))
    assert company.refused(PublishTariff("gold", NOW + DAY, "EUR", (UK,))) == "bad_override"
    assert company.refused(OverrideRates(own, NOW)) == "overridden_already"


def test_each_rate_of_a_composed_version_knows_its_base():
    company = Company(OverrideRates(Overrides((Rate("voice", "UK", "0.01", 60, "+44", "outbound"),)), NOW))
    tariff = company.tariffs.at(NOW)
    assert isinstance(tariff.made, RatesOverridden)
    assert (tariff.made.of, tariff.sources[0].of) == (1, 0)


_DAYS = st.integers(1, 6)
_ACTS = st.lists(
    st.one_of(
        st.builds(lambda days, price: ("amend", days, price), _DAYS, st.sampled_from(["0.04", "0.05"])),
        st.builds(lambda days, price: ("publish", days, price), _DAYS, st.sampled_from(["1", "2"])),
        st.builds(lambda days, off: ("own", days, off), _DAYS, st.sampled_from([0, 1000, 5000])),
        st.builds(lambda place, _: ("withdraw", place, 0), st.integers(1, 12), st.just(0)),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(_ACTS)
def test_whatever_happens_own_rates_stand_over_the_base_of_each_day(acts):
    company = Company()
    for act, number, value in acts:
        seen = len(company.tariffs.versions)
        try:
            match act:
                case "amend":
                    base = max(
                        (
                            entry
                            for entry in company.tariffs.entries()
                            if entry.overridden is None and entry.valid_from <= NOW + number * DAY
                        ),
                        key=lambda entry: (entry.valid_from, entry.version),
                    )
                    company.do(AmendTariff((dearer(base.version, number, 0, value),), seen))
                case "publish":
                    rate = Rate("voice", "UK", value, 60, "+44", "outbound")
                    company.do(PublishTariff("other", NOW + number * DAY, "EUR", (rate,)))
                case "own":
                    off = Overrides((), (Discount("voice", value),)) if value else Overrides()
                    company.do(OverrideRates(off, NOW + number * DAY))
                case "withdraw":
                    company.do(WithdrawTariff(number))
        except Refused:
            assert len(company.tariffs.versions) == seen
    entries = company.tariffs.entries()
    for days in range(8):
        at = NOW + days * DAY
        plain = [entry for entry in entries if entry.overridden is None and entry.valid_from <= at]
        base = max(plain, key=lambda entry: (entry.valid_from, entry.version))
        own = [
            entry.overridden
            for entry in sorted(entries, key=lambda entry: entry.version)
            if entry.overridden and entry.overridden.since == entry.valid_from <= at
        ]
        newest = max(own, key=lambda one: one.since).since if own else None
        off = [one.overrides for one in own if one.since == newest][-1:] if own else []
        share = 10_000 - (off[0].discounts[0].hundredths if off and off[0].discounts else 0)
        said = company.tariffs.versions[base.version - 1].published.rates[-1].price
        found = company.tariffs.at(at).published.rates[-1]
        assert float(found.price) / found.per == pytest.approx(float(said) / 60 * share / 10_000)
