"""Our own shape, read quickly: the same records as reading it as declared, or none."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend.intake import reading
from allotment.backend.intake.formats import shipped_format
from allotment.backend.intake.own_shape import quick_reader
from allotment.backend.intake.unpacking import UnreadableFile

PLAIN = {
    "source": "switch-1",
    "id": "call-1",
    "line": "+442071838750",
    "type": "voice",
    "quantity": 61,
    "start": "2026-11-15T10:00:00+01:00",
    "direction": "inbound",
    "counterpart": "+442079460000",
}
TEXTS = st.sampled_from(
    ["", " ", "x", " x", "a b", "\u00a0x", "A\0", "é" * 200, "İ" * 150, "y" * 201, "+44 20", "tel:+44"]
)
ODD = {
    "source": TEXTS | st.none(),
    "id": TEXTS | st.integers(0, 5) | st.booleans(),
    "line": TEXTS | st.sampled_from(["0049", "+4402071838750", "100", "Alice"]),
    "type": st.sampled_from(["data", "video", "messaging", "fax", "", None, " voice"]),
    "quantity": st.sampled_from([0, -1, 1.0, 1.5, "60", "6e1", 2**63 - 1, 2**63, 10**41, None, True]),
    "start": st.sampled_from(
        [
            "2026-11-15T10:00:00Z", "2026-11-15T10:00:00", "2026-11-15", "1969-12-31T23:59:59Z", " ", None, 5,
            "9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59-01:00", "2026-11-15T10:00:00.123456789Z",
            "2026-W46-7T10:00:00Z", " 2026-11-15T10:00:00Z", "0001-01-01T00:00:00+12:00",
        ]
    ),
    "direction": st.sampled_from(["outbound", "", None, "sideways"]),
    "counterpart": TEXTS | st.none() | st.integers(0, 10**12),
    "attributes": st.sampled_from([{}, {"place": "Rome"}, None, [], {"n": 1}]),
    "unknown": st.just(1),
}  # fmt: skip


@st.composite
def objects(draw):
    told = dict(PLAIN, id=f"call-{draw(st.integers(0, 9))}")
    for name in draw(st.lists(st.sampled_from([*ODD]), max_size=3, unique=True)):
        told[name] = draw(ODD[name])
    for name in draw(st.lists(st.sampled_from([*PLAIN]), max_size=1)):
        told.pop(name, None)
    return told


def read(body: bytes):
    reader = reading.Reader(io.BytesIO(body), shipped_format("allotment"), time_zone="UTC", name="f")
    try:
        return [(record, reader.position) for record in reader], reader.counts
    except UnreadableFile as error:
        return str(error), reader.counts


@settings(max_examples=120, deadline=None)
@given(st.lists(objects() | st.sampled_from([5, [], "text"]), max_size=6))
def test_lines_are_read_quickly_as_they_are_read_as_declared(told):
    body = b"\n".join(json.dumps(each).encode() for each in told)
    with pytest.MonkeyPatch.context() as patch:
        quickly = read(body)
        patch.setattr(reading, "quick_reader", lambda _: None)
        assert read(body) == quickly


def test_what_is_plain_is_read_quickly():
    quick = quick_reader(shipped_format("allotment"))
    assert quick is not None
    assert quick(json.dumps(PLAIN).encode()) is not None
    assert quick(b'{"source": "s"}') is None
    for start in ("9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"):
        assert quick(json.dumps({**PLAIN, "start": start}).encode()) is None
    assert quick_reader(shipped_format("asterisk-csv")) is None
