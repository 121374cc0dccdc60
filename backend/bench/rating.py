"""Tariffs of many prefixes: how long one takes to load, and whether rating by it is any slower.

Fifty thousand prefixes of some four thousand destinations, beside the fifty that are called most and one
price for the rest. Both rate the same calls: most go to few destinations, as in usage, and all to
numbers that are different. They are asked in turns, many times, by the time of the processor:
what else runs on the machine slows both, and the median leaves out what hits one alone.
"""

import gc
import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from statistics import median, quantiles
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

from ...domain.charging import find_rate
from ...domain.tariff import Tariff, check_tariff, published_as
from ...domain.usage import UsageRecord
from ...tenants.tariff_file import parse_tariff, tariff_command

LARGE, SMALL = 50_000, 50
PREFIXES_OF_A_ZONE = 12
PAIRS = 101
CALLS = 5_000
STARTED_AT = 1_800_000_000_000_000
STEEPNESS = 1.1
"""The destination that is called k-th most is called 1 / k ** this as often as the first."""


def tariff_text(called: Sequence[int], world: str = "") -> bytes:
    """A tariff file with a prefix for each destination, a zone for every dozen; `world`: one for the rest."""
    dozens = [called[at : at + PREFIXES_OF_A_ZONE] for at in range(0, len(called), PREFIXES_OF_A_ZONE)]
    zones = [
        {"name": f"zone {place}", "prefixes": [prefix_of(one) for one in dozen]}
        for place, dozen in enumerate(dozens)
    ]
    rates = [_rate(f"zone {place}", place) for place in range(len(zones))]
    if world:
        rates.append({**_rate("world", 0), "prefix": world})
    told = {"id": "bench", "valid_from": "2026-01-01", "currency": "EUR", "rates": rates, "zones": zones}
    return json.dumps(told).encode()


def _rate(zone: str, place: int) -> dict[str, Any]:
    price = f"0.{place % 97 + 1:02d}"
    return {"usage_type": "voice", "zone": zone, "price": price, "per": 60, "increment": 60}


def prefix_of(destination: int) -> str:
    return f"+{1_000_000 + 17 * destination}"


def usual_calls(chance: Random) -> tuple[list[int], list[UsageRecord]]:
    """The destinations by how much they are called, and calls to them."""
    order = chance.sample(range(LARGE), LARGE)
    often = list(accumulate(1 / place**STEEPNESS for place in range(1, LARGE + 1)))
    called = chance.choices(order, cum_weights=often, k=CALLS)
    return order, [
        UsageRecord("bench", str(n), "", "voice", 61, STARTED_AT, "outbound", f"{prefix_of(one)}{n:04d}")
        for n, one in enumerate(called)
    ]


def load(text: bytes) -> Tariff:
    """From the file to the first rate found."""
    command = tariff_command(parse_tariff(text), ZoneInfo("UTC"))
    check_tariff(command)
    tariff = Tariff(published_as(command, 1, "UTC"))
    tariff.find("voice", "outbound", "+0")
    return tariff


def run(say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    order, calls = usual_calls(Random(50))  # noqa: S311  (any numbers will do)
    text = tariff_text(range(LARGE))
    loads = []
    for _ in range(3):
        started = process_time()
        large = load(text)
        loads.append((process_time() - started) * 1_000)
    say(f"loaded {LARGE:,} prefixes")
    ratios, spent = compared(large, load(tariff_text(order[:SMALL], "+")), calls)
    return {
        "load_ms_50000_prefixes": median(loads),
        "rate_ratio_50000_to_50": median(ratios),
        "rate_us_50000_prefixes": median(spent),
        "spread": {
            "load_ms_50000_prefixes": (min(loads), max(loads)),
            "rate_ratio_50000_to_50": _middle(ratios),
            "rate_us_50000_prefixes": _middle(spent),
        },
    }


def compared(
    large: Tariff, small: Tariff, calls: Sequence[UsageRecord], pairs: int = PAIRS
) -> tuple[list[float], list[float]]:
    """By pair: how much longer the large one takes, and its microseconds for each call."""
    ratios, spent = [], []
    gc.collect()
    for tariff in (large, small):
        _rated(tariff, calls)
    for turn in range(pairs):
        # Each is first as often: who is second finds the calls at hand.
        first, second = (large, small) if turn % 2 else (small, large)
        took = {id(tariff): _rated(tariff, calls) for tariff in (first, second)}
        ratios.append(took[id(large)] / took[id(small)])
        spent.append(took[id(large)] / len(calls) * 1_000_000)
    return ratios, spent


def _middle(figures: list[float]) -> tuple[float, float]:
    """The half in the middle: from the first quartile to the third."""
    first, _, third = quantiles(figures, n=4)
    return first, third


def _rated(tariff: Tariff, calls: Sequence[UsageRecord]) -> float:
    started = process_time()
    for call in calls:
        rate = find_rate(tariff, call)
        assert rate is not None
        rate.rate(rate.billed(call.quantity), 0, call.started_at)
    return process_time() - started
