"""Onboarding: a tenant in the directory, and its enterprise as one definition file.

A definition says what the carrier sold and how the enterprise is built: nodes, resources,
contract, tariff, limits, allocations. It becomes commands with keys of their own, so that a
file may be applied again: what is there already stays, what was added since is added.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct, field
from psycopg.errors import UniqueViolation

from ..domain.bucket import Allocate
from ..domain.calendar import Calendar, CalendarKind
from ..domain.contract import Grant, SignContract, first_form, midnight
from ..domain.hierarchy import AddNode, AddResource, Identity
from ..domain.limit import THRESHOLDS, SetAnyLimit, SetLimit
from ..domain.policy import Action, Group, Selector, SetPolicy
from ..domain.policy import Step as PolicyStep
from ..domain.raising import MayRaise
from ..domain.tariff import MICRO
from ..domain.tenant import Command
from ..domain.terms import USUAL, OveragePrice, RollOverRule, Terms
from ..domain.usage_type import DefineUsageType
from ..domain.window import PERIOD
from .definition import DefinitionError, parse
from .isolation import Isolation
from .sealing import RootKey, Sealer, create_tenant_key
from .tariff_file import TariffDefinition, tariff_command

MONEY_TEXT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class UnknownTenant(LookupError):
    """No tenant of that name."""


class SlugTaken(ValueError):
    """There is a tenant of that name already."""


class TenantEntry(Struct, frozen=True):
    """A tenant, as the directory knows it."""

    tenant_id: UUID
    slug: str
    name: str
    carrier: str
    time_zone: str
    currency: str


class Enrol(Struct, frozen=True):
    """Put a resource on a node under its real numbers; the writer seals them on the way in."""

    resource: str
    node: str
    kind: str
    since: int
    lines: tuple[str, ...]

    def sealed_by(self, sealer: Sealer) -> AddResource:
        identities = []
        for line in self.lines:
            token = sealer.token(line)
            identities.append(Identity(token, sealer.seal(token, line.encode(), token)))
        return AddResource(self.resource, self.node, self.kind, self.since, tuple(identities))

    def normalised(self, normal: Callable[[str], str]) -> "Enrol":
        return msgspec.structs.replace(self, lines=tuple(map(normal, self.lines)))


class NodeDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    kind: str
    parent: str = ""
    name: str = ""


class ResourceDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    node: str
    kind: str
    lines: tuple[str, ...]
    since: str = "1971-01-01"


class CalendarDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """As `domain.calendar.Calendar`, by name."""

    kind: CalendarKind = "month"
    number: int = 0
    starts: tuple[str, ...] = ()


class RollOverDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    cycles: int = 1
    quantity: int | None = None
    percent: int | None = None


class PriceDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    price: str
    per: int = 1


class ContractDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Grants by usage type, in its unit, money in micro-units; and the terms of `domain.terms.Terms`."""

    id: str
    starts_on: str
    grants: dict[str, int]
    overage: bool = True
    calendar: CalendarDefinition = CalendarDefinition()
    ends_on: str = ""
    renews_months: int = 0
    prorate: bool = False
    rollover: dict[str, RollOverDefinition] = {}
    rolls_to_enterprise: bool = False
    settle_after_hours: int = 0
    commitment: str = "0"
    """In the tenant's currency: "1000.00"."""
    overage_prices: dict[str, PriceDefinition] = {}
    over_commitment_percent: int = 0
    expires: bool = False
    note: str = ""


class RaiserDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may raise a limit: to so many per cent of it, to a quantity, or without bound."""

    role: str
    percent: int = 0
    quantity: int = 0


class LimitDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    node: str
    usage_type: str
    quantity: int
    thresholds: tuple[int, ...] = THRESHOLDS
    from_period: str = ""
    window: str = PERIOD
    kind: Literal["hard", "soft"] = "hard"
    quantities: tuple[int, ...] = ()
    may_raise: tuple[RaiserDefinition, ...] = ()

    def command(self) -> SetLimit:
        plain = (self.node, self.usage_type, self.quantity, self.thresholds, self.from_period)
        more = (self.window, self.kind, self.quantities)
        if more == (PERIOD, "hard", ()) and not self.may_raise:
            return SetLimit(*plain)
        rules = tuple(MayRaise(*msgspec.structs.astuple(rule)) for rule in self.may_raise)
        return SetAnyLimit(*plain, *more, rules)


class StepDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """As `domain.policy.Step`, by name."""

    action: Action
    percent: int = 0
    at: int = 0
    kbps: int = 0
    price: str = ""
    per: int = 1
    approvers: tuple[str, ...] = ()


class SelectorDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """As `domain.policy.Selector`, by name."""

    usage_types: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    weekdays: tuple[int, ...] = ()
    from_minute: int = 0
    to_minute: int = 1_440


class PolicyDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy, as in a definition and in a file of its own."""

    id: str
    node: str
    counted: str
    steps: tuple[StepDefinition, ...]
    window: str = PERIOD
    selector: SelectorDefinition = SelectorDefinition()
    groups: dict[str, tuple[str, ...]] = {}
    """Countries by name: {"EU": ["+49", "+33"]}."""
    note: str = ""

    def command(self, valid_from: int = 0) -> SetPolicy:
        return SetPolicy(
            self.id,
            self.node,
            self.counted,
            tuple(PolicyStep(*msgspec.structs.astuple(step)) for step in self.steps),
            self.window,
            valid_from,
            Selector(*msgspec.structs.astuple(self.selector)),
            tuple(Group(name, prefixes) for name, prefixes in self.groups.items()),
            self.note,
        )


class AllocationDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    target: str
    usage_type: str
    quantity: int
    period: str = ""


class Definition(Struct, frozen=True, forbid_unknown_fields=True):
    """One enterprise, as a carrier writes it down."""

    nodes: tuple[NodeDefinition, ...] = ()
    resources: tuple[ResourceDefinition, ...] = ()
    contracts: tuple[ContractDefinition, ...] = ()
    tariffs: tuple[TariffDefinition, ...] = ()
    limits: tuple[LimitDefinition, ...] = ()
    allocations: tuple[AllocationDefinition, ...] = ()
    usage_types: dict[str, str] = {}
    """Of the carrier's own: name and unit."""
    policies: tuple[PolicyDefinition, ...] = ()
    region: str = field(default="")
    """The country ("DE") whose national numbers are meant where a line has no "+"."""


class Step(Struct, frozen=True):
    """One command of a definition, and the key under which it is carried out once."""

    command: Command | Enrol
    key: str
    about: str


def parse_definition(text: bytes) -> Definition:
    return parse(text, Definition, "the definition")


def steps(definition: Definition, zone: ZoneInfo, normalise: Callable[[str, str], str]) -> Iterator[Step]:
    """What must be done, in order. `normalise(line, region)` gives a number its stored form."""
    for node in definition.nodes:
        yield _step("node", node.id, AddNode(node.id, node.parent, node.name or node.id, node.kind))
    for resource in definition.resources:
        lines = tuple(normalise(line, definition.region) for line in resource.lines)
        since = midnight(_date("resources.since", resource.since), zone)
        yield _step("resource", resource.id, Enrol(resource.id, resource.node, resource.kind, since, lines))
    for name, unit in definition.usage_types.items():
        yield _step("usage type", name, DefineUsageType(name, unit))
    for contract in definition.contracts:
        yield _step("contract", contract.id, contract_command(contract))
    for place, tariff in enumerate(definition.tariffs):
        yield _step("tariff", tariff.id, tariff_command(tariff, zone, f"tariffs[{place}]."))
    for limit in definition.limits:
        about = f"{limit.node} {limit.usage_type}{'' if limit.window == PERIOD else f' {limit.window}'}"
        yield _step("limit", about, limit.command())
    for policy in definition.policies:
        yield _step("policy", policy.id, policy.command())
    for given in definition.allocations:
        yield _step(
            "allocation",
            f"{given.target} {given.usage_type}",
            Allocate(given.source, given.target, given.usage_type, given.period, given.quantity),
        )


