"""Charges in brief: what counting needs of each, for those who read millions of them.

The fields are the first of `UsageCharged`, under the same names: what follows them, the exact
amount and what is sealed, is not even looked at.
"""

from typing import Literal

from msgspec import Struct

from .charging import UsageCharged
from .events import Envelope
from .hierarchy import Path


class ChargeInBrief(Struct, frozen=True, array_like=True, gc=False):
    """See `UsageCharged`. Where a text is one of few it is not made again for each charge."""

    source: str
    record_id: str
    path: Path
    usage_type: Literal["data", "voice", "messaging", "video"]
    period: str
    started_at: int
    direction: Literal["outbound", "inbound"]
    quantity: int
    billed: int
    tariff: int
    rate: int
    prefix: str
    zone: str
    payer: str
    steering: str
    drawn: tuple[tuple[int, int], ...]
    overage: int
    amount: int


assert (
    ChargeInBrief.__struct_fields__ == UsageCharged.__struct_fields__[: len(ChargeInBrief.__struct_fields__)]
)

Charge = UsageCharged | ChargeInBrief
Charged = Envelope[UsageCharged] | Envelope[ChargeInBrief]
