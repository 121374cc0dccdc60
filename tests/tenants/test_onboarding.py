"""Onboarding: tenants in the directory, and definitions that can be applied again."""

import json
from hashlib import sha256
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, call, in_time, statuses

from allotment.backend.engine import Engine, normal_line
from allotment.domain.calendar import Calendar
from allotment.domain.contract import Grant, SignContract
from allotment.domain.refusals import Refused
from allotment.domain.tenant import OpenTenant
from allotment.domain.terms import OveragePrice, RollOverRule, Terms
from allotment.domain.usage_type import DefineUsageType
from allotment.tenants.definition import DefinitionError
from allotment.tenants.onboarding import (
    SlugTaken,
    TenantEntry,
    UnknownTenant,
    find_tenant,
    make_key,
    parse_definition,
    register,
    steps,
    tenants,
)

DEFINITION = {
    "region": "GB",
    "nodes": [
        {"id": "acme", "kind": "enterprise", "name": "Acme"},
        {"id": "emea", "kind": "division", "parent": "acme"},
    ],
    "resources": [
        {"id": "anna", "node": "emea", "kind": "msisdn", "lines": ["020 7183 8750", "100"]},
        {"id": "bo", "node": "emea", "kind": "msisdn", "lines": ["+441"], "since": "2026-01-01"},
    ],
    "contracts": [{"id": "c", "starts_on": "2026-01-01", "grants": {"voice": 10_000}}],
    "tariffs": [
        {
            "id": "std",
            "valid_from": "2026-01-01",
            "currency": "EUR",
            "rates": [{"usage_type": "voice", "zone": "any", "price": "0.05", "per": 60, "increment": 60}],
        }
    ],
    "limits": [{"node": "emea", "usage_type": "voice", "quantity": 5_000}],
    "allocations": [{"source": "acme", "target": "emea", "usage_type": "voice", "quantity": 1_000}],
}
STEPS = 8


def entry(slug="acme", tenant=None, **changes):
    fields = {"name": "Acme", "carrier": "carrier", "time_zone": "Europe/London", "currency": "EUR"} | changes
    return TenantEntry(tenant or uuid4(), slug, **fields)


def definition(**changes):
    return parse_definition(json.dumps(DEFINITION | changes).encode())


@pytest.fixture
def engine(isolation):
    return Engine(isolation, ROOT, clock=lambda: NOON, following=False)


async def applied(engine, tenant, **changes):
    return await in_time(engine.apply_definition(tenant, definition(**changes), "carrier:test"))


TERMS = {
    "id": "c",
    "starts_on": "2026-01-15",
    "grants": {"voice": 10_000, "iot": 5, "money": 50_000_000},
    "calendar": {"kind": "billing_day", "number": 15},
    "ends_on": "2027-01-14",
    "renews_months": 12,
    "prorate": True,
    "rollover": {"voice": {"cycles": 3, "percent": 50}, "iot": {"quantity": 2}},
    "rolls_to_enterprise": True,
    "settle_after_hours": 6,
    "commitment": "1000.50",
    "overage_prices": {"voice": {"price": "0.04", "per": 60}},
    "note": "negotiated",
}


def test_a_definition_states_the_terms_of_a_contract():
    told = definition(contracts=[TERMS], usage_types={"iot": "message"})
    commands = [step.command for step in steps(told, ZoneInfo("UTC"), normal_line)]
    assert DefineUsageType("iot", "message") in commands
    (signed,) = [command for command in commands if isinstance(command, SignContract)]
    assert signed == SignContract(
        "c",
        "2026-01-15",
        (Grant("voice", 10_000), Grant("iot", 5), Grant("money", 50_000_000)),
        True,
        Terms(
            Calendar("billing_day", 15),
            ends_on="2027-01-14",
            renews_months=12,
            prorate=True,
            rollover=(RollOverRule("voice", 3, None, 50), RollOverRule("iot", 1, 2)),
            rolls_to_enterprise=True,
            settle_after_hours=6,
            commitment=1_000_500_000,
            overage_prices=(OveragePrice("voice", "0.04", 60),),
        ),
        "negotiated",
    )


def test_a_contract_without_terms_has_the_key_that_it_had_before_there_were_any():
    contract = next(
        step for step in steps(definition(), ZoneInfo("UTC"), normal_line) if "contract" in step.key
    )
    content = sha256(b'["c","2026-01-01",[["voice",10000]],true]').hexdigest()
    assert contract.key == f"definition:contract:c:{content}"


