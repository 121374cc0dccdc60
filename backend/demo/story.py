"""The demonstration's story: what an allowance goes through, told in figures that are looked up.

What is told was read back from the log or the state, and each chapter says whether it happened
as the story has it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from ...domain.bucket import Trade
from ...domain.limit import ThresholdCrossed
from ..commands.output import amount
from ..engine import Engine
from ..explaining import explained
from ..following import catch_up
from ..keys import usage_key
from ..log import PostgresLog, replay
from ..running import Product
from . import traffic
from .enterprises import GB, LENDER, POOL, POOL_BYTES
from .hearing import listening
from .looking import look_at_the_month, size_the_next_contract
from .managing import divide, move_a_crew, rule_calls, trade_with_approval
from .stage import Chapter, Stage, Tell, charge, pool_left

MANAGER = "telecoms_manager:demo"
Telling = Callable[[Product, Engine, Stage], Awaitable[Chapter]]


async def play(product: Product, engine: Engine, stage: Stage, tell: Tell) -> None:
    """From a full pool to a verified log."""
    managing = (divide, trade_with_approval, rule_calls, move_a_crew)
    looking = (look_at_the_month, size_the_next_contract)
    async with listening(product, engine, stage) as listeners:
        warned = (_burn_down, _threshold, listeners.crossing_told)
        await _play(product, engine, stage, tell, warned)
    await _play(product, engine, stage, tell, (_trade, _limit, _suspense, _explanation, *managing, *looking))


async def _play(
    product: Product, engine: Engine, stage: Stage, tell: Tell, chapters: Sequence[Telling]
) -> None:
    for chapter in chapters:
        told = await chapter(product, engine, stage)
        stage.chapters.append(told)
        tell(told.told)


async def _burn_down(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """Three tablets drink from the same pool."""
    before = await pool_left(engine, stage, POOL)
    await _use(engine, stage, [3 * GB, 3 * GB, 2 * GB])
    after = await pool_left(engine, stage, POOL)
    told = f"Three tablets share the pool of {POOL}: it burns down from {_data(before)} to {_data(after)}."
    return Chapter("pool_burns_down", before - after == 8 * GB, told, _facts(before=before, after=after))


async def _threshold(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """The 80 % warning comes with the record that crosses it, and not again with the next."""
    await _use(engine, stage, [GB])
    crossings = await engine.in_thread(lambda: _crossings(product, stage))
    mine = [one for one in crossings if (one.node, one.period, one.percent) == (POOL, stage.period, 80)]
    told = (
        f"At 80 % of its limit of {_data(POOL_BYTES)} {POOL} is warned, {len(mine)} time"
        f"{'' if len(mine) == 1 else 's'}, though {_data(9 * GB)} are used by now."
    )
    return Chapter(
        "threshold_fires_once", len(mine) == 1, told, _facts(node=POOL, percent=80, fired=len(mine))
    )


def _crossings(product: Product, stage: Stage) -> list[ThresholdCrossed]:
    log = PostgresLog(product.isolation, stage.entries[0].tenant_id)
    return [told.event for told in replay(log) if isinstance(told.event, ThresholdCrossed)]


async def _trade(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """What one crew does not need, another gets; together they have what they had."""
    before = [await pool_left(engine, stage, node) for node in (LENDER, POOL)]
    command = Trade(LENDER, POOL, "data", stage.period, 2 * GB, "crew 2 is on leave")
    answer = await engine.submit(stage.entries[0].tenant_id, command, f"demo-trade-{uuid4()}", MANAGER)
    after = [await pool_left(engine, stage, node) for node in (LENDER, POOL)]
    moved = after[1] - before[1]
    told = (
        f"{LENDER} trades {_data(moved)} to {POOL}: {_data(before[0])} + {_data(before[1])} become"
        f" {_data(after[0])} + {_data(after[1])} (event {answer.first_seq})."
    )
    return Chapter(
        "trade_moves_quantity", moved == 2 * GB and sum(before) == sum(after), told,
        _facts(source=LENDER, target=POOL, quantity=moved, seq=answer.first_seq),
    )  # fmt: skip


async def _limit(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """The pool has enough again, but the limit stands."""
    ident = await _use(engine, stage, [3 * GB])
    told = await _told_of(engine, stage, ident)
    stop = (told or {}).get("stop") or {}
    node = (stop.get("node") or {}).get("id", "")
    sentence = (
        f"Another {_data(3 * GB)} would fit the pool, but not the limit of {node}:"
        f" refused ({stop.get('reason')}), {node} stopped it at {_data(int(stop.get('used', 0)))} used"
        f" of {_data(int(stop.get('limit', 0)))}."
    )
    facts = _facts(node=node, reason=stop.get("reason"), used=int(stop.get("used", 0)), usage_id=ident)
    return Chapter("limit_refuses", node == POOL and stop.get("reason") == "limit_exceeded", sentence, facts)


async def _suspense(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """A line that nobody has is not lost, and not charged to anybody."""
    told = traffic.use(
        f"story-{uuid4()}", "+447700900999", "voice", 75, _now(engine), counterpart="+442079460123"
    )
    report = await charge(engine, stage, stage.entries[0], traffic.stream_of([told]))
    ident = usage_key(told["source"], told["id"], _start_of(told)).hex()
    found = await _told_of(engine, stage, ident) or {}
    why = found.get("suspension") or {}
    sentence = f"A call of a line nobody has waits in suspense: {why.get('reason')}, {why.get('detail')}."
    return Chapter(
        "record_in_suspense",
        report.suspended == 1,
        sentence,
        _facts(reason=why.get("reason"), usage_id=ident),
    )


async def _explanation(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """A call that no allowance covers, with its working."""
    line = next(one for one in stage.cast[0].mobiles if one.startswith("+4930"))
    told = traffic.use(f"story-{uuid4()}", line, "voice", 61, _now(engine), counterpart="+881623456789")
    await charge(engine, stage, stage.entries[0], traffic.stream_of([told]))
    ident = usage_key(told["source"], told["id"], _start_of(told)).hex()
    found = await _told_of(engine, stage, ident) or {}
    rating = found.get("rating") or {}
    sentence = (
        f"Explained: {found.get('sentence')} 61 s are billed as {rating.get('billed')} s by"
        f" {rating.get('tariff')} v{rating.get('tariffVersion')}, prefix {rating.get('prefix')}"
        f" ({rating.get('zone')}): {rating.get('connectFee')} to connect and {rating.get('price')}"
        f" per {rating.get('per')} s make {found.get('amount')} {found.get('currency')}."
    )
    facts = _facts(
        usage_id=ident, amount=found.get("amount"), prefix=rating.get("prefix"), zone=rating.get("zone")
    )
    return Chapter("record_explained", found.get("amount") == "9.500000", sentence, facts)


async def explain_one(engine: Engine, stage: Stage, product: Product, tell: Tell) -> None:
    """The newest charge, for a story that plays somebody's own file."""
    tenant = stage.entries[0].tenant_id
    ident = await engine.in_thread(lambda: _newest_charge(product, tenant))
    if ident is None:
        tell("Nothing of the file could be charged, so there is no charge to explain.")
        return
    told = await explained(engine, tenant, ident) or {}
    sentence = f"Explained: {told.get('sentence')}"
    facts = _facts(usage_id=ident, amount=told.get("amount"))
    stage.chapters.append(Chapter("record_explained", bool(told), sentence, facts))
    tell(sentence)


