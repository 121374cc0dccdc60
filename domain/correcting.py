"""Commands that correct what was told of the hierarchy: each is about a moment that is over.

Each names the job that it begins, which charges again what was used since; and what was shown to whoever
confirms it. `backdating.py` decides them.
"""

from msgspec import Struct


class CorrectMove(Struct, frozen=True, array_like=True):
    """Let a resource have stood on another node since a moment that is over."""

    job: str
    """The name of the job that charges again what it has used since."""
    resource: str
    node: str
    since: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class CorrectAdd(Struct, frozen=True, array_like=True):
    """Let a node be there that existed before it was told: others may have moved below it, or joined it."""

    job: str
    node: str
    parent: str
    name: str
    kind: str
    since: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class CorrectRename(Struct, frozen=True, array_like=True):
    """Let a node have been called otherwise since a moment that is over."""

    job: str
    node: str
    name: str
    since: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class CorrectNodeMove(Struct, frozen=True, array_like=True):
    """Let a node, with all that is below it, have stood below another since a moment that is over."""

    job: str
    """The name of the job that charges again what was used since."""
    node: str
    parent: str
    since: int
    note: str = ""
    shown: str = ""
    """The digest of the difference that was shown to whoever confirmed it."""
    expected: int | None = None


class CorrectMerge(Struct, frozen=True, array_like=True):
    """Let a node have been merged into another at a moment that is over, with all that was there."""

    job: str
    node: str
    successor: str
    at: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class CorrectClose(Struct, frozen=True, array_like=True):
    """Let a node have been closed at a moment that is over. It was empty then, and has been since."""

    job: str
    node: str
    at: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class _OfResource(Struct, frozen=True, array_like=True):
    """What a resource did earlier than was told."""

    job: str
    resource: str
    at: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


class CorrectJoin(_OfResource, frozen=True, array_like=True):
    """Let a resource have been on its first node since an earlier moment than was told."""


class CorrectEnd(_OfResource, frozen=True, array_like=True):
    """Let a resource have ended at a moment that is over, earlier than was told."""


class CorrectSuspension(_OfResource, frozen=True, array_like=True):
    """Let a resource have been suspended at a moment that is over, earlier than was told."""


class CorrectResumption(_OfResource, frozen=True, array_like=True):
    """Let a suspended resource have been resumed at a moment that is over, earlier than was told."""


OfNode = CorrectRename | CorrectNodeMove | CorrectMerge | CorrectClose
OfResource = CorrectJoin | CorrectEnd | CorrectSuspension | CorrectResumption
Correction = CorrectMove | CorrectAdd | OfNode | OfResource
