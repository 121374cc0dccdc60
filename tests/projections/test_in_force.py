"""What runs, seen by readers: the period of each moment is the one that the rules say, open or not."""

import pytest

from allotment.backend.following import catch_up
from allotment.domain.calendar import Calendar
from allotment.domain.contract import EndContract, Grant, OpenPeriod, SignContract
from allotment.domain.hierarchy import AddNode
from allotment.domain.refusals import Refused
from allotment.domain.tenant import OpenTenant
from allotment.domain.terms import Terms
from allotment.projections.in_force import agreed_in

DAY = 86_400_000_000
GRANTS = (Grant("voice", 1000),)
BILLING_15 = Terms(calendar=Calendar("billing_day", 15))
WEEKLY = Terms(calendar=Calendar("weekly", 1))


@pytest.mark.parametrize(
    ("commands", "now_called"),
    [
        ([], "2026-11"),
        ([SignContract("a", "2026-01-01", GRANTS)], "2026-11"),
        ([SignContract("a", "2026-01-20", GRANTS, True, BILLING_15)], "2026-10-15"),
        ([SignContract("a", "2026-01-20", GRANTS, True, WEEKLY)], "2026-11-02"),
        ([SignContract("a", "2026-12-20", GRANTS, True, WEEKLY)], "2026-11"),
        (
            [
                SignContract("a", "2026-01-20", GRANTS, True, BILLING_15),
                OpenPeriod("2026-10-15"),
                EndContract("a", "2026-11-20"),
                SignContract("b", "2026-11-21", GRANTS, True, WEEKLY),
            ],
            "2026-10-15",
        ),
    ],
)
def test_the_period_of_a_moment_is_called_as_the_rules_call_it(isolation, enterprise, commands, now_called):
    acme = enterprise()
    acme.do(OpenTenant("Acme", "Europe/Berlin", "EUR", "carrier"))
    acme.do(AddNode("acme", "", "Acme", "enterprise"))
    for command in commands:
        assert acme.do(command)
    acme.commit()
    catch_up(isolation, acme.tenant)
    rules = acme.state.contracts
    with isolation.snapshot(acme.tenant) as db:
        found = agreed_in(db)
    assert found.name_at(acme.now) == now_called
    for at in range(acme.now - 300 * DAY, acme.now + 80 * DAY, 3 * DAY):
        name = rules.name_at(at)
        assert (found.name_at(at), found.shown(name)) == (name, rules.shown(name))


def test_a_month_without_a_contract_is_shown_and_what_is_no_period_is_refused(isolation, enterprise):
    acme = enterprise()
    acme.do(OpenTenant("Acme", "Europe/Berlin", "EUR", "carrier"))
    contracts = acme.state.contracts
    starts_at, ends_at = contracts.shown("2026-11")
    assert ends_at - starts_at == 30 * DAY
    with pytest.raises(Refused, match="no_contract"):
        contracts.shown("2026-11-15")
