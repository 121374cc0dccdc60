"""The demonstration's enterprises: a carrier's two customers, some 500 devices, made of few words.

The numbers are those that regulators keep free for stories, and the lines that published sample
records name, so that these samples can be charged. Names, prices and quantities are invented.
"""

from collections.abc import Iterator
from datetime import date

from msgspec import Struct

from ...tenants.onboarding import (
    AllocationDefinition,
    ContractDefinition,
    Definition,
    LimitDefinition,
    NodeDefinition,
    ResourceDefinition,
)
from ...tenants.tariff_file import RateDefinition, TariffDefinition

CARRIER = "Meridian Telecom"
BEGINNING = "2013-01-01"
"""Contracts and tariffs reach back far enough for the oldest sample records."""
GB = 10**9
MINUTE = 60

POOL, LENDER = "crew-1", "crew-2"
"""The story's shared pool, and the neighbour that helps out."""
POOL_BYTES, LENDER_BYTES = 10 * GB, 6 * GB
TABLETS = 8
"""Of each crew."""


class Enterprise(Struct, frozen=True):
    """A customer to onboard, and who of it makes what usage."""

    slug: str
    name: str
    time_zone: str
    currency: str
    definition: Definition
    desks: tuple[str, ...]
    mobiles: tuple[str, ...]
    tablets: tuple[str, ...]
    records: int
    """In three months."""


def enterprises(months: tuple[str, ...]) -> tuple[Enterprise, Enterprise]:
    """Both, with allocations for these months ("2026-09"), the last of which is running."""
    return _acme(months), _globex(months)


def months_before(today: date, count: int) -> tuple[str, ...]:
    """The last `count` months, this one included, the oldest first."""
    ordinal = today.year * 12 + today.month - 1
    return tuple(f"{at // 12:04d}-{at % 12 + 1:02d}" for at in range(ordinal - count + 1, ordinal + 1))


# --- Acme ----------------------------------------------------------------------------------------

_ACME = """
acme           enterprise   -            Acme Engineering plc
emea           division     acme         Europe, Middle East and Africa
london         cost_centre  emea         London office
london-sales   group        london       Sales, London
london-support group        london       Support, London
berlin         cost_centre  emea         Berlin plant
americas       division     acme         Americas
miami          cost_centre  americas     Miami office
toronto        cost_centre  americas     Toronto office
field          division     acme         Field service
field-north    cost_centre  field        Field service, north
field-south    cost_centre  field        Field service, south
crew-1         group        field-north  Crew 1
crew-2         group        field-north  Crew 2
crew-3         group        field-north  Crew 3
crew-4         group        field-south  Crew 4
crew-5         group        field-south  Crew 5
crew-6         group        field-south  Crew 6
"""
_SAMPLE_NUMBERS = ("+13051416799", "+13051913580", "+12019235161", "+18182008801")


