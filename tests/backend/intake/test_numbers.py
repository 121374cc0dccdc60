"""One form for each number."""

import random

import pytest
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

from allotment.backend.intake import numbers
from allotment.backend.intake.numbers import normal_number, number_of


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("", "GB", ""),
        ("+442071838750", "", "+442071838750"),
        ("+44 (0)20 7183-8750", "", "+442071838750"),
        ("tel:+44-20-7183-8750;phone-context=x", "", "+442071838750"),
        ("020 7183 8750", "GB", "+442071838750"),
        ("0044 20 7183 8750", "GB", "+442071838750"),
        ("020 7183 8750", "", "02071838750"),
        ("011 44 20 7183 8750", "US", "+442071838750"),
        ("+13051416799", "", "+13051416799"),
        ("+1234", "", "+1234"),
        ("100", "GB", "100"),
        ("999", "GB", "999"),
        ("123456", "DE", "123456"),
        ("99999999", "GB", "99999999"),
        ("*100#", "GB", "*100#"),
        ("SIP:Alice@Example.com", "GB", "sip:alice@example.com"),
        ("Alice", "", "alice"),
        ("anonymous", "GB", "anonymous"),
    ],
)
def test_a_public_number_is_e164_and_anything_else_stays(text: str, region: str, number: str) -> None:
    assert normal_number(text, region, 6) == number


def test_what_is_not_parsed_is_what_parsing_gives() -> None:
    chance, settled = random.Random(44), 0
    codes = [*map(str, COUNTRY_CODE_TO_REGION_CODE), "", "0", "999"]
    for _ in range(4_000):
        tail = "".join(chance.choices("0123456789", k=chance.randrange(17)))
        digits = f"+{chance.choice(codes)}{tail}"
        if numbers._is_settled(digits):
            settled += 1
            assert (numbers._international(digits, None) or digits) == digits
    assert settled > 2_000


@pytest.mark.parametrize(
    ("digits", "is_settled"),
    [
        ("+78123456789", True),
        ("+788123456789", False),
        ("+13051416799", True),
        ("+1305141679", True),
        ("+113051416799", False),
        ("+44020718387", False),
    ],
)
def test_a_trunk_prefix_is_one_only_where_a_number_is_left_behind_it(digits: str, is_settled: bool) -> None:
    assert numbers._is_settled(digits) == is_settled


def test_what_begins_like_a_trunk_prefix_is_what_parsing_gives() -> None:
    chance = random.Random(7)
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        metadata = PhoneMetadata.metadata_for_region(regions[0])
        prefix = (metadata.national_prefix or "8") if metadata else "8"
        for size in range(16):
            digits = f"+{code}{prefix}{''.join(chance.choices('0123456789', k=size))}"
            if numbers._is_settled(digits):
                assert (numbers._international(digits, None) or digits) == digits


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("+44207183****", "", "+44207183xxxx"),
        ("+44 20 7183 ****", "", "+44207183xxxx"),
        ("0207183****", "GB", "+44207183xxxx"),
        ("00442071******", "GB", "+442071xxxxxx"),
        ("0207183****", "", "0207183xxxx"),
        ("+4420****8750", "", "+4420xxxx8750"),
        ("12**", "GB", "12xx"),
        ("****", "GB", "xxxx"),
        ("ann*", "GB", "ann*"),
        ("+442071838750", "GB", "+442071838750"),
    ],
)
def test_secret_digits_stay_where_they_are_and_the_rest_is_international(
    text: str, region: str, number: str
) -> None:
    assert number_of(text, region, 6, "*") == number
