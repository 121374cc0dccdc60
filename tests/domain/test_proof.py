"""The Merkle tree, beside the published vectors of RFC 6962 and a recursive reading of its §2.1.

The vectors hash bare inputs; our leaves hash an envelope of tenant, seq, time, key, topic and
state. So the tree is compared on their leaves, and the envelope on its own below.
"""

import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain import proof

INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def rfc_leaf(content: bytes) -> bytes:
    return sha256(b"\x00" + content).digest()


def rfc_root(leaves: list[bytes]) -> bytes:
    """MTH(D[n]), with k the largest power of two smaller than n."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


def peaks_of(leaves: list[bytes]) -> list[bytes]:
    peaks: list[bytes] = []
    for size, leaf in enumerate(leaves):
        proof.append(peaks, size, leaf)
    return peaks


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_the_published_roots_come_out(size):
    leaves = [rfc_leaf(content) for content in INPUTS[:size]]
    assert proof.root_of(peaks_of(leaves)).hex() == ROOTS[size] == rfc_root(leaves).hex()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 63, 64, 65, 1000])
def test_any_size_agrees_with_the_definition(size):
    leaves = [sha256(bytes([i % 256, i // 256])).digest() for i in range(size)]
    peaks = peaks_of(leaves)
    assert proof.root_of(peaks) == rfc_root(leaves)
    assert len(peaks) == size.bit_count()


@given(st.integers(0, 40), st.integers(0, 40))
def test_leaves_may_come_one_by_one_or_together(before, more):
    leaves = [sha256(bytes([number])).digest() for number in range(before + more)]
    peaks = peaks_of(leaves[:before])
    proof.append_all(peaks, before, leaves[before:])
    assert peaks == peaks_of(leaves)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_peaks_survive_being_stored(peaks):
    assert proof.unpack(proof.pack(peaks)) == peaks


def test_a_leaf_is_the_hash_of_the_length_prefixed_envelope():
    tenant, key = bytes(range(16)), b"k" * 16
    written_out = (
        b"\x00\x01"
        + tenant
        + struct.pack(">q", 7)
        + struct.pack(">q", 1_700_000_000_000_000)
        + b"\x10\x00\x05\x00\x00\x00\x05"
        + key
        + b"topicstate"
    )
    leaf = proof.leaf_hash(tenant, 7, b"topic", 1_700_000_000_000_000, key, b"state")
    assert leaf == sha256(written_out).digest()


LEAF = {"tenant": bytes(16), "seq": 1, "topic": b"ab", "recorded_at": 0, "command_key": None, "state": b"cd"}


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": b"\x01" * 16},
        {"seq": 2},
        {"topic": b"abc", "state": b"d"},
        {"recorded_at": 1},
        {"recorded_at": -1},
        {"command_key": b"\x00"},
        {"command_key": b"ab", "topic": b""},
        {"state": b"cd\x00"},
        {"state": b""},
    ],
)
def test_whatever_is_changed_in_an_event_changes_its_leaf(change):
    assert proof.leaf_hash(**(LEAF | change)) != proof.leaf_hash(**LEAF)


def test_a_leaf_cannot_be_taken_for_a_node():
    left, right = rfc_leaf(b"l"), rfc_leaf(b"r")
    assert rfc_leaf(left + right) != proof.root_of(peaks_of([left, right]))
