"""The stored form of events, and how it may grow. The bytes themselves: tests/golden."""

from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.charging import UsageCharged, UsageRejected, UsageSuspended
from allotment.domain.events import SCHEMA, TOPICS, Envelope, UnknownEvent, decode, encode
from allotment.domain.tenant import Event

NAMED = get_args(Event)


def test_every_event_has_a_stored_name_of_its_own():
    assert len(TOPICS) == len(NAMED) == len({event.topic for event in NAMED})
    assert all(TOPICS[event.topic] is event for event in NAMED)


@pytest.mark.parametrize("event", NAMED, ids=lambda event: event.topic)
def test_a_stored_name_is_a_subject_and_what_happened(event):
    subject, happened = event.topic.split(".")
    assert subject.isidentifier()
    assert happened.isidentifier()


TEXT = st.text(max_size=12)
SIMPLE = {
    int: st.integers(-(2**63), 2**63 - 1),
    str: TEXT,
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    NoneType: st.none(),
}


def values(kind: Any) -> st.SearchStrategy:
    """Anything of a field's type."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{field.name: values(field.type) for field in msgspec.structs.fields(kind)})
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return st.sampled_from(inner)
    if get_origin(kind) is tuple:
        if inner[-1] is Ellipsis:
            return st.lists(values(inner[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, inner))
    return st.one_of(*map(values, inner))


def events() -> st.SearchStrategy:
    """Any event with any content its types allow, whether or not it could happen."""
    return st.one_of(*map(values, NAMED))


@given(events(), TEXT, st.binary(max_size=8))
def test_every_event_comes_back_as_it_was_stored(event, actor, digest):
    stored = encode(event, actor, digest)
    envelope = decode(event.topic, stored)
    assert envelope == Envelope(SCHEMA, actor, digest, event)
    assert type(envelope.event) is type(event)
    assert encode(envelope.event, envelope.actor, envelope.digest) == stored


@given(events())
def test_what_a_newer_version_appends_is_skipped(event):
    schema, actor, digest, fields = msgspec.msgpack.decode(encode(event, "a", b"d"))
    longer = msgspec.msgpack.encode([schema, actor, digest, [*fields, "more", 7], {"and": "more"}])
    assert decode(event.topic, longer).event == event


@pytest.mark.parametrize("event", NAMED, ids=lambda event: event.topic)
def test_a_field_that_is_missing_has_a_default_or_the_event_is_unreadable(event):
    fields = msgspec.structs.fields(event)
    required = sum(field.required for field in fields)
    too_short = msgspec.msgpack.encode([SCHEMA, "a", b"d", [None] * (required - 1)])
    with pytest.raises(msgspec.ValidationError):
        decode(event.topic, too_short)


def test_an_unknown_name_is_an_event_of_a_newer_version():
    with pytest.raises(UnknownEvent, match=r"bucket\.swallowed"):
        decode("bucket.swallowed", b"\x90")


def test_a_newer_schema_of_the_same_form_is_told_as_such():
    stored = msgspec.msgpack.encode([SCHEMA + 1, "a", b"d", ["r-1", 5]])
    with pytest.raises(UnknownEvent, match="update allotment"):
        decode("hierarchy.resource_ended", stored)


def test_a_newer_schema_of_another_form_is_told_as_such():
    stored = msgspec.msgpack.encode([SCHEMA + 1, "a", b"d", {"resource": "r-1"}])
    with pytest.raises(UnknownEvent, match="update allotment"):
        decode("hierarchy.resource_ended", stored)


@pytest.mark.parametrize("stored", [b"", b"\x90", b"\xc1", b"\x94\x01\xa1a\xc4\x01d\xc0", b"no msgpack"])
def test_broken_bytes_are_never_an_event(stored):
    with pytest.raises(ValueError, match=r"."):
        decode("hierarchy.resource_ended", stored)


@pytest.mark.parametrize(
    "event", [UsageCharged, UsageRejected, UsageSuspended], ids=lambda event: event.topic
)
def test_usage_holds_no_number_in_the_clear(event):
    assert {"line", "counterpart", "caller", "called"}.isdisjoint(event.__struct_fields__)
    assert "sealed" in event.__struct_fields__
