"""The product and a second, naive implementation come to the same figures, whatever the tariff."""

import json
from fractions import Fraction
from random import Random
from zoneinfo import ZoneInfo

import pytest
from domain.rating.oracle import rated
from domain.rating.tariffs import tariff_by_chance, usage_by_chance

from allotment.domain.rating.shaped import ShapedRate
from allotment.domain.rating.working import working
from allotment.domain.tariff import Tariff, published_as
from allotment.tenants.definition import DefinitionError
from allotment.tenants.tariff_file import usable_tariff

USES = 20
"""Of each tariff."""


def compiled(written: dict) -> Tariff | None:
    """None for what the rules refuse: a band that is never reached."""
    try:
        command = usable_tariff(json.dumps(written).encode(), ZoneInfo("UTC"))
    except DefinitionError as error:
        if not any(word in str(error) for word in ("never reached", "given twice", "is in zone")):
            raise
        return None
    return Tariff(published_as(command, 1, "UTC"))


def compare(tariff: Tariff, written: dict, usage: dict, chance: Random) -> bool:
    attributes = tuple(sorted(usage["attributes"].items()))
    about = (usage["usage_type"], usage["direction"], usage["counterpart"], usage["started_at"])
    found = tariff.find(*about, usage["line"], attributes)
    whole = rated(written, usage)
    assert (found is None) == (whole is None)
    if found is None:
        return False
    billed = found.billed(usage["quantity"])
    taken = chance.choice([0, 0, min(1, billed), billed // 3, billed])
    expected = rated(written, usage, taken)
    got = found.rate(billed, taken, usage["started_at"])
    assert (billed, Fraction(*got.exact), got.amount) == expected
    parts = working(found, billed, taken, usage["started_at"])
    assert sum((part.exact for part in parts), Fraction()) == expected[1]
    again = tariff.rate_of(found.index, found.prefix, found.basis)
    assert again.rate(again.billed(usage["quantity"]), taken, usage["started_at"]) == got
    assert tariff.has_prefix(found.index, found.prefix)
    return isinstance(found, ShapedRate)


def agree(seed: int, pairs: int) -> int:
    """How many were rated by something that is not plain."""
    chance, shaped, done = Random(seed), 0, 0
    while done < pairs:
        written = tariff_by_chance(chance)
        tariff = compiled(written)
        for _ in range(USES if tariff is not None else 0):
            shaped += compare(tariff, written, usage_by_chance(chance, written), chance)
            done += 1
    return shaped


def test_a_naive_implementation_agrees_on_tariffs_and_usage_by_chance():
    assert agree(1, 1_000) > 600


@pytest.mark.soak
def test_a_naive_implementation_agrees_on_a_hundred_thousand_pairs():
    assert agree(2026, 100_000) > 60_000
