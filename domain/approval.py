"""Approval: transfers above a quantity happen only when somebody who may has approved them.

A rule stands at a member and applies to whatever leaves or reaches it or a member below. Whoever
approves must reach every node that the rules passed on the paths of both sides name: a rule
further down adds to those above it and never loosens them. Meanwhile what would move is reserved.
A rule with a window adds up what one person moves between the same two members: see splitting.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from .bucket import Reason
from .contract import QUANTITY_MAX
from .hierarchy import Hierarchy, Member
from .offer import ENDED_MAX
from .refusals import InvariantBroken, Refused, check_text
from .reservation import Leg, Reservations, legs_of
from .splitting import WINDOWS, Window
from .usage_type import UsageTypes

PROPOSALS_MAX = 10_000
"""Waiting at a time, in one tenant."""
PROPOSAL_DAYS = 7
"""How long a transfer waits for its approval."""

Before = Callable[[Window, Leg], int]
"""What counts with a leg in a window."""
Declining = Literal["declined", "withdrawn", "expired"]


class Approver(Struct, frozen=True, array_like=True):
    """Who must approve: somebody whose reach includes a node, in a role if one is named."""

    node: str
    role: str = ""


class ApprovalRuleSet(Struct, frozen=True, array_like=True):
    """Transfers of more than a quantity need an approval from now on, or no more."""

    topic: ClassVar[str] = "approval.rule_set"
    node: str
    usage_type: str
    above: int | None
    """A transfer of more than this needs it; None lifts the rule."""
    approver: Approver
    four_eyes: bool
    """Whoever asked for the transfer may not approve it."""
    note: str
    window: Window = ""
    """In which what the same person moves between the same two members adds up; "" for none."""


class TransferProposed(Struct, frozen=True, array_like=True):
    """A transfer waits for approval; what it would move is reserved."""

    topic: ClassVar[str] = "transfer.proposed"
    proposal: str
    reason: Reason
    source: str
    target: str
    usage_type: str
    period: str
    quantity: int
    offer: str
    """The offer that is accepted with it; "" for none. Its quantity was reserved by the offer."""
    price_type: str
    price: int
    approvers: tuple[Approver, ...]
    four_eyes: bool
    asked_by: str
    """The actor, as the envelope has it."""
    expires_at: int
    note: str
    before: int = 0
    """What the same person has moved between the two in the rule's window, and counts with it."""

    @property
    def legs(self) -> tuple[Leg, ...]:
        given, price = (self.usage_type, self.quantity), (self.price_type, self.price)
        return legs_of(self.source, self.target, given, price, self.period)

    @property
    def reserved(self) -> Reservations:
        return tuple(leg.reservation for leg in self.legs[1 if self.offer else 0 :])

    @property
    def freed(self) -> Reservations:
        return ()


class TransferApproved(Struct, frozen=True, array_like=True):
    """A transfer was approved; it happens in the same commit."""

    topic: ClassVar[str] = "transfer.approved"
    proposal: str
    source: str
    target: str
    freed: Reservations
    offer: str
    """The offer that `quantity` was accepted of; "" for none."""
    quantity: int
    note: str

    @property
    def reserved(self) -> Reservations:
        return ()


class TransferDeclined(Struct, frozen=True, array_like=True):
    """A transfer will not happen; what it had reserved is free, or part of its offer again."""

    topic: ClassVar[str] = "transfer.declined"
    proposal: str
    source: str
    target: str
    freed: Reservations
    offer: str
    """The offer that `quantity` was accepted of; "" for none."""
    quantity: int
    because: Declining
    """`withdrawn`: by who had asked for it."""
    note: str

    @property
    def reserved(self) -> Reservations:
        return ()


class SetApprovalRule(Struct, frozen=True, array_like=True):
    """Ask for approval of transfers that leave or reach a member or what is below; None lifts the rule."""

    node: str
    usage_type: str
    above: int | None
    approver: Approver
    four_eyes: bool = False
    note: str = ""
    window: Window = ""


class ApproveTransfer(Struct, frozen=True, array_like=True):
    """Approve a transfer. Who asks was found to reach its approvers."""

    proposal: str
    note: str = ""


class DeclineTransfer(Struct, frozen=True, array_like=True):
    """Decline a transfer, or withdraw it as who had asked for it."""

    proposal: str
    note: str = ""


class ExpireProposal(Struct, frozen=True, array_like=True):
    """End a transfer that nobody has approved in time."""

    proposal: str


class Proposal(Struct, frozen=True, array_like=True):
    """A transfer that waits, or waited, for approval."""

    asked: TransferProposed
    ended: str = ""
    """"approved", or why it was declined; "" while it waits."""


ApprovalEvent = ApprovalRuleSet | TransferProposed | TransferApproved | TransferDeclined


