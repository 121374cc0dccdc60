"""Stored events: their names, their form, and the only place where old forms are adapted.

What is stored of an event is msgpack of its envelope: schema version, actor, digest of the
command it answers, and the event's own fields in order. A topic never changes meaning; new
fields are appended with defaults; unknown trailing fields of a newer version are skipped.
"""

from typing import Generic, TypeVar, get_args

import msgspec
from msgspec import Struct

from .tenant import Event

SCHEMA = 1
"""The schema version that events are written with."""

TOPICS: dict[str, type[Struct]] = {event.topic: event for event in get_args(Event)}

E = TypeVar("E")


class Envelope(Struct, Generic[E], frozen=True, array_like=True, gc=False):
    schema: int
    actor: str
    """Who did it, and for whom: pseudonymous, "telecoms_manager:u-17"."""
    digest: bytes
    """Of the command's content: the same key with another digest is another command."""
    event: E


class Recorded(Struct, frozen=True, gc=False):
    """An event with its place in the log of its tenant."""

    seq: int
    recorded_at: int
    """Microseconds since the epoch, UTC; never decreases along the log."""
    topic: str
    actor: str
    digest: bytes
    command_key: bytes | None
    """On the first event of a command; the events that follow from it have none."""
    event: Event


class UnknownEvent(ValueError):
    """A stored event this version cannot read: a newer version wrote it."""


_encode = msgspec.msgpack.Encoder().encode
_decoders = {topic: msgspec.msgpack.Decoder(Envelope[event]) for topic, event in TOPICS.items()}  # type: ignore[valid-type]


def encode(event: Event, actor: str, digest: bytes) -> bytes:
    # A tuple is written as the envelope would be, and costs nothing to make.
    return _encode((SCHEMA, actor, digest, event))


def decode(topic: str, state: bytes) -> Envelope[Event]:
    decoder = _decoders.get(topic)
    if decoder is None:
        raise UnknownEvent(f"topic {topic!r} is not known to this version: update allotment")
    try:
        envelope = decoder.decode(state)
    except msgspec.ValidationError:
        _check_schema(topic, _decode_head(state).schema)
        raise
    _check_schema(topic, envelope.schema)
    return envelope


def _check_schema(topic: str, schema: int) -> None:
    if schema != SCHEMA:
        raise UnknownEvent(f"{topic} has schema {schema}, this version reads {SCHEMA}: update allotment")


_decode_head = msgspec.msgpack.Decoder(Envelope[msgspec.Raw]).decode
