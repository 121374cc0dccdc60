"""Charges in brief: what counting needs of each, for those who read millions of them.

The fields are those of `UsageCharged`, under the same names: the exact amount and what is sealed
are passed over.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from .charging import UsageCharged
from .events import Envelope
from .hierarchy import Path
from .rating.basis import Basis

NOT_TOLD = msgspec.Raw(b"\xc0")


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
    exact: msgspec.Raw
    sealed: msgspec.Raw
    credit: tuple[tuple[int, int], ...] = ()
    ruling: msgspec.Raw = NOT_TOLD
    basis: Basis | None = None


class ChargeOfAnyType(ChargeInBrief, frozen=True, array_like=True, gc=False):
    """The same for tenants whose carrier has defined types of its own."""

    usage_type: str  # type: ignore[assignment]


assert ChargeOfAnyType.__struct_fields__ == ChargeInBrief.__struct_fields__
assert (
    ChargeInBrief.__struct_fields__ == UsageCharged.__struct_fields__[: len(ChargeInBrief.__struct_fields__)]
)

Charge = UsageCharged | ChargeInBrief
Charged = Envelope[UsageCharged] | Envelope[ChargeInBrief]
