"""The workload: one enterprise balance shared by thousands of devices in a deep hierarchy.

Every member has a limit for every usage type, far away but counted; every record names a
device, is rated by a destination prefix and drawn from the enterprise's bucket.
"""

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from ...domain.contract import QUANTITY_MAX
from ...domain.hierarchy import AddNode
from ...domain.limit import SetLimit
from ...domain.limits_at_once import LIMITS_MAX, SetLimits
from ...domain.tenant import Command
from ...domain.usage import USAGE_TYPES, UsageRecord
from ...tenants.lines import InventoryLine, TakeStock
from ...tenants.onboarding import ContractDefinition, Definition, Enrol, NodeDefinition, TenantEntry, steps
from ...tenants.tariff_file import RateDefinition, TariffDefinition
from ..asking import Answer, Order, Slice
from ..engine import Engine, normal_line
from ..keys import command_key
from ..log import Group, Head
from ..writer import GROUP_MAX, Clock, Writer

ACTOR = "benchmark"
GRANTED = 2**56
LIMIT = QUANTITY_MAX
LINES_AT_ONCE = 1_000
"""Of an inventory: as many as do not keep those who charge waiting."""
UTC = ZoneInfo("UTC")
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
    todo = enumerate(_fleet(shape))

    async def hand_in() -> None:
        for number, command in todo:
            await engine.submit(tenant, command, f"fleet {number}", ACTOR)

    # Two: one is decided while the other is written. In order, for one only begins after the one before.
    await asyncio.gather(hand_in(), hand_in())
    return tenant


def definition(shape: Shape) -> Definition:
    """Nodes, contract and tariff, as an onboarding file would say it; the devices come as an inventory."""
    nodes, _ = _nodes(shape)
    rates = [RateDefinition(usage_type, "anywhere", "0.01", per=60) for usage_type in USAGE_TYPES]
    rates += [RateDefinition("voice", f"zone {p}", "0.05", per=60, prefix=p, increment=60) for p in PREFIXES]
    return Definition(
        nodes=tuple(nodes),
        contracts=(ContractDefinition("bench", "2020-01-01", dict.fromkeys(USAGE_TYPES, GRANTED)),),
        tariffs=(TariffDefinition("bench", "2020-01-01", "EUR", tuple(rates)),),
    )


def _nodes(shape: Shape) -> tuple[list[NodeDefinition], list[str]]:
    """Every node above the devices, and the lowest of them."""
    nodes = [NodeDefinition("n0", "enterprise")]
    level = ["n0"]
    for fan in _fans(shape):
        below = [(f"n{len(nodes) + place}", level[place // fan]) for place in range(fan * len(level))]
        nodes += [NodeDefinition(node, "group", parent) for node, parent in below]
        level = [node for node, _ in below]
    return nodes, level


def _fans(shape: Shape) -> Iterator[int]:
    """How many stand below each node, level by level.

    Where the devices are few for so many levels a chain leads down to those that fork: if all did,
    nodes would double with each level.
    """
    below, fan = shape.depth - 2, max(2, round(shape.devices ** (1 / (shape.depth - 1))))
    while fan > 2 and fan**below > shape.devices:
        fan -= 1  # else a deep hierarchy had more nodes than devices
    forks = min(below, shape.devices.bit_length())
    yield from repeat(1, below - forks)
    yield from repeat(fan, forks)


def commands(shape: Shape) -> Iterator[Command | Enrol]:
    """The same, one by one: for whoever wants the state, and no server."""
    nodes, level = _nodes(shape)
    for node in nodes:
        yield AddNode(node.id, node.parent, node.id, node.kind)
    for number in range(shape.devices):
        yield Enrol(f"d{number}", level[number % len(level)], "msisdn", 0, (line_of(number),))
    for step in steps(msgspec.structs.replace(definition(shape), nodes=()), UTC, normal_line):
        yield step.command
    for member, usage_type in _limited(nodes, shape):
        yield SetLimit(member, usage_type, LIMIT)


def _fleet(shape: Shape) -> Iterator[TakeStock | SetLimits]:
    """The devices, then everybody's limits, in commands of many lines."""
    nodes, level = _nodes(shape)

    def node_of(number: int) -> str:
        return level[number % len(level)]

    devices = (
        InventoryLine(
            number + 1, f"d{number}", level[number % len(level)], "msisdn", None, 1, (line_of(number),)
        )
        for number in range(shape.devices)
    )
    while lines := tuple(islice(devices, LINES_AT_ONCE)):
        yield TakeStock(lines)
    limits = (SetLimit(member, usage_type, LIMIT) for member, usage_type in _limited(nodes, shape))
    while some := tuple(islice(limits, LIMITS_MAX)):
        yield SetLimits(some)


def _limited(nodes: Sequence[NodeDefinition], shape: Shape) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield from ((node.id, usage_type) for usage_type in USAGE_TYPES)
    for number in range(shape.devices):
        yield from ((f"d{number}", usage_type) for usage_type in USAGE_TYPES)


async def furnish(writer: Writer, todo: Iterator[Command | Enrol], clock: Clock) -> None:
    """Store what many commands lead to, through the writer's decider and log but without its inbox.

    A caller with a future of its own for each of five million commands would take longer than
    deciding them. Nobody else may use the tenant meanwhile.
    """
    decider, number = writer._deciding(), 0
    while some := list(islice(todo, GROUP_MAX)):
        asked = Slice()
        asked.add(
            [Order(command, command_key(f"furnish {number + place}")) for place, command in enumerate(some)],
            ACTOR,
        )
        number += len(some)
        now = clock()
        decider.recorded_at = max(decider.recorded_at, now)
        group = Group(writer.tenant_id, decider.head, decider.recorded_at)
        if any(not isinstance(answer, Answer) for answer in decider.decide(asked, group, now)):
            raise AssertionError("the workload is accepted")
        group.subject_keys = decider.sealer.take_unsaved()
        await asyncio.to_thread(writer.store.append, group)
        decider.head = Head(group.last, group.epoch, group.peaks)


CLOCK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
"""In which the system counts processor time."""


def rss_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
