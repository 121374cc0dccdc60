"""Whatever becomes of the hierarchy, with usage in between: paths by date, and sums, beside a naive model."""

import random

import pytest

from allotment.domain import snapshot
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.canonical import lines
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.life import (
    CancelPlan,
    ChangeIdentities,
    CloseNode,
    IdentityAdded,
    IdentityRemoved,
    MoveNode,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    ResumeResource,
    SuspendResource,
)
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord

NOON = 1_794_740_400_000_000
STEPS = 60


class Book:
    """The same hierarchy, by the book: facts with their dates, walked through for each question."""

    def __init__(self):
        self.above = {"acme": [(-1, None)], "emea": [(-1, "acme")], "sales": [(-1, "emea")]}
        self.above["apac"] = [(-1, "acme")]
        self.put = {"r-1": [(0, "sales")], "r-2": [(0, "apac")]}
        self.merged = {}
        self.spells = {"r-1": [["r-1", 0, None]], "r-2": [["r-2", 0, None]]}

    @staticmethod
    def last(dated, at):
        found = None
        for since, what in sorted(dated, key=lambda one: one[0]):
            if since <= at:
                found = what
        return found

    def succeeded(self, node, at):
        while node in self.merged and self.merged[node][0] <= at:
            node = self.merged[node][1]
        return node

    def guide(self, line, at):
        for resource, since, until in self.spells.get(line, ()):
            if since <= at and (until is None or at < until):
                node = self.last(self.put[resource], at)
                path = [resource] if node else []
                while node:
                    node = self.succeeded(node, at)
                    path.append(node)
                    node = self.last(self.above[node], at)
                if path:
                    return path
        return []

    def children(self, node, now):
        return [one for one in self.above if self.last(self.above[one], now) == node]


