"""A call for help that lasts: nothing that stops usage ends it, and nobody pays for what no bucket covers."""

import pytest

from allotment.domain.charging import UsageCharged
from allotment.domain.freeze import FreezeNode
from allotment.domain.limit import SetLimit
from allotment.domain.policy import SetPolicy, Step
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionUpdated, UpdateSession
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.usage import UsageRecord

TARIFF = TariffPublished(
    "help",
    2,
    0,
    "EUR",
    "half_up",
    4,
    (Rate("voice", "help", "0.06", per=60), Rate("messaging", "any", "0.05")),
)
STOPS = {
    "a limit": SetLimit("sales", "voice", 60),
    "a policy": SetPolicy("stop", "sales", "voice", (Step("block", percent=50),)),
    "a redirect": SetPolicy("own", "sales", "voice", (Step("redirect", percent=50),)),
    "a freeze": FreezeNode("sales"),
}


def reserve(now, usage_type="voice"):
    record = UsageRecord("pbx", "help", "r-1", usage_type, 60, now, "outbound", "112")
    return ReserveUnits(record, 0, b"r-1", b"")


@pytest.mark.parametrize("stop", STOPS)
def test_a_call_for_help_goes_on_whatever_comes_meanwhile(company, now, stop):
    acme = company(TARIFF)
    assert acme.do(reserve(now), now)[0].granted == 60
    acme.do(SetLimit("sales", "voice", 100), now)
    acme.do(STOPS[stop], now)
    for number, used in enumerate((60, 60, 60), 1):
        told = acme.do(UpdateSession("pbx", "help", number, Report(used), 60), now)[0]
        assert isinstance(told, SessionUpdated), told
        assert (told.granted, told.final, told.ruling) == (60, False, None)
    released, *followed = acme.do(ReleaseSession("pbx", "help", 9, Report(60)), now)
    charged = [one for one in followed if isinstance(one, UsageCharged)]
    assert released.used == 240
    assert sum(one.quantity for one in charged) + released.overrun == 240
    assert not any(one.amount for one in charged)


def test_a_call_for_help_that_a_limit_forbids_from_its_start_goes_through_free_of_charge(company, now):
    acme = company(TARIFF)
    acme.do(SetLimit("sales", "voice", 0), now)
    told = acme.do(reserve(now), now)[0]
    assert (told.granted, told.payer) == (60, "emergency")
    assert acme.do(UpdateSession("pbx", "help", 1, Report(60), 60), now)[0].granted == 60
