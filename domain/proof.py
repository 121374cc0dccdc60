"""Tamper evidence: a Merkle tree over each tenant's log, hashed as RFC 6962 §2.1 has it.

A leaf is the hash of exactly what is stored, length-prefixed. Of the tree only the peaks are
kept, the roots of its perfect subtrees from the largest to the smallest: appending costs about
one hash per event, and any later proof starts from the leaves.
"""

from hashlib import sha256
from struct import Struct

HASH_BYTES = 32

_head = Struct(">BB16sqqBHI")
_LEAF, _NODE = 0, b"\x01"
"""What a leaf's and a node's bytes begin with, so that neither passes for the other."""
_ENVELOPE_VERSION = 1


def leaf_hash(
    tenant: bytes, seq: int, topic: bytes, recorded_at: int, command_key: bytes | None, state: bytes
) -> bytes:
    key = command_key or b""
    head = _head.pack(_LEAF, _ENVELOPE_VERSION, tenant, seq, recorded_at, len(key), len(topic), len(state))
    return sha256(head + key + topic + state).digest()


def append(peaks: list[bytes], size: int, leaf: bytes) -> None:
    """Add the leaf after `size` others to the peaks, in place."""
    append_all(peaks, size, [leaf])


def append_all(peaks: list[bytes], size: int, leaves: list[bytes]) -> None:
    """Add leaves in order, in place: level by level, from the leaves up."""
    hashed, node, level, place = sha256, _NODE, leaves, 0
    grown: list[bytes] = []
    """The new peaks of the levels done, the smallest first."""
    while level:
        if size >> place & 1:
            level = [peaks.pop(), *level]
        if len(level) & 1:
            grown.append(level[-1])
        level = [
            hashed(node + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        place += 1
    peaks += reversed(grown)


def root_of(peaks: list[bytes]) -> bytes:
    """The tree's root hash; that of the empty tree is SHA-256 of nothing."""
    if not peaks:
        return sha256(b"").digest()
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(_NODE + peak + root).digest()
    return root


def pack(peaks: list[bytes]) -> bytes:
    return b"".join(peaks)


def unpack(packed: bytes) -> list[bytes]:
    return [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)]