def contract_command(contract: ContractDefinition) -> SignContract:
    grants = tuple(Grant(usage_type, quantity) for usage_type, quantity in contract.grants.items())
    calendar = Calendar(*msgspec.structs.astuple(contract.calendar))
    terms = Terms(
        *(calendar, contract.ends_on, contract.renews_months, contract.prorate),
        tuple(RollOverRule(name, *msgspec.structs.astuple(one)) for name, one in contract.rollover.items()),
        *(contract.rolls_to_enterprise, contract.settle_after_hours),
        _money("contracts.commitment", contract.commitment),
        tuple(OveragePrice(name, one.price, one.per) for name, one in contract.overage_prices.items()),
        contract.over_commitment_percent,
        contract.expires,
    )
    agreed = None if terms == USUAL else terms
    return SignContract(contract.id, contract.starts_on, grants, contract.overage, agreed, contract.note)


def _step(what: str, about: str, command: Command | Enrol) -> Step:
    """Things are keyed by what they are, so that one changed in the file is told from a new one."""
    if what in ("node", "resource", "usage type"):
        return Step(command, f"definition:{what}:{about}", f"{what} {about}")
    content = sha256(msgspec.json.encode(first_form(command))).hexdigest()
    return Step(command, f"definition:{what}:{about}:{content}", f"{what} {about}")


def _date(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DefinitionError(f"{name}: {text!r} is not a date such as 2026-11-01") from None


def _money(name: str, text: str) -> int:
    """Micro-units of an amount with at most six decimals."""
    if not MONEY_TEXT.fullmatch(text):
        raise DefinitionError(f'{name}: {text!r} is not an amount such as "1000.00"')
    return int(Decimal(text) * MICRO)


# --- the directory ----------------------------------------------------------------------------


def check_slug(isolation: Isolation, slug: str) -> None:
    """Refuses a slug that cannot be had."""
    if not SLUG.fullmatch(slug):
        raise DefinitionError(f"slug {slug!r}: use lower-case letters, digits and hyphens, at most 63")
    if _is_uuid(slug):
        raise DefinitionError(f"slug {slug!r} looks like a tenant's id: choose a name")
    with isolation.directory() as connection:
        if connection.execute("SELECT FROM tenants WHERE slug = %s", (slug,)).fetchone() is not None:
            raise SlugTaken(f"there is a tenant {slug!r} already: choose another slug")


def make_key(isolation: Isolation, root: RootKey, tenant: UUID) -> None:
    with isolation.transaction(tenant) as connection:
        create_tenant_key(connection, root, tenant)


def enter(isolation: Isolation, entry: TenantEntry) -> None:
    """Enter a tenant in the directory. Comes last: what is not entered, nobody can name."""
    try:
        with isolation.directory() as connection:
            connection.execute(
                f"INSERT INTO tenants ({_COLUMNS}, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (*msgspec.structs.astuple(entry), datetime.now(UTC)),
            )
    except UniqueViolation:
        raise SlugTaken(f"there is a tenant {entry.slug!r}, or of this id, already") from None


def register(isolation: Isolation, root: RootKey, entry: TenantEntry) -> None:
    """All of it for a tenant whose log is opened otherwise."""
    check_slug(isolation, entry.slug)
    make_key(isolation, root, entry.tenant_id)
    enter(isolation, entry)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def tenants(isolation: Isolation) -> list[TenantEntry]:
    with isolation.directory() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM tenants ORDER BY slug").fetchall()
    return [TenantEntry(*row) for row in rows]


def find_tenant(isolation: Isolation, slug_or_id: str) -> TenantEntry:
    with isolation.directory() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM tenants WHERE slug = %s OR tenant_id::text = %s",
            (slug_or_id, slug_or_id),
        ).fetchone()
    if row is None:
        raise UnknownTenant(
            f"there is no tenant {slug_or_id!r}: `allotment tenant list` shows those there are"
        )
    return TenantEntry(*row)


_COLUMNS = "tenant_id, slug, name, carrier, time_zone, currency"
