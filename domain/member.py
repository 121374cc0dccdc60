"""Members: a node or a resource, with the paths it had by date.

A path is the tuple of ordinals from a member up to the root.
"""

from bisect import bisect_right

from msgspec import Struct

BEFORE_ALL, FOR_EVER = -(1 << 62), 1 << 62

Path = tuple[int, ...]
Stays = list[tuple[int, Path]]
"""(since, path), oldest first; an empty path where it was nowhere."""


class Identity(Struct, frozen=True, array_like=True):
    """A name under which the network knows a resource. The name itself is sealed."""

    token: bytes
    """Keyed hash of the name: what usage is guided by."""
    sealed: bytes


class Member:
    """A node or a resource, as the next decision needs it."""

    __slots__ = ("id", "identities", "is_node", "kind", "name", "ordinal", "parent", "stays", "way")

    def __init__(self, ident: str, ordinal: int, kind: str, name: str, *, is_node: bool) -> None:
        self.id = ident
        self.ordinal = ordinal
        self.kind = kind
        self.name = name
        self.is_node = is_node
        self.parent: Member | None = None
        self.way: Path = (ordinal,) if is_node else ()
        """Of a node: its path as it stands."""
        self.stays: Stays = []
        """Of a node: nothing while it stands where it was added."""
        self.identities: tuple[Identity, ...] = ()

    @property
    def path(self) -> Path:
        """Where it stands; a resource that does not, where it last did."""
        if self.is_node or self.parent is None:
            return self.way
        return (self.ordinal, *self.parent.way)

    def path_at(self, at: int) -> Path:
        """The path at a moment; of a resource empty before its first stay and after its end."""
        stays = self.stays
        if len(stays) == 1:
            since, path = stays[0]
            return path if at >= since else ()
        index = bisect_right(stays, at, key=_since) - 1
        return stays[index][1] if index >= 0 else self.way

    def standing(self, now: int) -> Path:
        """Where the member stands in the hierarchy now; a resource that does not, where it last did."""
        return self.path_at(now) or self.path

    def held_until(self) -> int:
        """Until when its identities are its own, as far as is known."""
        since, path = self.stays[-1]
        return FOR_EVER if path else since


class Spell:
    """An identity that a resource has for a time only: to guiding it is a member of that time."""

    __slots__ = ("member", "since", "until")

    def __init__(self, member: Member, since: int, until: int) -> None:
        self.member = member
        self.since = since
        self.until = until

    @property
    def id(self) -> str:
        return self.member.id

    def path_at(self, at: int) -> Path:
        return self.member.path_at(at) if self.since <= at < self.until else ()

    def held_until(self) -> int:
        return min(self.until, self.member.held_until())


Holder = Member | Spell


def placed_since(stays: Stays) -> int:
    """Since when a resource is on the node of its last stay, whatever moved above that."""
    since, path = stays[-1]
    for began, along in reversed(stays[:-1]):
        if along[1:2] != path[1:2] or along == path:
            break
        since, path = began, along
    return since


def before(stays: Stays, since: int) -> Stays:
    return [stay for stay in stays if stay[0] < since]


def go_on(stays: Stays, since: int, path: Path) -> None:
    """One more stay, where it is another."""
    if not stays or stays[-1][1] != path:
        stays.append((since, path))


def _since(stay: tuple[int, Path]) -> int:
    return stay[0]
