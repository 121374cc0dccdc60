"""What is larger than a message, in pieces: whole or lost, and never more than a few at once."""

from uuid import UUID, uuid4

import pytest

from allotment.backend.parcels import PARCEL_BYTES_MAX, PARCELS_MAX, Lost, Parcels, Piece, cut

ONE = UUID(int=1)


def piece(place, count=3, part=b"ab", parcel=ONE):
    return Piece(parcel, place, count, part)


@pytest.mark.parametrize(
    ("body", "size", "parts"),
    [(b"abc", 1, 3), (b"abc", 2, 2), (b"abc", 3, 1), (b"abc", 4, 1), (b"", 4, 0)],
)
def test_a_body_is_cut_and_is_the_same_again(body, size, parts):
    pieces = cut(body, size)
    assert (len(pieces), b"".join(pieces)) == (parts, body)
    assert all(len(part) <= size for part in pieces)


def test_with_the_last_piece_it_is_whole_and_gone():
    incoming = Parcels()
    assert [incoming.take(piece(place)) for place in range(3)] == [None, None, b"ababab"]
    assert not len(incoming)
    assert incoming.take(piece(0, 1)) == b"ab"


@pytest.mark.parametrize(
    ("before", "lost"),
    [
        ((), piece(1)),  # its beginning was never here, or has made room
        ((piece(0),), piece(2)),
        ((piece(0), piece(1)), piece(1)),
        ((), piece(3)),
        ((), piece(-1)),
        ((), piece(0, PARCEL_BYTES_MAX + 1)),
        ((piece(0),), piece(1, parcel=UUID(int=2))),
    ],
)
def test_a_piece_that_does_not_follow_is_lost(before, lost):
    incoming = Parcels()
    for one in before:
        incoming.take(one)
    with pytest.raises(Lost):
        incoming.take(lost)


def test_an_answer_is_fetched_once():
    outgoing = Parcels()
    outgoing.put(ONE, [b"a", b"b"])
    assert [outgoing.give(ONE, place) for place in (0, 0, 1)] == [b"a", b"a", b"b"]
    with pytest.raises(Lost):
        outgoing.give(ONE, 0)


def test_those_that_nobody_finishes_make_room_the_oldest_first():
    incoming = Parcels()
    started = [uuid4() for _ in range(PARCELS_MAX + 1)]
    for parcel in started:
        incoming.take(piece(0, parcel=parcel))
    assert len(incoming) == PARCELS_MAX
    assert incoming.take(piece(1, parcel=started[1])) is None
    with pytest.raises(Lost):
        incoming.take(piece(1, parcel=started[0]))
