"""The examples of docs/plans-and-fees.md, as parts of one tariff file."""

import json
import re
from pathlib import Path
from zoneinfo import ZoneInfo

from allotment.tenants.tariff_file import usable_tariff

TEXT = (Path(__file__).parent.parent / "docs" / "plans-and-fees.md").read_text(encoding="utf-8")


def test_the_examples_are_one_tariff_that_can_be_published():
    blocks = [
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    ]
    rate, *plans = [block for block in blocks if isinstance(block, dict)]
    (fees,) = (block for block in blocks if isinstance(block, list))
    assert {plan["kind"] for plan in plans} == {"graduated", "volume", "package", "spend"}
    file = {"id": "t", "valid_from": "2026-01-01", "currency": "EUR", "rates": [rate], "plans": plans}
    usable_tariff(json.dumps({**file, "fees": fees}).encode(), ZoneInfo("UTC"))
