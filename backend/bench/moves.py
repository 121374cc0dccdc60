"""How long charging is held up while a whole subtree moves: every device of an enterprise at once.

Callers charge one record each, one after the other. What is told is the longest that one of them
waited: while the subtree moved, and in as long a time before it; and while it was moved back-dated,
until all that it had used since was charged again.
"""

import asyncio
import time
from uuid import UUID

from msgspec.structs import replace

from ...domain.correcting import CorrectNodeMove
from ...domain.hierarchy import DEPTH_MAX, AddNode
from ...domain.life import MoveNode
from ...domain.usage import UsageRecord
from ..engine import Engine, wall_clock
from .workload import ACTOR, Shape, onboard, records

DEPTH = DEPTH_MAX - 1
"""At most: two sides come in between, one below the other in the end, and devices stand below the nodes."""
CALLERS = 8
BACKDATED = 20_000
"""Records to be charged again."""
SECOND, LOOK_SECONDS = 1_000_000, 0.05
ROUNDS = 6
SECONDS = 0.5
"""Charging before each move, and at least so long around it."""


async def measure(engine: Engine, shape: Shape, measured: dict[str, list[float]]) -> None:
    """Notes, of each round, the longest wait without a move and with one, in milliseconds."""
    tenant = await onboard(engine, Shape(shape.devices, min(shape.depth, DEPTH)))
    await _gather_below_one(engine, tenant)
    given = records(shape, 200_000, wall_clock(), 77)
    for number in range(ROUNDS):
        calm = await _longest(engine, tenant, given, None)
        above = "west" if number % 2 == 0 else "n0"
        moving = MoveNode("east", above)
        stalled = await _longest(engine, tenant, given, moving)
        measured.setdefault("charge_wait_ms_max", []).append(calm)
        measured.setdefault("charge_wait_during_move_ms_max", []).append(stalled)
    await _date_back(engine, tenant, given, measured)


async def _date_back(
    engine: Engine, tenant: UUID, given: list[UsageRecord], measured: dict[str, list[float]]
) -> None:
    """Usage of a moment to come is charged first, so that it lies after the last move and before now."""
    later = wall_clock() + SECOND
    used = [replace(record, started_at=later) for record in given[-BACKDATED:]]
    del given[-BACKDATED:]
    for first in range(0, BACKDATED, 500):
        await engine.charge(tenant, used[first : first + 500], ACTOR)
    await asyncio.sleep(1.5)
    above = (await engine.state(tenant)).hierarchy.by_id["east"].parent
    assert above is not None
    to = "west" if above.id != "west" else "n0"
    moving = CorrectNodeMove("bench", "east", to, later)
    began = time.perf_counter()
    stalled = await _longest(engine, tenant, given, moving)
    measured["charge_wait_during_backdated_ms_max"] = [stalled]
    measured["backdated_records_per_s"] = [BACKDATED / (time.perf_counter() - began)]


async def _gather_below_one(engine: Engine, tenant: UUID) -> None:
    hierarchy = (await engine.state(tenant)).hierarchy
    below = hierarchy.children(hierarchy.root)
    for side in ("east", "west"):
        await engine.submit(tenant, AddNode(side, "n0", side, "division"), side, ACTOR)
    for node in below:
        await engine.submit(tenant, MoveNode(node.id, "east"), f"gather {node.id}", ACTOR)


async def _longest(
    engine: Engine, tenant: UUID, given: list[UsageRecord], moving: MoveNode | CorrectNodeMove | None
) -> float:
    """Of all charges asked for within the time, in milliseconds."""
    waits: list[float] = []
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            asked = time.perf_counter()
            await engine.charge(tenant, [given.pop()], ACTOR)
            waits.append(time.perf_counter() - asked)

    callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
    await asyncio.sleep(SECONDS / 2)
    if isinstance(moving, CorrectNodeMove):
        await engine.begin_rating(tenant, moving, ACTOR)
        await _ended(engine, tenant)
    elif moving is not None:
        await engine.submit(tenant, moving, f"move {time.monotonic_ns()}", ACTOR)
    await asyncio.sleep(SECONDS / 2)
    over.set()
    await asyncio.gather(*callers)
    return max(waits) * 1e3


async def _ended(engine: Engine, tenant: UUID) -> None:
    while True:
        if not (await engine.state(tenant)).rerating.jobs:
            return
        await asyncio.sleep(LOOK_SECONDS)
