"""Allocation to any depth: many lines at once, by templates, and back up again; all or nothing.

A command here leads to transfers and caps like those asked for one by one, and to nothing else:
whoever follows the log need not know where they came from.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from .bucket import Allocate, Family, Return, Trade, Transferred
from .cap import Caps, SetCap, check_cap
from .contract import Contracts
from .freeze import check_thawed
from .hierarchy import Hierarchy, Member
from .offer import OfferMade
from .permit import Permit
from .refusals import Refused, check_text
from .running import (
    FamilyKey,
    Holds,
    Line,
    Moved,
    Running,
    check_few,
    decide_line,
    decide_lines,
)
from .template import ApplyTemplate, Rule, Templates, check_rule, shares


class TransferMany(Struct, frozen=True, array_like=True):
    """Carry out lines in their order, all of them or none."""

    lines: tuple[Line, ...]
    note: str = ""
    """Of lines that have none of their own."""


class ReturnUnused(Struct, frozen=True, array_like=True):
    """Give everything that is available at a node, or in its subtree, back up."""

    node: str
    target: str = ""
    """An ancestor; "" is the parent."""
    usage_type: str = ""
    """"" means all."""
    period: str = ""
    whole_subtree: bool = True
    note: str = ""


AllocationCommand = SetCap | TransferMany | ReturnUnused | ApplyTemplate


class Allocations:
    """Decides on parts of one tenant's state."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        caps: Caps,
        templates: Templates,
        families: Mapping[FamilyKey, Family],
        holds: Holds,
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._caps = caps
        self._templates = templates
        self._families = families
        self._holds = holds
        self.permit: Callable[[str], Permit] | None = None
        """What refuses an actor what may only be asked for by itself."""
        self._expand = {"template": self._template_line, "return_unused": self._unused_line}

    def decide(self, command: AllocationCommand, now: int, by: str = "") -> list[Moved]:
        period = self._running(now)
        running = self.begin(now, by)
        match command:
            case SetCap():
                check_cap(command, self._hierarchy, self._contracts.types)
                self._require(command.from_period or period)
                return [running.cap(command, period)]
            case TransferMany():
                return self._many(command, running, period)
            case ReturnUnused():
                self._require(command.period or period)
                return [*self.unused(command, running)]
            case ApplyTemplate():
                self._require(command.period or period)
                return [*self.template(command, running)]

    def transfer(self, command: Allocate | Return | Trade, now: int) -> Transferred:
        """One by itself: what becomes of it, approval rules may still say."""
        running = self.begin(now)
        running.permit = None
        return running.transfer(command)

    def check(self, events: Sequence[Struct], now: int) -> None:
        """Refuses what somebody frozen would give or get, or what would break a promise."""
        running = self.begin(now)
        for event in events:
            if isinstance(event, Transferred):
                running.check(event)
            elif isinstance(event, OfferMade):
                check_thawed(self._hierarchy.member(event.source), self._hierarchy, now)

    def begin(self, now: int, by: str = "") -> Running:
        running = Running(self._hierarchy, self._contracts, self._caps, self._families, self._holds, now)
        running.permit = self.permit(by) if self.permit is not None else None
        return running

    def lines(self, lines: tuple[Line, ...], running: Running, period: str) -> list[Moved]:
        """Of a schedule: in the period that runs, or that is being opened."""

        def decide(line: Line) -> list[Moved]:
            return decide_line(replace(line, period=period), running, period, self._expand)

        return decide_lines(lines, decide)

    def _running(self, now: int) -> str:
        return self._contracts.name_at(now)

    def _require(self, period: str) -> None:
        self._contracts.check(period)
        self._contracts.require(period)

    # --- many -------------------------------------------------------------------------------

    def _many(self, command: TransferMany, running: Running, period: str) -> list[Moved]:
        check_text("note", command.note, empty=True)
        check_few(len(command.lines))
        if not command.lines:
            raise Refused("no_lines")
        periods = dict.fromkeys(line.period or period for line in command.lines)
        usable = {one for one in periods if self._is_usable(one)}
        for one in periods:
            if one in usable:
                self._contracts.require(one)

        def decide(line: Line) -> list[Moved]:
            if (line.period or period) not in usable:
                self._contracts.check(line.period or period)
            if command.note and not line.note:
                line = replace(line, note=command.note)
            return decide_line(line, running, period, self._expand)

        return decide_lines(command.lines, decide)

    def _is_usable(self, period: str) -> bool:
        try:
            self._contracts.check(period)
        except Refused:
            return False
        return True

    # --- back up ----------------------------------------------------------------------------

    def unused(self, command: ReturnUnused, running: Running) -> list[Transferred]:
        check_text("note", command.note, empty=True)
        node = self._hierarchy.member(command.node)
        target = self._ancestor(node, command.target, running.now)
        for end in (node, target):
            check_thawed(end, self._hierarchy, running.now)
        types = self._contracts.types
        if command.usage_type:
            types.check(command.usage_type, money=True)
        usage_types = [command.usage_type] if command.usage_type else types.known(money=True)
        period = command.period or self._running(running.now)
        orders = [
            Return(holder.id, target.id, usage_type, period, available, command.note)
            for usage_type in usage_types
            for holder, available in self._holders(command, node, usage_type, period, running)
        ]
        if not orders:
            raise Refused("nothing_unused", node=node.id, period=period)
        check_few(len(orders))
        return [running.transfer(order) for order in orders]

    def _ancestor(self, node: Member, target: str, now: int) -> Member:
        if target:
            found = self._hierarchy.member(target)
            if found is node or found.ordinal not in node.standing(now):
                raise Refused("not_above", source=node.id, target=target)
            return found
        if node.parent is None:
            raise Refused("nothing_above", node=node.id)
        return node.parent

    def _holders(
        self, command: ReturnUnused, node: Member, usage_type: str, period: str, running: Running
    ) -> list[tuple[Member, int]]:
        family, members = running.family(usage_type, period), self._hierarchy.members
        found = []
        for ordinal in family.holders():
            member = members[ordinal]
            below = member is node or (command.whole_subtree and node.ordinal in member.standing(running.now))
            if below and (available := family.available(ordinal)) > 0:
                found.append((member, available))
        return found

    def _unused_line(self, line: Line, running: Running) -> list[Transferred]:
        wanted = ReturnUnused(line.source, line.target, line.usage_type, line.period, True, line.note)
        return self.unused(wanted, running)

    # --- templates --------------------------------------------------------------------------

    def template(self, command: ApplyTemplate, running: Running) -> list[Transferred]:
        check_text("note", command.note, empty=True)
        rule, usage_type = self._rule(command)
        node = self._hierarchy.member(command.node)
        check_thawed(node, self._hierarchy, running.now)
        period = command.period or self._running(running.now)
        family = running.family(usage_type, period)
        available = family.available(node.ordinal)
        parts = shares(rule, node, available, self._hierarchy, running.now)
        check_few(len(parts))
        asked = sum(part for _, part in parts)
        if asked > available or not parts:
            # All of it or nothing: the first cost centres must not take what the last ones miss.
            raise Refused(
                "insufficient_allowance",
                node=node.id,
                usage_type=usage_type,
                period=period,
                available=available,
                reserved=family.reserved_of(node.ordinal),
                asked=asked,
            )
        note = command.note or (f"template {command.template}" if command.template else "")
        return [
            running.transfer(Allocate(node.id, target.id, usage_type, period, part, note))
            for target, part in parts
        ]

    def _rule(self, command: ApplyTemplate) -> tuple[Rule, str]:
        if (command.rule is None) == (not command.template):
            raise Refused("template_or_rule")
        if command.rule is not None:
            check_rule(command.rule)
            self._contracts.types.check(command.usage_type, money=True)
            return command.rule, command.usage_type
        named = self._templates.named(command.template)
        if command.usage_type:
            self._contracts.types.check(command.usage_type, money=True)
        return named.rule, command.usage_type or named.usage_type

    def _template_line(self, line: Line, running: Running) -> list[Transferred]:
        wanted = ApplyTemplate(line.source, line.target, None, line.usage_type, line.period, line.note)
        return self.template(wanted, running)
