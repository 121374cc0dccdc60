"""Decoding charges whose texts are mostly few: sources, periods, zones, prefixes are learned as they are met.

A text that is known is not made again for each charge: it is found, and is the same object wherever it
stands, so that it need not be hashed and compared letter by letter either. That takes a third off what
decoding costs. A text that is not known yet fails, is decoded as any text, and is known from then on.
Where a field has too many different texts it is decoded as any text for good.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from ..domain.brief import ChargeInBrief
from ..domain.events import Envelope

TEXTS = ("source", "period", "prefix", "zone", "payer", "steering")
TEXTS_MAX = 256
"""Different texts of a field that are learned: a look-up among more would cost what it saves."""

Charges = list[Envelope[ChargeInBrief]]
Decode = Callable[[bytes], Charges]

decode_any_texts: Decode = msgspec.msgpack.Decoder(Charges).decode


class LearnedTexts:
    """Decodes arrays of charges, and learns from them. Several threads may use it."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {name: frozenset() for name in TEXTS}
        """By field; one that has too many is not among them."""
        self._decode: Decode | None = None

    def decode(self, array: bytes) -> Charges:
        """Raises what the decoder of any texts raises."""
        decode = self._decode
        if decode is not None:
            try:
                return decode(array)
            except msgspec.ValidationError:
                pass
        charges = decode_any_texts(array)
        if charges:
            self._learn(charges)
        return charges

    def _learn(self, charges: Sequence[Envelope[ChargeInBrief]]) -> None:
        events = [envelope.event for envelope in charges]
        known = {
            name: texts.union([getattr(event, name) for event in events])
            for name, texts in self._known.items()
        }
        self._known = {name: texts for name, texts in known.items() if len(texts) <= TEXTS_MAX}
        self._decode = _decoder(self._known) if self._known else decode_any_texts


def _decoder(known: dict[str, frozenset[str]]) -> Decode:
    fields: list[tuple[str, Any]] = [(name, Literal[tuple(sorted(texts))]) for name, texts in known.items()]
    kind = msgspec.defstruct(
        "LearnedCharge", fields, bases=(ChargeInBrief,), frozen=True, array_like=True, gc=False
    )
    assert kind.__struct_fields__ == ChargeInBrief.__struct_fields__
    decode: Decode = msgspec.msgpack.Decoder(list[Envelope[kind]]).decode  # type: ignore[valid-type]
    return decode
