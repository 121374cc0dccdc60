"""Leaf hashes and peaks of a group of events, in native code where it is there: else by domain/proof.py."""

from ..domain import proof
from .native import using


def leaves_of(
    tenant: bytes,
    size: int,
    topics: list[str],
    recorded_at: int,
    keys: list[bytes | None],
    states: list[bytes],
) -> list[bytes]:
    """The leaf hashes of events that follow `size` others."""
    native = using.native()
    made = native.leaves(tenant, size, topics, recorded_at, keys, states) if native is not None else None
    if made is not None:
        return made
    names = {topic: topic.encode() for topic in set(topics)}
    return [
        proof.leaf_hash(tenant, seq, names[topic], recorded_at, key, state)
        for seq, (topic, key, state) in enumerate(zip(topics, keys, states, strict=True), size + 1)
    ]


def append_peaks(peaks: list[bytes], size: int, leaves: list[bytes]) -> None:
    """Add leaves after `size` others to the peaks, in place."""
    native = using.native()
    if native is None or not native.append_peaks(peaks, size, leaves):
        proof.append_all(peaks, size, leaves)
