"""Parcels: what is larger than one message may be, in pieces, in memory, for as long as it is on its way.

The pieces of what is asked come one after the other; with the last one it is whole, and answered. An
answer that is too large waits until its pieces have been asked for. What is not fetched or finished makes
room for what comes later: who asked hears of it as of any answer that was lost, and asks again.
"""

from uuid import UUID

from msgspec import Struct

PARCEL_BYTES_MAX = 64 * 1024 * 1024
"""Of one: a sheet may have 20 MB, and as a command twice that."""
PARCELS_MAX = 16
"""On their way at once, to or from one worker; the oldest is forgotten first."""


class Piece(Struct, frozen=True, array_like=True, tag="piece"):
    """A part of what is asked, the first one being 0."""

    parcel: UUID
    place: int
    count: int
    part: bytes
    seconds: float = 5.0


class Fetching(Struct, frozen=True, array_like=True, tag="fetch"):
    """Give me a part of an answer."""

    parcel: UUID
    place: int
    seconds: float = 5.0


class Kept(Struct, frozen=True, array_like=True, tag="kept"):
    """The piece is here; the next one, please."""


class Parcel(Struct, frozen=True, array_like=True, tag="parcel"):
    """The answer has so many pieces: they are to be fetched."""

    parcel: UUID
    count: int


class Part(Struct, frozen=True, array_like=True, tag="part"):
    part: bytes


class Lost(Exception):
    """Its pieces are not all here."""


class Parcels:
    """Those on their way in, or out."""

    def __init__(self) -> None:
        self._pieces: dict[UUID, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, parcel: UUID, parts: list[bytes]) -> None:
        """A whole one, to be fetched."""
        self._make_room()
        self._pieces[parcel] = parts

    def take(self, piece: Piece) -> bytes | None:
        """One more piece; with the last one all of it. Lost where one before is missing."""
        if not 0 <= piece.place < piece.count or piece.count * len(piece.part) > 2 * PARCEL_BYTES_MAX:
            raise Lost
        if piece.place == 0:
            self._make_room()
            self._pieces[piece.parcel] = []
        parts = self._pieces.get(piece.parcel)
        if parts is None or len(parts) != piece.place:
            raise Lost
        parts.append(piece.part)
        if piece.place + 1 < piece.count:
            return None
        return b"".join(self._pieces.pop(piece.parcel))

    def give(self, parcel: UUID, place: int) -> bytes:
        """A piece; with the last one it is gone."""
        parts = self._pieces.get(parcel)
        if parts is None or not 0 <= place < len(parts):
            raise Lost
        if place == len(parts) - 1:
            del self._pieces[parcel]
        return parts[place]

    def _make_room(self) -> None:
        while len(self._pieces) >= PARCELS_MAX:
            del self._pieces[next(iter(self._pieces))]


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]