@pytest.mark.parametrize("amount", ["-1", "1.1234567", "1e3", "much", ""])
def test_money_in_a_definition_is_a_plain_amount(amount):
    told = definition(contracts=[TERMS | {"commitment": amount}])
    with pytest.raises(DefinitionError, match=r"contracts.commitment: .* is not an amount"):
        list(steps(told, ZoneInfo("UTC"), normal_line))


@in_a_loop
async def test_terms_are_agreed_once_however_often_they_are_applied(isolation):
    tenant = entry(slug="terms")
    async with Engine(isolation, ROOT, clock=lambda: NOON, following=False) as engine:
        await in_time(engine.create_tenant(tenant, "carrier:test"))
        changes = {"contracts": [TERMS], "usage_types": {"iot": "message"}}
        assert await applied(engine, tenant.tenant_id, **changes) == STEPS + 1
        assert await applied(engine, tenant.tenant_id, **changes) == 0
        state = await engine.state(tenant.tenant_id)
        assert state.types.units["iot"] == "message"
        assert [*state.contracts.periods] == ["2026-11-15"]


# --- the directory -------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["a", "acme", "acme-emea", "0x", "a" * 63])
def test_a_slug_is_short_and_plain(isolation, slug):
    register(isolation, ROOT, entry(slug))
    assert find_tenant(isolation, slug).slug == slug


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a b", "a_b", "a.b", "a/b", "ä", "a\n", "a" * 64])
def test_any_other_slug_is_refused_with_the_rule(isolation, slug):
    with pytest.raises(DefinitionError, match="lower-case letters, digits and hyphens, at most 63"):
        register(isolation, ROOT, entry(slug))
    assert tenants(isolation) == []


def test_a_slug_belongs_to_one_tenant(isolation):
    register(isolation, ROOT, entry())
    with pytest.raises(SlugTaken, match="'acme' already: choose another"):
        register(isolation, ROOT, entry())
    assert len(tenants(isolation)) == 1


def test_a_tenants_id_belongs_to_one_tenant(isolation):
    tenant = uuid4()
    register(isolation, ROOT, entry("one", tenant))
    with pytest.raises(ValueError, match="already"):
        register(isolation, ROOT, entry("two", tenant))


def test_no_slug_looks_like_a_tenants_id(isolation):
    victim = entry("victim")
    register(isolation, ROOT, victim)
    with pytest.raises(DefinitionError):
        register(isolation, ROOT, entry(str(victim.tenant_id)))


def test_a_tenant_is_found_by_slug_and_by_id_and_not_by_anything_else(isolation):
    here, there = entry("here"), entry("there")
    register(isolation, ROOT, there)
    register(isolation, ROOT, here)
    assert tenants(isolation) == [here, there]
    assert find_tenant(isolation, "here") == find_tenant(isolation, str(here.tenant_id)) == here
    for unknown in ("", "nowhere", str(uuid4()), "HERE", "%"):
        with pytest.raises(UnknownTenant, match="tenant list"):
            find_tenant(isolation, unknown)


@in_a_loop
async def test_a_new_tenants_log_begins_with_its_opening(engine, isolation):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        opened = (await engine.state(new.tenant_id)).opened
        assert (opened.name, opened.time_zone, opened.currency) == ("Acme", "Europe/London", "EUR")
        assert (await engine.writer(new.tenant_id)).seq == 1


@pytest.mark.parametrize("wrong", [{"time_zone": "Mars/Olympus"}, {"currency": "euro"}, {"name": ""}])
@in_a_loop
async def test_a_tenant_that_is_refused_leaves_nothing_behind(engine, isolation, wrong):
    async with engine:
        with pytest.raises(Refused):
            await engine.create_tenant(entry(**wrong), "carrier:test")
        assert tenants(isolation) == []
        await engine.create_tenant(entry(), "carrier:test")


@in_a_loop
async def test_a_creation_that_was_interrupted_can_be_repeated(engine, isolation):
    new = entry()
    make_key(isolation, ROOT, new.tenant_id)
    opened = OpenTenant(new.name, new.time_zone, new.currency, new.carrier)
    async with engine:
        await engine.submit(new.tenant_id, opened, "open", "carrier:test")
        await engine.create_tenant(new, "carrier:test")
        assert (await engine.state(new.tenant_id)).opened is not None


