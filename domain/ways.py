"""Ways: who stands below whom, by date, and the paths that follow from it.

A node that moves takes with it, from that moment on, the paths of all that is below it; earlier
paths stay as they were. They are laid anew in one pass when a move is told, so that guiding only
looks them up.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, MutableMapping, Sequence

from .member import BEFORE_ALL, Member, Path, before, go_on

Dated = list[tuple[int, Member]]


class Ways:
    """All members, and what is above and below them."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.below: dict[int, list[int]] = {}
        """Node -> nodes that ever stood, or will stand, right below it; ordinals, sorted."""
        self.placed: MutableMapping[int, list[int]] = {}
        """Node -> resources that ever were, or will be, on it; ordinals, sorted."""
        self.parents: dict[int, Dated] = {}
        """Of nodes that have moved, or will: what is right above them since when."""

    def parent_at(self, node: Member, at: int) -> Member | None:
        dated = self.parents.get(node.ordinal)
        if dated is None:
            return node.parent
        return dated[bisect_right(dated, at, key=_above_since) - 1][1]

    def children(self, node: Member) -> list[Member]:
        """The nodes right below a node, as they stand."""
        below = (self.members[ordinal] for ordinal in self.below.get(node.ordinal, ()))
        return [child for child in below if child.parent is node]

    def nodes_under(self, node: Member) -> list[Member]:
        """A node and all nodes below it, as they stand."""
        found = [node]
        for one in found:
            found += self.children(one)
        return found

    def resources_of(self, node: Member) -> Iterator[Member]:
        """Whoever ever was, or will be, on a node."""
        return (self.members[ordinal] for ordinal in self.placed.get(node.ordinal, ()))

    # --- nodes that move ------------------------------------------------------------------------

    def put(self, node: Member, parent: Member, since: int, times: Sequence[int]) -> None:
        """A node, and all below it, stands below another from a moment on. `times`: see `refresh`."""
        assert node.parent is not None, "the root stays"
        dated = self.parents.get(node.ordinal) or [(BEFORE_ALL, node.parent)]
        earlier, later = [one for one in dated if one[0] < since], [one for one in dated if one[0] > since]
        self._date(node, [*earlier, (since, parent), *later], times)

    def take_back(self, node: Member, since: int, times: Sequence[int]) -> None:
        """What was to come for a node from a moment on does not."""
        self._date(node, [one for one in self.parents[node.ordinal] if one[0] < since], times)

    def _date(self, node: Member, dated: Dated, times: Sequence[int]) -> None:
        for _, parent in self.parents.get(node.ordinal, ()):
            leave(self.below[parent.ordinal], node.ordinal)
        self.parents[node.ordinal] = dated
        for _, parent in dated:
            join(self.below.setdefault(parent.ordinal, []), node.ordinal)
        self.refresh(node, times)

    def arrive(self, node: Member, parent: Member) -> None:
        """It now stands there: what was dated has come."""
        node.parent = parent
        for one in self.nodes_under(node):
            assert one.parent is not None
            one.way = (one.ordinal, *one.parent.way)

    def refresh(self, node: Member, times: Sequence[int]) -> None:
        """Lay the paths of a node and all below it anew, from the first of some moments on.

        `times` are that moment and all later ones at which any node moves. Who ever stood below
        is looked at; whoever does not now gets the path it had.
        """
        nodes = self._ever_under(node)
        for one in nodes:
            stays = one.stays or [(BEFORE_ALL, one.way)]
            one.stays = before(stays, times[0])
            for at in times:
                go_on(one.stays, at, self._way_at(one, at))
        later: set[int] = set()
        for one in nodes:
            later.update(self._relay_all(one, times))
        for ordinal in later:
            self._relay(self.members[ordinal], times)

    def _ever_under(self, node: Member) -> list[Member]:
        found, seen = [node], {node.ordinal}
        for one in found:
            for ordinal in self.below.get(one.ordinal, ()):
                if ordinal not in seen:
                    seen.add(ordinal)
                    found.append(self.members[ordinal])
        return found

    def _way_at(self, node: Member, at: int) -> Path:
        way: list[int] = []
        above: Member | None = node
        while above is not None:
            way.append(above.ordinal)
            above = self.parent_at(above, at)
        return tuple(way)

    def _relay_all(self, node: Member, times: Sequence[int]) -> list[int]:
        """Most are on the node since before, and stay: in one go. The others, for a closer look."""
        members, since, ordinal = self.members, times[0], node.ordinal
        others: list[int] = []
        way, later = node.path_at(since), [stay for stay in node.stays if stay[0] > since]
        for resource in self.placed.get(ordinal, ()):
            stays = members[resource].stays
            last, path = stays[-1]
            if last >= since:
                others.append(resource)
            elif path and path[1] == ordinal:
                if path[1:] != way:
                    stays.append((since, (resource, *way)))
                for at, along in later:
                    stays.append((at, (resource, *along)))
        return others

    def _relay(self, resource: Member, times: Sequence[int]) -> None:
        """The stays of a resource from the first of some moments on, by the ways of its nodes."""
        stays, since, ordinal = resource.stays, times[0], resource.ordinal
        laid = before(stays, since)
        for at in sorted({*times, *(begins for begins, _ in stays if begins > since)}):
            path = resource.path_at(at)
            if path or laid:
                go_on(laid, at, (ordinal, *self.members[path[1]].path_at(at)) if path else ())
        stays[:] = laid

    # --- nodes that are succeeded ---------------------------------------------------------------

    def inherit(self, node: Member, successor: Member, at: int, times: Sequence[int]) -> None:
        """Every node that stands below a node from a moment on, or did since, stands below its successor."""
        for ordinal in list(self.below.get(node.ordinal, ())):
            child = self.members[ordinal]
            assert child.parent is not None, "the root stands below nobody"
            dated = self.parents.get(ordinal) or [(BEFORE_ALL, child.parent)]
            stood = _gone_over(dated, node, successor, at)
            if stood != dated:
                self._date(child, stood, times)
            if child.parent is node:
                self.arrive(child, successor)

    def succeed(self, node: Member, successor: Member, at: int) -> None:
        """Whoever is on a node from a moment on, or comes to it later, is on its successor."""
        for resource in list(self.resources_of(node)):
            if not any(path[1] == node.ordinal for path in paths_from(resource, at) if path):
                continue
            self._go_over(resource, node, successor, at)
            join(self.placed.setdefault(successor.ordinal, []), resource.ordinal)
            if not any(path[1] == node.ordinal for _, path in resource.stays if path):
                leave(self.placed[node.ordinal], resource.ordinal)
            if resource.parent is node:
                resource.parent = successor

    def _go_over(self, resource: Member, node: Member, successor: Member, at: int) -> None:
        changes = {since for since, _ in (*resource.stays, *successor.stays) if since > at}
        laid = before(resource.stays, at)
        for moment in sorted({at, *changes}):
            path = resource.path_at(moment)
            if path and path[1] == node.ordinal:
                path = (resource.ordinal, *successor.path_at(moment))
            if path or laid:
                go_on(laid, moment, path)
        resource.stays[:] = laid


def _gone_over(dated: Dated, node: Member, successor: Member, at: int) -> Dated:
    """Below the successor instead, from a moment on."""
    found: Dated = []
    for since, parent in dated:
        if parent is node and since >= at:
            found.append((since, successor))
        else:
            found.append((since, parent))
    stands = [parent for since, parent in dated if since <= at]
    if stands[-1] is node and all(since != at for since, _ in found):
        found.append((at, successor))
    return sorted(found, key=_above_since)


def paths_from(resource: Member, at: int) -> list[Path]:
    """The paths that a resource has at a moment and later."""
    return [resource.path_at(at), *(path for since, path in resource.stays if since > at)]


def join(ordinals: list[int], ordinal: int) -> None:
    """Into a sorted list, once."""
    if not ordinals or ordinals[-1] < ordinal:
        ordinals.append(ordinal)
        return
    place = bisect_left(ordinals, ordinal)
    if ordinals[place] != ordinal:
        ordinals.insert(place, ordinal)


def leave(ordinals: list[int], ordinal: int) -> None:
    place = bisect_left(ordinals, ordinal)
    if ordinals[place : place + 1] == [ordinal]:
        del ordinals[place]


def _above_since(dated: tuple[int, Member]) -> int:
    return dated[0]