def _newest_charge(product: Product, tenant: UUID) -> str | None:
    catch_up(product.isolation, tenant)
    with product.isolation.transaction(tenant) as db:
        found = db.execute(
            "SELECT usage_id FROM usages WHERE status = 'charged' ORDER BY amount DESC, seq DESC LIMIT 1"
        ).fetchone()
    return found[0].hex() if found else None


async def _use(engine: Engine, stage: Stage, quantities: list[int]) -> str:
    """Data of the pool's tablets, one after the other; the id of the last record."""
    lines = traffic.tablets_of(POOL, stage.cast[0])
    told = [
        traffic.use(f"story-{uuid4()}", line, "data", quantity, _now(engine))
        for line, quantity in zip(lines, quantities, strict=False)
    ]
    await charge(engine, stage, stage.entries[0], traffic.stream_of(told))
    return usage_key(told[-1]["source"], told[-1]["id"], _start_of(told[-1])).hex()


async def _told_of(engine: Engine, stage: Stage, ident: str) -> dict[str, Any] | None:
    return await explained(engine, stage.entries[0].tenant_id, ident)


def _now(engine: Engine) -> datetime:
    return datetime.fromtimestamp(engine.clock() // 1_000_000, UTC)


def _start_of(told: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(told["start"]).timestamp()) * 1_000_000


def _data(quantity: int) -> str:
    return amount(quantity, "data")


def _facts(**facts: Any) -> dict[str, Any]:
    return facts
