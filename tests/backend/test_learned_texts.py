"""Decoding charges by texts that were met before, against decoding them as they come."""

import pytest

from allotment.backend import learned_texts
from allotment.backend.learned_texts import TEXTS, LearnedTexts, decode_any_texts
from allotment.domain.charging import UsageCharged
from allotment.domain.events import encode


def array_of(*charges):
    states = [encode(charge, "test", bytes(8)) for charge in charges]
    return b"\xdd" + len(states).to_bytes(4, "big") + b"".join(states)


def charge(number, source="pbx", zone="national", period="2026-11"):
    return UsageCharged(
        *(source, f"record {number}", (7, 3, 0), "voice", period, 1_000 + number, "outbound", 60, 60),
        *(1, 0, "+44", zone, "corporate", "default", ((0, 60),), 0, 0, (0, 1), b"sealed"),
    )


def told(charges):
    fields = charges[0].event.__struct_fields__
    return [
        (one.schema, one.actor, one.digest, *(getattr(one.event, name) for name in fields)) for one in charges
    ]


@pytest.mark.parametrize("most", [1, 3, learned_texts.TEXTS_MAX])
def test_whatever_was_learned_charges_are_decoded_as_they_are(monkeypatch, most):
    monkeypatch.setattr(learned_texts, "TEXTS_MAX", most)
    texts = LearnedTexts()
    arrays = [
        array_of(charge(1), charge(2)),
        array_of(charge(3), charge(4, zone="new")),
        array_of(charge(5, source="another", zone="", period="2026-12")),
        array_of(*(charge(number, zone=f"zone {number}") for number in range(6))),
        array_of(charge(1), charge(2)),
    ]
    for array in arrays:
        assert told(texts.decode(array)) == told(decode_any_texts(array))


def test_a_text_that_is_known_is_not_made_again():
    texts = LearnedTexts()
    assert texts.decode(array_of()) == []
    texts.decode(array_of(charge(1)))
    one, other = (envelope.event for envelope in texts.decode(array_of(charge(2), charge(3))))
    assert all(getattr(one, name) is getattr(other, name) for name in TEXTS)


def test_what_is_no_charge_is_refused_whatever_was_learned():
    texts = LearnedTexts()
    texts.decode(array_of(charge(1)))
    for broken in (array_of(charge(2))[:-1], b"\xdd\0\0\0\1\x01"):
        with pytest.raises(learned_texts.msgspec.DecodeError):
            texts.decode(broken)
