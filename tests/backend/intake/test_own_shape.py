"""Our own shape, read quickly: the same records as reading it as declared, or none."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend.intake import numbers, reading
from allotment.backend.intake.formats import shipped_format
from allotment.backend.intake.own_shape import QuickReader, plain_reader, quick_reader
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.backend.native import using

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


# --- by native code ----------------------------------------------------------------------------


def plainly(body: bytes):
    """What is read of a body, and as far as where."""
    reader = plain_reader(shipped_format("allotment"))
    records = []
    return reader.read(body, 0, 1_000, records), records


def by_both(body: bytes):
    natively = plainly(body)
    with using.python_only():
        return natively, plainly(body)


STARTS = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["1969", "1970", "2000", "2023", "2024", "2100", "9999", "0001", "26"]),
    st.sampled_from(["01", "02", "03", "12", "13", "00", "1"]),
    st.sampled_from(["01", "28", "29", "30", "31", "32", "00", "W1"]),
    st.sampled_from(["T", " ", "t", ""]),
    st.sampled_from(["00", "23", "24", "-1", "+1"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["00", "59", "60", "6"]),
    st.sampled_from(["", ".1", ".123", ".123456", ".1234567", ",123", ".", ".12a"]),
    st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+01:00", "-23:59", "+24:00", "+0100", "+01:60"]),
)  # fmt: skip
NUMBERS = st.one_of(
    st.text("0123456789", min_size=1, max_size=21).map(lambda digits: f"+{digits}"),
    st.sampled_from(["+1", "+44", "+440", "+4420", "+11", "+1(2)", "12345", "Alice", "sip:a@b", "+٣٣١٢٣٤"]),
)
LINE = b'{"source":"s","id":"i","line":"1","type":"data","quantity":%s,"start":"2026-11-15T10:00:00Z"}'
AMOUNTS = (b"0", b"-0", b"00", b"07", b"7", b"1e3", b"1.0", b"9" * 18, b"9" * 19, b"", b"true", b'"7"', b"7,")
WRITTEN = st.sampled_from([LINE % amount for amount in AMOUNTS])


@settings(max_examples=50, deadline=None)
@given(objects(), STARTS, NUMBERS, NUMBERS)
def test_native_code_reads_a_line_as_python_does(told, start, line, counterpart):
    for changed in ({}, {"start": start}, {"line": line, "counterpart": counterpart}):
        body = json.dumps({**told, **changed}).encode()
        natively, python = by_both(body)
        assert natively == python


@settings(max_examples=50, deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=3), st.integers(0, 250), st.binary(max_size=2), st.booleans())
def test_native_code_reads_bytes_as_python_does(lines, at, other, ends):
    body = b"\n".join(lines) + b"\n" * ends
    for damaged in (body, body[:at], body[:at] + other + body[at + 1 :], body.replace(b",", b" ,\t", 2)):
        natively, python = by_both(damaged)
        assert natively == python


@pytest.mark.skipif(using.native() is None, reason=f"reads with {using.told()}")
def test_plain_lines_are_read_natively_to_the_last(monkeypatch):
    monkeypatch.setattr(QuickReader, "record_of", None)
    line = json.dumps({**PLAIN, "start": "2026-11-15T10:00:00.25+01:00"}).encode()
    line = line.replace(b".25", b".250")
    assert plainly(line + b"\r\n" + line) == (2 * len(line) + 2, [plainly(line)[1][0]] * 2)
    with pytest.raises(TypeError):
        plainly(line.replace(b"switch", b"sw\\u0069tch"))


def test_a_number_that_native_code_takes_for_settled_stays_what_it_is():
    for three in range(1_000):
        told = numbers.beginning(f"{three:03}").decode()
        if not told:
            continue
        code, rest, never = f"{three:03}"[: int(told[0])], told[1:], []
        while rest:
            size = int(rest[0])
            never.append(rest[1 : 1 + size])
            rest = rest[1 + size :]
        assert "0" in never
        for more in ("", "1", "06", "180020", "2079460000", *never):
            number = f"+{code}{more}"
            if not any(more.startswith(one) for one in never):
                assert numbers._is_settled(number)
