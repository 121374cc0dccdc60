"""Tariffs of many prefixes: how long one takes to load, and whether rating by it is any slower.

Fifty thousand prefixes of some four thousand destinations, beside fifty. Both are asked in turns,
for numbers that are all different, by the time of the processor: what else runs does not count.
"""

import gc
import json
from collections.abc import Callable
from random import Random
from statistics import median
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

from ...domain.tariff import Tariff, check_tariff, published_as
from ...tenants.tariff_file import parse_tariff, tariff_command

LARGE, SMALL = 50_000, 50
PREFIXES_OF_A_ZONE = 12
ROUNDS = 15
LOOK_UPS = 20_000
NUMBERS = 2_000
"""Other numbers come again, as in usage."""


def tariff_text(prefixes: int) -> bytes:
    """A tariff file with so many prefixes, a zone for every dozen."""
    names = [f"zone {first}" for first in range(0, prefixes, PREFIXES_OF_A_ZONE)]
    zones = [
        {
            "name": name,
            "prefixes": [
                f"+{1_000_000 + 17 * n}" for n in range(first, min(first + PREFIXES_OF_A_ZONE, prefixes))
            ],
        }
        for name, first in zip(names, range(0, prefixes, PREFIXES_OF_A_ZONE), strict=True)
    ]
    rates = [
        {"usage_type": "voice", "zone": name, "price": f"0.{place % 97 + 1:02d}", "per": 60, "increment": 60}
        for place, name in enumerate(names)
    ]
    told = {"id": "bench", "valid_from": "2026-01-01", "currency": "EUR", "rates": rates, "zones": zones}
    return json.dumps(told).encode()


def load(text: bytes) -> Tariff:
    """From the file to the first rate found."""
    command = tariff_command(parse_tariff(text), ZoneInfo("UTC"))
    check_tariff(command)
    tariff = Tariff(published_as(command, 1, "UTC"))
    tariff.find("voice", "outbound", "+0")
    return tariff


def run(say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    texts = {LARGE: tariff_text(LARGE), SMALL: tariff_text(SMALL)}
    loads = []
    for _ in range(3):
        started = process_time()
        large = load(texts[LARGE])
        loads.append((process_time() - started) * 1_000)
    say(f"loaded {LARGE:,} prefixes")
    tariffs = {LARGE: large, SMALL: load(texts[SMALL])}
    called = {count: _numbers(count) for count in tariffs}
    ratios, spent = [], []
    gc.collect()
    for _ in range(ROUNDS):
        # One after the other, so that a slower stretch of the machine is slow for both.
        took = {count: _rated(tariff, called[count]) for count, tariff in tariffs.items()}
        ratios.append(took[LARGE] / took[SMALL])
        spent.append(took[LARGE] / LOOK_UPS * 1_000_000)
    return {
        "load_ms_50000_prefixes": median(loads),
        "rate_ratio_50000_to_50": median(ratios),
        "rate_us_50000_prefixes": median(spent),
        "spread": {
            "load_ms_50000_prefixes": (min(loads), max(loads)),
            "rate_ratio_50000_to_50": (min(ratios), max(ratios)),
            "rate_us_50000_prefixes": (min(spent), max(spent)),
        },
    }


def _numbers(prefixes: int) -> list[str]:
    chance = Random(prefixes)  # noqa: S311  (any numbers will do)
    return [
        f"+{1_000_000 + 17 * chance.randrange(prefixes)}{chance.randrange(10_000):04d}"
        for _ in range(NUMBERS)
    ]


def _rated(tariff: Tariff, numbers: list[str]) -> float:
    started = process_time()
    for place in range(LOOK_UPS):
        rate = tariff.find("voice", "outbound", numbers[place % NUMBERS])
        assert rate is not None
        rate.rate(rate.billed(61))
    return process_time() - started