class Approvals:
    """The rules in force, the transfers that wait, and how others ended."""

    def __init__(self, types: UsageTypes) -> None:
        self._types = types
        self.rules: dict[tuple[int, str], ApprovalRuleSet] = {}
        self.waiting: dict[str, Proposal] = {}
        self.ended: dict[str, Proposal] = {}
        self.proposed = 0
        """How many there ever were: the next one's number."""

    # --- asked by decisions -------------------------------------------------------------------

    def rule(self, command: SetApprovalRule, hierarchy: Hierarchy) -> ApprovalRuleSet:
        member = hierarchy.member(command.node)
        self._types.check(command.usage_type, money=True)
        if command.above is not None and not 0 <= command.above <= QUANTITY_MAX:
            raise Refused("quantity_out_of_range", quantity=command.above, quantity_max=QUANTITY_MAX)
        check_text("note", command.note, empty=True)
        check_text("role", command.approver.role, empty=True)
        if command.window not in WINDOWS:
            raise Refused("unknown_rule_window", window=command.window, known=[*WINDOWS[1:]])
        approver = Approver(hierarchy.node(command.approver.node).id, command.approver.role)
        return ApprovalRuleSet(
            *(member.id, command.usage_type, command.above, approver, command.four_eyes, command.note),
            command.window,
        )

    def passed(
        self, legs: Iterable[Leg], members: Mapping[str, Member], now: int, before: Before
    ) -> tuple[tuple[Approver, ...], bool, int]:
        """Who must approve these legs, nobody if no rule is passed; whether that takes four eyes; and what
        was moved before that made it so."""
        if not self.rules:
            return (), False, 0
        passed = [found for leg in legs for found in self._passed(leg, members, now, before)]
        approvers = sorted({rule.approver for rule, _ in passed}, key=lambda one: (one.node, one.role))
        most = max((moved for _, moved in passed), default=0)
        return tuple(approvers), any(rule.four_eyes for rule, _ in passed), most

    def _passed(
        self, leg: Leg, members: Mapping[str, Member], now: int, before: Before
    ) -> Iterator[tuple[ApprovalRuleSet, int]]:
        for rule in self.standing_over(leg, members, now):
            moved = before(rule.window, leg)
            assert rule.above is not None, "a rule that was lifted is none"
            if leg.quantity + moved > rule.above:
                yield rule, moved

    def standing_over(self, leg: Leg, members: Mapping[str, Member], now: int) -> Iterator[ApprovalRuleSet]:
        """The rules for this type on the paths of both sides."""
        for ordinal in {*members[leg.source].standing(now), *members[leg.target].standing(now)}:
            rule = self.rules.get((ordinal, leg.usage_type))
            if rule is not None:
                yield rule

    def next_id(self) -> str:
        if len(self.waiting) >= PROPOSALS_MAX:
            raise Refused("too_many_proposals", proposals_max=PROPOSALS_MAX)
        return f"p-{self.proposed + 1}"

    def known(self, ident: str) -> Proposal | None:
        return self.waiting.get(ident) or self.ended.get(ident)

    def standing(self, ident: str) -> TransferProposed:
        proposal = self.known(ident)
        if proposal is None:
            raise Refused("unknown_proposal", proposal=ident)
        if proposal.ended:
            raise Refused("proposal_gone", proposal=ident, ended=proposal.ended)
        return proposal.asked

    def to_approve(self, ident: str, by: str, now: int) -> TransferProposed:
        asked = self.standing(ident)
        if now >= asked.expires_at:
            raise Refused("proposal_expired", proposal=ident, expires_at=asked.expires_at)
        if asked.four_eyes and person_of(by) == person_of(asked.asked_by):
            raise Refused("four_eyes", proposal=ident)
        return asked

    # --- applied ------------------------------------------------------------------------------

    def apply(self, event: ApprovalEvent, hierarchy: Hierarchy) -> None:
        match event:
            case ApprovalRuleSet(node, usage_type, above):
                key = (hierarchy.by_id[node].ordinal, usage_type)
                if above is None:
                    self.rules.pop(key, None)
                else:
                    self.rules[key] = event
            case TransferProposed(proposal):
                self.proposed += 1
                self.waiting[proposal] = Proposal(event)
            case TransferApproved(proposal):
                self._end(proposal, "approved", event.freed)
            case TransferDeclined(proposal, because=because):
                self._end(proposal, because, event.freed)

    def _end(self, ident: str, how: str, freed: Reservations) -> None:
        proposal = self.waiting.pop(ident)
        reserved = {leg.reservation for leg in proposal.asked.legs}
        if not set(freed) <= reserved:
            raise InvariantBroken("a proposal frees what it reserved", proposal=ident)
        self.ended[ident] = replace(proposal, ended=how)
        if len(self.ended) > ENDED_MAX:
            del self.ended[next(iter(self.ended))]


def person_of(actor: str) -> str:
    """The one who really acts, whatever the role: "u-1" of "telecoms_manager:u-1", "u-2" of "...;act=u-2"."""
    subject, _, acting = actor.partition(":")[2].partition(";act=")
    return acting or subject