def _acme(months: tuple[str, ...]) -> Enterprise:
    desks = [
        _resource("desk-alice", "london-sales", "extension", "100", "alice"),
        _resource("desk-bob", "london-sales", "extension", "200", "bob"),
        _resource("desk-charlie", "london-support", "extension", "300", "charlie"),
        *(
            _resource(
                f"desk-{number}", f"london-{'sales' if number < 150 else 'support'}", "extension", str(number)
            )
            for number in range(101, 200)
        ),
    ]
    trunk = [_resource(f"trunk-{number[1:]}", "miami", "softphone", number) for number in _SAMPLE_NUMBERS]
    mobiles = [
        *_numbered("london-sales", "+447700900", 100, 55),
        *_numbered("berlin", "+493023125", 100, 60),
        *_numbered("miami", "+130555501", 10, 40),
        *_numbered("toronto", "+141655501", 10, 35),
    ]
    tablets = [
        _resource(f"tablet-{crew}{place}", f"crew-{crew}", "msisdn", f"+4477009008{crew}{place}")
        for crew in range(1, 7)
        for place in range(TABLETS)
    ]
    definition = Definition(
        nodes=tuple(_nodes(_ACME)),
        resources=(*desks, *trunk, *mobiles, *tablets),
        contracts=(
            ContractDefinition(
                "frame-2026",
                BEGINNING,
                {"data": 200 * GB, "voice": 2_600 * MINUTE, "messaging": 2_000, "video": 600 * MINUTE},
            ),
        ),
        tariffs=(
            _tariff("business", BEGINNING, "GBP", "0.018"),
            _tariff("business", f"{months[1]}-01", "GBP", "0.016"),
        ),
        limits=(
            LimitDefinition(POOL, "data", POOL_BYTES, from_period=months[-1]),
            LimitDefinition("london", "money", 150_000_000, thresholds=(50, 80, 100), from_period=months[0]),
            LimitDefinition(
                "acme", "data", 500 * GB, thresholds=(10, 25, 50, 80, 100), from_period=months[0]
            ),
            LimitDefinition("toronto", "data", 9 * GB, from_period=months[0]),
            LimitDefinition("tablet-31", "data", 2 * GB, from_period=months[0]),
        ),
        allocations=tuple(_acme_allocations(months)),
    )
    return Enterprise(
        slug="acme",
        name="Acme Engineering plc",
        time_zone="Europe/London",
        currency="GBP",
        definition=definition,
        desks=_lines(desks),
        mobiles=_lines(mobiles),
        tablets=_lines(tablets),
        records=2_700,
    )


def _acme_allocations(months: tuple[str, ...]) -> Iterator[AllocationDefinition]:
    for month in months:
        yield AllocationDefinition("acme", "emea", "data", 60 * GB, month)
        yield AllocationDefinition("acme", "emea", "voice", 900 * MINUTE, month)
        yield AllocationDefinition("acme", "americas", "data", 40 * GB, month)
        yield AllocationDefinition("acme", "americas", "voice", 500 * MINUTE, month)
        yield AllocationDefinition("acme", "field", "data", 60 * GB, month)
        yield AllocationDefinition("emea", "berlin", "data", 25 * GB, month)
    yield AllocationDefinition("field", POOL, "data", POOL_BYTES, months[-1])
    yield AllocationDefinition("field", LENDER, "data", LENDER_BYTES, months[-1])


# --- Globex --------------------------------------------------------------------------------------

_GLOBEX = """
globex         enterprise   -            Globex Logistics Inc.
east           division     globex       East coast
boston         cost_centre  east         Boston depot
newark         cost_centre  east         Newark depot
boston-trucks  group        boston       Trucks, Boston
boston-yard    group        boston       Yard, Boston
newark-trucks  group        newark       Trucks, Newark
"""


def _globex(months: tuple[str, ...]) -> Enterprise:
    mobiles = [
        *_numbered("boston-yard", "+161755501", 10, 45),
        *_numbered("newark", "+197355501", 10, 45),
    ]
    tablets = [
        *_numbered("boston-trucks", "+185755501", 10, 40),
        *_numbered("newark-trucks", "+186255501", 10, 40),
    ]
    definition = Definition(
        nodes=tuple(_nodes(_GLOBEX)),
        resources=(*mobiles, *tablets),
        contracts=(
            ContractDefinition(
                "fleet",
                BEGINNING,
                {"data": 90 * GB, "voice": 900 * MINUTE, "messaging": 1_500, "video": 60 * MINUTE},
            ),
        ),
        tariffs=(_tariff("fleet", BEGINNING, "USD", "0.022"),),
        limits=(
            LimitDefinition("boston-trucks", "data", 60 * GB, from_period=months[0]),
            LimitDefinition("globex", "money", 900_000_000, from_period=months[0]),
        ),
        allocations=tuple(
            AllocationDefinition("globex", node, "data", 25 * GB, month)
            for month in months
            for node in ("boston", "newark")
        ),
    )
    return Enterprise(
        slug="globex",
        name="Globex Logistics Inc.",
        time_zone="America/New_York",
        currency="USD",
        definition=definition,
        desks=(),
        mobiles=_lines(mobiles),
        tablets=_lines(tablets),
        records=1_500,
    )


