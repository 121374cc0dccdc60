"""Numbers of lines and parties, in the one form that everything downstream compares.

A public number becomes E.164. An extension, a short code, a SIP identity or a name stays what it
is, in lower case. The same text always gives the same number.
"""

import re
from functools import lru_cache

from phonenumbers import (
    SUPPORTED_REGIONS,
    NumberParseException,
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
    number = text.removeprefix("tel:").partition(";")[0] if text.startswith("tel:") else text
    digits = number.translate(_SEPARATORS)
    if not _PUBLIC.fullmatch(digits):
        return text.lower()
    if digits.startswith("+"):
        return _international(digits, None) or digits
    if not region or len(digits) <= extension_digits_max:
        return digits
    return _international(digits, region) or digits


def _international(digits: str, region: str | None) -> str:
    try:
        number = parse(digits, region)
    except NumberParseException:
        return ""
    # Somebody who writes "+" means a public number, even one younger than our number plans;
    # plain digits must be one, or they are an extension of some length.
    if not (is_valid_number(number) if region else is_possible_number(number)):
        return ""
    return format_number(number, PhoneNumberFormat.E164)


def is_region(region: str) -> bool:
    """Whether national numbers of this country can be told apart."""
    return region in SUPPORTED_REGIONS