# --- definitions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(b"", "definition cannot be used", id="nothing"),
        pytest.param(b"[]", "Expected `object`, got `array`", id="a list"),
        pytest.param(b"{", "truncated", id="half a file"),
        pytest.param(b"\xff\xfe{}", "malformed", id="not UTF-8"),
        pytest.param(
            b'{"nodez": []}', "nodez: there is no such key: use nodes, resources", id="an unknown section"
        ),
        pytest.param(
            b'{"nodes": [{"id": "a", "kind": "enterprise", "parnet": "b"}]}',
            r"nodes\[0\].parnet: there is no such key: use id, kind, parent, name",
            id="an unknown field",
        ),
        pytest.param(
            b'{"nodes": [{"id": "a", "kind": "enterprise"}, {"kind": "division"}]}',
            r"nodes\[1\].id: it is missing",
            id="a missing field",
        ),
        pytest.param(
            b'{"nodes": [{"id": 7, "kind": "x"}]}',
            r"nodes\[0\].id: 7: write it as text",
            id="a number for a text",
        ),
        pytest.param(
            b'{"contracts": [{"id": "c", "starts_on": "2026-01-01", "grants": {"voice": 1.5}}]}',
            r"contracts\[0\].grants\[...\]: .*Expected `int`",
            id="a broken grant",
        ),
        pytest.param(
            b'{"tariffs": [{"id": "t", "valid_from": "x", "currency": "EUR", '
            b'"rates": [{"usage_type": "voice", "zone": "z", "price": 0.05}]}]}',
            r"tariffs\[0\].rates\[0\].price: 0.05: write it as text, in quotes",
            id="a price that is not exact",
        ),
        pytest.param(
            b'{"tariffs": [{"id": "t", "valid_from": "x", "currency": "EUR", "rates": [], '
            b'"rounding": {"method": "sideways"}}]}',
            r"tariffs\[0\].rounding.method: 'sideways': use one of",
            id="an unknown rounding",
        ),
    ],
)
def test_a_definition_that_cannot_be_used_says_where_and_why(text, told):
    with pytest.raises(DefinitionError, match=told):
        parse_definition(text)


def test_a_definition_nested_without_end_is_refused():
    with pytest.raises(DefinitionError):
        parse_definition(b'{"nodes": ' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"resources": [DEFINITION["resources"][0] | {"since": "yesterday"}]},
            "resources.since: 'yesterday'",
        ),
        (
            {"tariffs": [DEFINITION["tariffs"][0] | {"valid_from": "2026-13-01"}]},
            r"tariffs\[0\].valid_from: '2026-13-01'",
        ),
    ],
)
def test_a_date_that_is_none_is_named(changes, told):
    with pytest.raises(DefinitionError, match=told):
        list(steps(definition(**changes), ZoneInfo("UTC"), normal_line))


def test_steps_come_in_an_order_in_which_they_can_be_carried_out():
    told = [step.about for step in steps(definition(), ZoneInfo("UTC"), normal_line)]
    assert told == [
        "node acme", "node emea", "resource anna", "resource bo", "contract c", "tariff std",
        "limit emea voice", "allocation emea voice",
    ]  # fmt: skip


def test_lines_are_written_as_usage_will_be():
    [anna, _] = [step.command for step in steps(definition(), ZoneInfo("UTC"), normal_line)][2:4]
    assert anna.lines == ("+442071838750", "100")


@in_a_loop
async def test_a_definition_applied_twice_adds_nothing(engine, isolation):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        assert await applied(engine, new.tenant_id) == STEPS
        seq = (await engine.writer(new.tenant_id)).seq
        assert await applied(engine, new.tenant_id) == 0
        assert (await engine.writer(new.tenant_id)).seq == seq
        [outcome] = await engine.charge(new.tenant_id, [call(1, line="+442071838750")], "mediation")
        assert outcome.status == "charged"
    async with Engine(isolation, ROOT, clock=lambda: NOON, following=False) as restarted:
        assert await applied(restarted, new.tenant_id) == 0


