"""Numbers of lines and parties, in the one form that everything downstream compares.

A public number becomes E.164. An extension, a short code, a SIP identity or a name stays what it
is, in lower case. A number with digits kept secret becomes E.164 with an "x" for each of them, so that
it is rated by what can be seen of it. The same text always gives the same number.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    SUPPORTED_REGIONS,
    NumberParseException,
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    is_valid_number,
    parse,
)

NUMBERS_KEPT = 1 << 18
"""Parsing costs some 50 us, and a file names the same parties again and again."""

_SEPARATORS = str.maketrans("", "", " -.()/\u00a0")
_PUBLIC = re.compile(r"\+?[0-9]{1,20}")


@lru_cache(NUMBERS_KEPT)
def normal_number(text: str, region: str, extension_digits_max: int) -> str:
    """`region` is the country in which a number without "+" was dialled, or ""."""
    return number_of(text, region, extension_digits_max)


def number_of(text: str, region: str, extension_digits_max: int, masked: str = "") -> str:
    """As `normal_number`, for who remembers what was found.

    `masked` are the characters that stand for digits kept secret.
    """
    if text[:1] == "+" and text[1:].isdecimal() and text.isascii() and len(text) <= 21:
        return text if _is_settled(text) else _international(text, None) or text
    number = text.removeprefix("tel:").partition(";")[0] if text.startswith("tel:") else text
    digits = number.translate(_SEPARATORS)
    if masked and any(mark in digits for mark in masked):
        return _partly_seen(digits, region, extension_digits_max, masked) or text.lower()
    if not _PUBLIC.fullmatch(digits):
        return text.lower()
    if digits.startswith("+"):
        return digits if _is_settled(digits) else _international(digits, None) or digits
    if not region or len(digits) <= extension_digits_max:
        return digits
    return _international(digits, region) or digits


def _partly_seen(digits: str, region: str, extension_digits_max: int, masked: str) -> str:
    """The number with an "x" for each secret digit, which stay at the same distance from its end."""
    filled = "".join("0" if mark in masked else mark for mark in digits)
    if not _PUBLIC.fullmatch(filled):
        return ""
    if filled.startswith("+"):
        found = _international(filled, None)
    elif region and len(filled) > extension_digits_max:
        found = _international(filled, region, is_possible_number)
    else:
        found = ""
    seen = list(found or filled)
    for i in range(1, min(len(seen), len(digits)) + 1):
        if digits[-i] in masked:
            seen[-i] = "x"
    return "".join(seen)


def _international(
    digits: str, region: str | None, is_meant: Callable[[PhoneNumber], bool] = is_valid_number
) -> str:
    try:
        number = parse(digits, region)
    except NumberParseException:
        return ""
    # Somebody who writes "+" means a public number, even one younger than our number plans;
    # plain digits must be one, or they are an extension of some length.
    if not (is_meant(number) if region else is_possible_number(number)):
        return ""
    return format_number(number, PhoneNumberFormat.E164)


def _is_settled(digits: str) -> bool:
    """Whether an international number stays what it is, without being parsed: most do.

    Its country has a plan, and it begins with nothing that this plan would take off or treat apart; or
    too little would be left: a Russian number of usual length that begins with 8 has no trunk prefix.
    Whether it is a possible number then makes no difference: an impossible one stays, too.
    """
    for end in (2, 3, 4):
        stripped = _stripped(digits[1:end])
        if stripped is not None:
            taken_off = stripped.match(digits, end)
            return not taken_off or len(digits) - taken_off.end() < _left_least(
                digits[1:end], digits[end : end + 1]
            )
    return False


@cache
def _stripped(calling_code: str) -> re.Pattern[str] | None:
    """What the plan of a country would take off the beginning of a national number.

    None where these one to three digits are no country's: no calling code begins another.
    """
    taken_off = _taken_off(calling_code)
    return re.compile(taken_off) if taken_off else None


def _taken_off(calling_code: str) -> str:
    regions = COUNTRY_CODE_TO_REGION_CODE.get(int(calling_code or "0"), ())
    metadata = PhoneMetadata.metadata_for_region(regions[0]) if regions else None
    if calling_code.startswith("0") or metadata is None:
        return ""
    prefix = metadata.national_prefix_for_parsing
    return f"0|{prefix}" if prefix else "0"  # leading zeros have rules of their own


@cache
def _left_least(calling_code: str, first: str) -> int:
    """Digits that must be left when something is taken off a number of this first digit; 0: any may be."""
    region = COUNTRY_CODE_TO_REGION_CODE[int(calling_code)][0]
    metadata = PhoneMetadata.metadata_for_region(region)
    if first == "0" or metadata is None or metadata.national_prefix_transform_rule:
        return 0
    every = metadata.general_desc
    return min(every.possible_length) if every is not None and every.possible_length else 0


BEGINNINGS: list[bytes | None] = [None] * 1_000
"""What `beginning` says of the first three digits, where it has been asked."""


def beginning(three: str) -> bytes:
    """How native code tells that an international number of these first three digits is settled.

    The length of the calling code, then each text that must not follow it, after its length, all in digits;
    nothing where `_is_settled` has to be asked, because the plan takes off more than fixed digits.
    """
    taken_off = next(((size, found) for size in (1, 2, 3) if (found := _taken_off(three[:size]))), None)
    if taken_off is None:
        return b""
    size, texts = taken_off[0], taken_off[1].split("|")
    if not all(text.isdecimal() and len(text) <= 9 for text in texts):
        return b""
    return "".join([str(size), *(f"{len(text)}{text}" for text in texts)]).encode()


def is_region(region: str) -> bool:
    """Whether national numbers of this country can be told apart."""
    return region in SUPPORTED_REGIONS
