"""The workload: one enterprise balance shared by thousands of devices in a deep hierarchy.

Every member has a limit for every usage type, far away but counted; every record names a
device, is rated by a destination prefix and drawn from the enterprise's bucket.
"""

import random
from collections.abc import Iterator
from uuid import UUID, uuid4

from msgspec import Struct

from ...domain.contract import QUANTITY_MAX
from ...domain.usage import USAGE_TYPES, UsageRecord
from ...tenants.onboarding import (
    ContractDefinition,
    Definition,
    LimitDefinition,
    NodeDefinition,
    RateDefinition,
    ResourceDefinition,
    TariffDefinition,
    TenantEntry,
)
from ..engine import Engine

ACTOR = "benchmark"
GRANTED = 2**56
LIMIT = QUANTITY_MAX
PREFIXES = {"+1": 10, "+33": 9, "+39": 10, "+44": 10, "+4420": 8, "+49": 10, "+4930": 8, "+7": 10, "+90": 10}
"""Each with how many digits follow it."""


class Shape(Struct, frozen=True):
    """How large the enterprise is. `depth` counts the devices' own level."""

    devices: int = 10_000
    depth: int = 5


async def onboard(engine: Engine, shape: Shape) -> UUID:
    """A new tenant of this shape, its limits included."""
    tenant = uuid4()
    await engine.create_tenant(
        TenantEntry(tenant, f"bench-{tenant.hex[:12]}", "Benchmark", "bench", "Europe/Berlin", "EUR"), ACTOR
    )
    await engine.apply_definition(tenant, definition(shape), ACTOR)
    return tenant


def definition(shape: Shape) -> Definition:
    nodes = [NodeDefinition("n0", "enterprise")]
    level = ["n0"]
    for _ in range(shape.depth - 2):
        fan = max(2, round(shape.devices ** (1 / (shape.depth - 1))))
        below = [(f"n{len(nodes) + place}", level[place // fan]) for place in range(fan * len(level))]
        nodes += [NodeDefinition(node, "group", parent) for node, parent in below]
        level = [node for node, _ in below]
    resources = tuple(
        ResourceDefinition(f"d{number}", level[number % len(level)], "msisdn", (line_of(number),))
        for number in range(shape.devices)
    )
    limits = tuple(
        LimitDefinition(member, usage_type, LIMIT)
        for member in [*(node.id for node in nodes), *(resource.id for resource in resources)]
        for usage_type in USAGE_TYPES
    )
    rates = [RateDefinition(usage_type, "anywhere", "0.01", per=60) for usage_type in USAGE_TYPES]
    rates += [RateDefinition("voice", f"zone {p}", "0.05", per=60, prefix=p, increment=60) for p in PREFIXES]
    return Definition(
        nodes=tuple(nodes),
        resources=resources,
        contracts=(ContractDefinition("bench", "2020-01-01", dict.fromkeys(USAGE_TYPES, GRANTED)),),
        tariffs=(TariffDefinition("bench", "2020-01-01", "EUR", tuple(rates)),),
        limits=limits,
    )


def line_of(number: int) -> str:
    return f"+447700{number:07d}"


def records(shape: Shape, count: int, now: int, seed: int) -> list[UsageRecord]:
    """Records of the last minutes, deterministic from the seed."""
    return list(_records(shape, count, now, seed))


def _records(shape: Shape, count: int, now: int, seed: int) -> Iterator[UsageRecord]:
    chance = random.Random(seed)  # noqa: S311  (a benchmark, not a secret)
    prefixes = [*PREFIXES]
    types = chance.choices(("data", "voice", "messaging", "video"), (60, 25, 10, 5), k=count)
    for usage_type in types:
        quantity = chance.randrange(1, 50_000_000) if usage_type == "data" else chance.randrange(1, 3600)
        prefix = chance.choice(prefixes) if usage_type != "data" else ""
        digits = PREFIXES.get(prefix, 1)
        counterpart = prefix and f"{prefix}{chance.randrange(2 * 10 ** (digits - 1), 10**digits)}"
        yield UsageRecord(
            "benchmark",
            UUID(int=chance.getrandbits(128)).hex,
            line_of(chance.randrange(shape.devices)),
            usage_type,
            quantity,
            now - chance.randrange(600_000_000),
            "outbound",
            counterpart,
        )