@in_a_loop
async def test_what_was_added_to_a_definition_is_added(engine):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        await applied(engine, new.tenant_id)
        more = [*DEFINITION["nodes"], {"id": "apac", "kind": "division", "parent": "acme"}]
        limits = [{"node": "emea", "usage_type": "voice", "quantity": 6_000}]
        assert await applied(engine, new.tenant_id, nodes=more, limits=limits) == 2
        limit = (await engine.state(new.tenant_id)).limits.of(1, "voice", "2026-11")
        assert limit.quantity == 6_000


@in_a_loop
async def test_going_back_to_an_earlier_definition_sets_its_limits_again(engine):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        await applied(engine, new.tenant_id)
        await applied(
            engine, new.tenant_id, limits=[{"node": "emea", "usage_type": "voice", "quantity": 6_000}]
        )
        await applied(engine, new.tenant_id)
        assert (await engine.state(new.tenant_id)).limits.of(1, "voice", "2026-11").quantity == 5_000


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": [DEFINITION["nodes"][0], DEFINITION["nodes"][1] | {"name": "Europe"}]},
        {"nodes": [DEFINITION["nodes"][0], DEFINITION["nodes"][1] | {"kind": "group"}]},
        {"resources": [DEFINITION["resources"][0] | {"lines": ["101"]}]},
        {"resources": [DEFINITION["resources"][0] | {"node": "acme"}]},
    ],
)
@in_a_loop
async def test_a_node_or_resource_that_was_changed_is_refused_and_stays(engine, changes):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        await applied(engine, new.tenant_id)
        seq = (await engine.writer(new.tenant_id)).seq
        with pytest.raises(Refused) as refusal:
            await applied(engine, new.tenant_id, **changes)
        assert refusal.value.code == "idempotency_mismatch"
        assert (await engine.writer(new.tenant_id)).seq == seq


@in_a_loop
async def test_the_refusal_of_a_changed_node_names_it(engine):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        await applied(engine, new.tenant_id)
        changed = [DEFINITION["nodes"][0], DEFINITION["nodes"][1] | {"name": "Europe"}]
        with pytest.raises((Refused, DefinitionError), match="emea"):
            await applied(engine, new.tenant_id, nodes=changed)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nodes": [{"id": "x", "kind": "planet"}]}, "unknown_kind"),
        (
            {"nodes": [*DEFINITION["nodes"], {"id": "y", "kind": "group", "parent": "nowhere"}]},
            "unknown_node",
        ),
        ({"resources": [DEFINITION["resources"][0] | {"node": "nowhere"}]}, "unknown_node"),
        ({"resources": [DEFINITION["resources"][0] | {"lines": []}]}, "no_identity"),
        (
            {"resources": [DEFINITION["resources"][0], DEFINITION["resources"][0] | {"id": "twin"}]},
            "identity_in_use",
        ),
        ({"contracts": [DEFINITION["contracts"][0] | {"grants": {"air": 1}}]}, "unknown_usage_type"),
        ({"contracts": [DEFINITION["contracts"][0] | {"starts_on": "soon"}]}, "not_a_date"),
        ({"tariffs": [DEFINITION["tariffs"][0] | {"currency": "GBP"}]}, "wrong_currency"),
    ],
)
@in_a_loop
async def test_what_the_rules_refuse_is_refused_in_a_definition_too(engine, changes, code):
    async with engine:
        new = entry()
        await engine.create_tenant(new, "carrier:test")
        with pytest.raises(Refused) as refusal:
            await applied(engine, new.tenant_id, **changes)
        assert refusal.value.code == code
        assert await applied(engine, new.tenant_id) <= STEPS


@in_a_loop
async def test_two_tenants_with_one_definition_are_two_enterprises(engine):
    async with engine:
        one, other = entry("one"), entry("other")
        for new in (one, other):
            await engine.create_tenant(new, "carrier:test")
            assert await applied(engine, new.tenant_id) == STEPS
        records = [call(1, line="100")]
        assert statuses(await engine.charge(one.tenant_id, records, "mediation")) == ["charged"]
        assert statuses(await engine.charge(other.tenant_id, records, "mediation")) == ["charged"]
        assert statuses(await engine.charge(one.tenant_id, records, "mediation")) == ["duplicate"]
        tokens = [
            set((await engine.state(tenant)).hierarchy.by_token)
            for tenant in (one.tenant_id, other.tenant_id)
        ]
        assert not tokens[0] & tokens[1]
        assert isinstance(one.tenant_id, UUID)