# --- what both are made of -----------------------------------------------------------------------


def _nodes(tree: str) -> Iterator[NodeDefinition]:
    for line in tree.strip().splitlines():
        ident, kind, parent, name = line.split(maxsplit=3)
        yield NodeDefinition(ident, kind, "" if parent == "-" else parent, name)


def _numbered(node: str, prefix: str, first: int, count: int) -> list[ResourceDefinition]:
    """Mobiles with consecutive numbers."""
    digits = len(str(first))
    numbers = [f"{prefix}{number:0{digits}d}" for number in range(first, first + count)]
    return [_resource(f"{node}-{number[-4:]}", node, "msisdn", number) for number in numbers]


def _resource(ident: str, node: str, kind: str, *lines: str) -> ResourceDefinition:
    return ResourceDefinition(ident, node, kind, lines)


def _lines(resources: list[ResourceDefinition]) -> tuple[str, ...]:
    return tuple(resource.lines[0] for resource in resources)


def _tariff(ident: str, valid_from: str, currency: str, home_price: str) -> TariffDefinition:
    """Voice by destination, by the second from half a minute on; the rest flat."""

    def voice(zone: str, prefix: str, price: str) -> RateDefinition:
        return RateDefinition("voice", zone, price, 60, prefix, "outbound", minimum=30)

    satellite = RateDefinition(
        *("voice", "satellite", "4.50", 60, "+881", "outbound"),
        increment=60,
        minimum=60,
        connect_fee="0.50",
        included=False,
    )

    return TariffDefinition(
        id=ident,
        valid_from=valid_from,
        currency=currency,
        rates=(
            voice("on-net", "", "0"),
            voice("home", "+44" if currency == "GBP" else "+1", home_price),
            voice(
                "north-america" if currency == "GBP" else "uk", "+1" if currency == "GBP" else "+44", "0.031"
            ),
            voice("germany", "+49", "0.027"),
            voice("world", "+", "0.19"),
            satellite,
            RateDefinition("voice", "inbound", "0", direction="inbound"),
            RateDefinition("data", "domestic", "0.0035", per=1_000_000, increment=1_000),
            RateDefinition("messaging", "any", "0.04"),
            RateDefinition("video", "any", "0.06", per=60, increment=10),
        ),
    )


def example_definition() -> Definition:
    """A small enterprise with one of everything, to start a definition from."""
    return Definition(
        nodes=(
            NodeDefinition("acme", "enterprise", name="Acme plc"),
            NodeDefinition("emea", "division", "acme", "EMEA"),
            NodeDefinition("london", "cost_centre", "emea", "London office"),
        ),
        resources=(
            ResourceDefinition("alice-mobile", "london", "msisdn", ("+447700900123",), since="2013-01-01"),
            ResourceDefinition("alice-desk", "london", "extension", ("100", "alice"), since="2013-01-01"),
        ),
        contracts=(
            ContractDefinition("frame", "2013-01-01", {"data": 100 * GB, "voice": 60_000, "messaging": 500}),
        ),
        tariffs=(
            TariffDefinition(
                "standard",
                "2013-01-01",
                "GBP",
                (
                    RateDefinition(
                        "voice", "uk", "0.02", per=60, prefix="+44", direction="outbound", minimum=30
                    ),
                    RateDefinition(
                        "voice", "world", "0.20", per=60, prefix="+", direction="outbound", connect_fee="0.05"
                    ),
                    RateDefinition("voice", "on-net", "0"),
                    RateDefinition("data", "any", "0.004", per=1_000_000, increment=1_000),
                    RateDefinition("messaging", "any", "0.04"),
                ),
            ),
        ),
        limits=(LimitDefinition("london", "data", 20 * GB), LimitDefinition("acme", "money", 500_000_000)),
        allocations=(AllocationDefinition("acme", "london", "data", 15 * GB),),
        region="GB",
    )