class World:
    """A tenant and its book, given the same commands."""

    def __init__(self, company, seed):
        self.company, self.tenant = company, company.tenant
        self.book, self.chance, self.now, self.planned = Book(), random.Random(seed), NOON, {}
        self.counts = dict.fromkeys(("charged", "done", "refused"), 0)

    def pick(self, some):
        return self.chance.choice(sorted(some))

    def step(self):
        self.now += self.chance.choice([0, 1, 5])
        for command in self.tenant.life.due(self.now):
            self.do(command)
        for _ in range(3):
            self.use()
        self.do(self.command())

    def command(self):
        nodes, resources = self.book.above, self.book.put
        node, other, resource = self.pick(nodes), self.pick(nodes), self.pick(resources)
        later = self.chance.choice([0, 0, self.now + self.chance.randrange(1, 40)])
        since = later or self.now
        name, number = f"n{len(nodes)}", len(self.company.history)
        members = [*nodes, *resources]
        return self.chance.choice(
            [
                lambda: AddNode(name, node, "", "group"),
                lambda: AddResource(f"x{number}", node, "sip", since, (Identity(b"x%d" % number, b""),)),
                lambda: MoveResource(resource, node, since),
                lambda: EndResource(resource, since + 20),
                lambda: MoveNode(node, other, later),
                lambda: MoveNode(node, other, later),
                lambda: MoveNode(node, other),
                lambda: CloseNode(node, other, self.chance.choice([0, later])),
                lambda: CloseNode(node),
                lambda: CancelPlan(node),
                lambda: self.swap(resource, number, later),
                lambda: SuspendResource(resource, later),
                lambda: ResumeResource(resource, later),
                lambda: Allocate(node, self.pick(members), "voice", "2026-11", self.chance.randrange(1, 90)),
                lambda: Return(self.pick(members), node, "voice", "2026-11", self.chance.randrange(1, 9)),
                lambda: Trade(node, other, "voice", "2026-11", self.chance.randrange(1, 30)),
                lambda: SetLimit(node, "voice", self.chance.randrange(100, 900)),
            ]
        )()

    def swap(self, resource, number, later):
        held = self.tenant.hierarchy.by_id[resource].identities
        removed = tuple(one.token for one in held if self.chance.random() < 0.7)
        free = [line.encode() for line in self.book.spells] if self.chance.random() < 0.5 else []
        added = (Identity(self.chance.choice([*free, b"y%d" % number]), b""),)
        return ChangeIdentities(resource, added, removed, later)

    def do(self, command):
        try:
            events = self.tenant.decide(command, self.now)
        except Refused:
            self.counts["refused"] += 1
            return
        self.counts["done"] += 1
        for event in events:
            if isinstance(event, NodeMoved | NodeClosed):
                self.before(event)
            self.company.tell(event)
            self.note(command, event)

    def before(self, event):
        """What a merge or move finds, before it is done."""
        if isinstance(event, NodeClosed) and event.successor:
            for child in self.book.children(event.node, self.now):
                self.book.above[child].append((event.at, event.successor))
            self.book.merged[event.node] = (event.at, event.successor)
        if isinstance(event, NodeMoved) and (event.since, event.parent) not in self.book.above[event.node]:
            self.book.above[event.node].append((event.since, event.parent))

    def note(self, command, event):
        book = self.book
        match event:
            case NodeChangePlanned(node, act, to, at):
                self.planned[node] = (act, at, to)
                if act == "move":
                    book.above[node].append((at, to))
            case NodePlanCancelled(node):
                act, at, to = self.planned.pop(node)
                if act == "move":
                    book.above[node].remove((at, to))
            case IdentityAdded(resource, identity, since):
                book.spells.setdefault(identity.token.decode(), []).append([resource, since, None])
            case IdentityRemoved(resource, token, at):
                next(
                    one
                    for one in book.spells[token.decode()]
                    if one[0] == resource and (one[2] is None or one[2] > at)
                )[2] = at
        match command:
            case AddNode(node, parent):
                book.above[node] = [(-1, parent)]
            case AddResource(resource, node, _, since, identities):
                book.put[resource] = [(since, node)]
                book.spells[identities[0].token.decode()] = [[resource, since, None]]
            case MoveResource(resource, node, since):
                book.put[resource].append((since, node))
            case EndResource(resource, at):
                book.put[resource].append((at, None))

    def use(self):
        line = self.pick(self.book.spells)
        at = self.now + self.chance.randrange(-30, 50)
        number = f"u{len(self.company.history)}"
        record = UsageRecord(
            "s", number, line, "voice", self.chance.randrange(1, 90), at, "outbound", "+4930"
        )
        command = ChargeUsage(record, line.encode(), b"")
        events = self.tenant.decide(command, self.now)
        plainly = self.tenant.plain.charge(record, command.token, b"", self.now)
        if plainly is None:
            self.company.tell(*events)
        else:
            assert [plainly] == events
            self.company.history.append(plainly)
        if isinstance(events[0], UsageCharged):
            self.counts["charged"] += 1
            ids = [self.tenant.hierarchy.members[one].id for one in events[0].path]
            assert ids == self.book.guide(line, at)

    def check(self):
        hierarchy = self.tenant.hierarchy
        for line in self.book.spells:
            for at in range(self.now - 40, self.now + 60, 7):
                path = hierarchy.guide(line.encode(), at) or ()
                assert [hierarchy.members[one].id for one in path] == self.book.guide(line, at)
        self.tenant.check_whole()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_becomes_of_the_hierarchy_paths_and_sums_hold(company, seed):
    world = World(company(), seed)
    for _ in range(STEPS):
        world.step()
        world.check()
    assert world.counts["charged"] > 0
    assert world.counts["done"] > 10
    told = b"".join(lines(world.tenant))
    replayed = Tenant()
    for event in world.company.history:
        replayed.apply(event)
    assert b"".join(lines(replayed)) == told
    counters = snapshot.encode_counters(snapshot.copy_counters(world.tenant))
    restored = snapshot.restore(counters, snapshot.encode_structure(world.tenant))
    assert b"".join(lines(restored)) == told
    for part in ("below", "placed", "parents", "suspended", "closed", "former"):
        kept, live = (getattr(one.hierarchy, part) for one in (restored, world.tenant))
        if part != "parents":
            assert {key: one for key, one in kept.items() if one} == {
                key: one for key, one in live.items() if one
            }
    assert restored.life.plans == world.tenant.life.plans
