"""A number of which some digits are secret is rated by those that can be seen."""

import pytest

from allotment.backend.intake.numbers import number_of
from allotment.domain.tariff import Rate, Tariff, TariffPublished

RATES = (
    Rate("voice", "world", "1", 60, ""),
    Rate("voice", "uk", "0.05", 60, "+44"),
    Rate("voice", "london", "0.04", 60, "+4420"),
    Rate("voice", "office", "0.01", 60, "+442071838750"),
)


@pytest.mark.parametrize(
    ("written", "zone"),
    [
        ("+44207183****", "london"),
        ("0207183****", "london"),
        ("+442*********", "uk"),
        ("+4**********", "world"),
        ("***********", "world"),
        ("+442071838750", "office"),
    ],
)
def test_the_longest_prefix_that_can_be_seen_counts(written: str, zone: str) -> None:
    tariff = Tariff(TariffPublished("t", 1, 0, "GBP", "half_up", 2, RATES))
    found = tariff.find("voice", "outbound", number_of(written, "GB", 6, "*"))
    assert found is not None
    assert found.zone == zone
