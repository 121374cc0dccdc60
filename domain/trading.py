"""Trading: what may change hands between members, at once, by offer and acceptance, or once approved.

Every movement is a `Transferred`, so each of its types sums to zero over all members; what offers
and waiting transfers have promised is reserved, and frees exactly that. Both legs of an exchange
are decided together and stored in one commit.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from msgspec import Struct

from .approval import (
    PROPOSAL_DAYS,
    ApprovalEvent,
    ApprovalRuleSet,
    Approvals,
    ApproveTransfer,
    DeclineTransfer,
    Declining,
    ExpireProposal,
    SetApprovalRule,
    TransferApproved,
    TransferDeclined,
    TransferProposed,
    person_of,
)
from .bucket import NEVER, Family, Reason, Transferred
from .contract import Contracts, PeriodOpened, name_of
from .hierarchy import Hierarchy
from .offer import (
    OFFER_DAYS,
    AcceptOffer,
    Closing,
    DeclineOffer,
    ExpireOffer,
    Offer,
    OfferAccepted,
    OfferClosed,
    OfferEvent,
    OfferMade,
    Offers,
    OfferTrade,
    WithdrawOffer,
    check_addressed,
    check_sides,
    taken,
)
from .permit import Permit, leg_of
from .refusals import InvariantBroken, Refused, check_text
from .reservation import Leg, Place, Reservation, free, reserve
from .splitting import Pieces, TransferCounted
from .trade_rules import SetTradeRules, TradeRules, TradeRulesSet

DAY = 86_400_000_000
E = TypeVar("E")


class TransferUndone(Struct, frozen=True, array_like=True):
    """A transfer, or both legs of an accepted offer, goes back in the same commit."""

    topic: ClassVar[str] = "transfer.undone"
    seq: int
    """The event that is undone."""
    source: str
    target: str
    legs: tuple[Leg, ...]
    """As they had moved."""
    note: str


class UndoTransfer(Struct, frozen=True, array_like=True):
    """Move back what a transfer or an acceptance has moved. Its legs are read from the log by who asks."""

    seq: int
    legs: tuple[Leg, ...]
    note: str = ""


TradingCommand = (
    OfferTrade
    | AcceptOffer
    | WithdrawOffer
    | DeclineOffer
    | ExpireOffer
    | SetApprovalRule
    | ApproveTransfer
    | DeclineTransfer
    | ExpireProposal
    | SetTradeRules
    | UndoTransfer
)
TradingEvent = OfferEvent | ApprovalEvent | TransferCounted | TradeRulesSet | TransferUndone
Told = TradingEvent | Transferred
Reserving = OfferEvent | TransferProposed | TransferApproved | TransferDeclined
"""Events that change what is reserved."""


class Trading:
    """Offers, approvals, and what was traded how often."""

    def __init__(
        self, hierarchy: Hierarchy, contracts: Contracts, families: dict[tuple[str, str], Family]
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._families = families
        self.offers = Offers(contracts.types)
        self.approvals = Approvals(contracts.types)
        self.rules = TradeRules(hierarchy)
        self.pieces = Pieces(hierarchy)
        self.undone: set[int] = set()
        """The seqs of what was undone."""
        self._remembered: int | None = None
        """When something is due next, `NEVER` for nothing; None when it must be looked for."""

    # --- what time itself asks for ------------------------------------------------------------

    def due(self, now: int) -> list[ExpireOffer | ExpireProposal]:
        if (self.next_due() or NEVER) > now:
            return []
        due = [(at, command) for at, command in self._ends() if at <= now]
        return [command for _, command in sorted(due, key=lambda one: one[0])]

    def next_due(self) -> int | None:
        if self._remembered is None:
            self._remembered = min((at for at, _ in self._ends()), default=NEVER)
        return None if self._remembered == NEVER else self._remembered

    def _ends(self) -> Iterator[tuple[int, ExpireOffer | ExpireProposal]]:
        for ident, offer in self.offers.open.items():
            yield offer.made.expires_at, ExpireOffer(ident)
        for ident, proposal in self.approvals.waiting.items():
            yield proposal.asked.expires_at, ExpireProposal(ident)

    # --- decide -------------------------------------------------------------------------------

    def decide(self, command: TradingCommand, now: int, by: str) -> list[Told]:
        match command:
            case OfferTrade():
                return [self._make(command, now)]
            case AcceptOffer():
                return self._accept(command, now, by)
            case WithdrawOffer(ident, note):
                check_text("note", note, empty=True)
                return [_closed(self.offers.standing(ident, now), "withdrawn", note)]
            case DeclineOffer():
                return [self._decline_offer(command, now)]
            case ExpireOffer(ident):
                return [self._expire_offer(ident, now)]
            case SetApprovalRule():
                return [self.approvals.rule(command, self._hierarchy)]
            case ApproveTransfer():
                return self._approve(command, now, by)
            case DeclineTransfer(ident, note):
                check_text("note", note, empty=True)
                asked = self.approvals.standing(ident)
                own = person_of(by) == person_of(asked.asked_by)
                return [self._declined(asked, "withdrawn" if own else "declined", note)]
            case ExpireProposal(ident):
                asked = self.approvals.standing(ident)
                if now < asked.expires_at:
                    raise Refused("not_due", id=ident, due_at=asked.expires_at)
                return [self._declined(asked, "expired", "")]
            case SetTradeRules():
                return [self.rules.decide(command)]
            case UndoTransfer():
                return self._undo(command)

    def settled(self, transferred: Transferred, now: int, by: str) -> list[Told]:
        """What becomes of a transfer that its buckets allow: it happens, or it waits for approval."""
        if self.rules.trades_max is None and not self.approvals.rules:
            return [transferred]
        leg = leg_of(transferred)
        if transferred.reason == "trade":
            self.rules.check((leg,))
        proposed = self._proposed((leg,), transferred.reason, "", transferred.note, now, by)
        return [proposed] if proposed is not None else [*self.counted([transferred], now, by)]

    def permit(self, by: str) -> Permit:
        """What an actor may move without approval."""
        parts = (self.rules, self.approvals, self.pieces, self._hierarchy, self._contracts.zone)
        return Permit(*parts, person_of(by) or by)

    def counted(self, events: Sequence[E], now: int, by: str) -> list[E | TransferCounted]:
        """These events, and what of their transfers counts for those to come."""
        return [*events, *self.permit(by).counted(events, now)]

    # --- offers -------------------------------------------------------------------------------

    def _make(self, command: OfferTrade, now: int) -> OfferMade:
        self.offers.check_new(command)
        source = self._hierarchy.member(command.source)
        target = self._hierarchy.member(command.target) if command.target else self._hierarchy.root
        everybody = command.everybody or not command.target
        if command.counters:
            answered = self.offers.standing(command.counters, now).made
            check_addressed(answered, source, self._hierarchy, now)
            if command.target not in ("", answered.source):
                raise Refused("not_addressed", offer=answered.offer, node=command.target)
            target, everybody = self._hierarchy.member(answered.source), False
        if not everybody:
            check_sides(source, target, now)
        elif source.ordinal in target.standing(now):
            # Everybody there is below who offers: nobody could take it.
            raise Refused("not_a_trade", source=source.id, target=target.id, remedy="allocate")
        period = command.period or name_of(now, self._contracts.zone)
        opened = self._contracts.require(period)
        expires_at = _until(command.expires_at, opened, now)
        self._check_available(Leg(source.id, target.id, command.usage_type, period, command.quantity))
        return OfferMade(
            *(command.offer, source.id, target.id, everybody, command.usage_type, period, command.quantity),
            *(command.asks, command.whole, expires_at, command.counters, command.note),
        )

    def _accept(self, command: AcceptOffer, now: int, by: str) -> list[Told]:
        offer = self.offers.standing(command.offer, now)
        made, members = offer.made, self._hierarchy
        source, target = members.member(made.source), members.member(command.target)
        check_text("note", command.note, empty=True)
        check_addressed(made, target, members, now)
        check_sides(source, target, now)
        quantity = taken(offer, command.quantity)
        accepted = _accepted(offer, target.id, quantity, offer.left - quantity, command.note)
        answered = self.offers.open.get(made.counters)
        if answered is not None and answered.made.source != target.id:
            answered = None
        # Who accepts a counter-offer agrees to other terms: what was offered first is free again.
        before: list[Told] = [_closed(answered, "countered", "")] if answered is not None else []
        for leg in accepted.legs[1:]:
            self._check_available(leg, answered)
        self.rules.check(accepted.legs)
        proposed = self._proposed(accepted.legs, "trade", made.offer, command.note, now, by)
        if proposed is not None:
            return [*before, proposed]
        moved = _moved(accepted.legs, "trade", command.note)
        return [*before, accepted, *self.counted(moved, now, by)]

    def _decline_offer(self, command: DeclineOffer, now: int) -> OfferClosed:
        check_text("note", command.note, empty=True)
        offer = self.offers.standing(command.offer, now)
        check_addressed(offer.made, self._hierarchy.member(command.target), self._hierarchy, now)
        if offer.made.everybody:
            # Others may want it.
            raise Refused("offer_to_everybody", offer=command.offer)
        return _closed(offer, "declined", command.note)

    def _expire_offer(self, ident: str, now: int) -> OfferClosed:
        offer = self.offers.open.get(ident)
        if offer is None:
            raise Refused("unknown_offer", offer=ident)
        if now < offer.made.expires_at:
            raise Refused("not_due", id=ident, due_at=offer.made.expires_at)
        return _closed(offer, "expired", "")

    # --- approvals ----------------------------------------------------------------------------

    def _proposed(
        self, legs: tuple[Leg, ...], reason: Reason, offer: str, note: str, now: int, by: str
    ) -> TransferProposed | None:
        """The proposal that these legs need, or None where no rule asks for one."""
        approvers, four_eyes, before = self.permit(by).passed(legs, now)
        if not approvers:
            return None
        leg, price = legs[0], legs[1] if len(legs) > 1 else None
        ends_at = self._contracts.periods[leg.period].ends_at
        until = now + PROPOSAL_DAYS * DAY
        return TransferProposed(
            *(self.approvals.next_id(), reason, leg.source, leg.target, leg.usage_type, leg.period),
            *(leg.quantity, offer, price.usage_type if price else "", price.quantity if price else 0),
            approvers=approvers,
            four_eyes=four_eyes,
            asked_by=by,
            expires_at=min(until, ends_at) if ends_at > now else until,
            note=note,
            before=before,
        )

    def _approve(self, command: ApproveTransfer, now: int, by: str) -> list[Told]:
        check_text("note", command.note, empty=True)
        asked = self.approvals.to_approve(command.proposal, by, now)
        legs = asked.legs
        freed = tuple(leg.reservation for leg in legs)
        approved = TransferApproved(
            *(asked.proposal, asked.source, asked.target, freed, asked.offer, asked.quantity, command.note)
        )
        accepted: list[Told] = []
        if asked.offer:
            accepted = [_accepted_at_last(self.offers.known(asked.offer), asked)]
        return [approved, *accepted, *_moved(legs, asked.reason, asked.note)]

    def _declined(self, asked: TransferProposed, because: Declining, note: str) -> TransferDeclined:
        freed = tuple(leg.reservation for leg in asked.legs)
        if asked.offer in self.offers.open:
            # It goes back to the offer, which goes on.
            freed = freed[1:]
        return TransferDeclined(
            *(asked.proposal, asked.source, asked.target, freed, asked.offer, asked.quantity, because, note)
        )

    # --- undoing ---------------------------------------------------------------------------

    def _undo(self, command: UndoTransfer) -> list[Told]:
        check_text("note", command.note, empty=True)
        if not command.legs:
            raise Refused("not_a_transfer", seq=command.seq)
        if command.seq in self.undone:
            raise Refused("undone_already", seq=command.seq)
        for leg in command.legs:
            self._contracts.require(leg.period)
            self._check_available(leg.back)
        first = command.legs[0]
        undone = TransferUndone(command.seq, first.source, first.target, command.legs, command.note)
        return [undone, *_moved(tuple(leg.back for leg in command.legs), "undo", command.note)]

    def _check_available(self, leg: Leg, freed: Offer | None = None) -> None:
        """Refuses to move, or to reserve, what is not there or is reserved for somebody else."""
        family = self._families[leg.usage_type, leg.period]
        ordinal = self._hierarchy.by_id[leg.source].ordinal
        available = family.available(ordinal)
        if freed is not None and (freed.made.usage_type, freed.made.period) == (leg.usage_type, leg.period):
            available += freed.left
        if leg.quantity > available:
            raise Refused(
                "insufficient_allowance",
                node=leg.source,
                usage_type=leg.usage_type,
                period=leg.period,
                available=available,
                reserved=family.reserved[ordinal],
                quantity=leg.quantity,
            )

    # --- applied ------------------------------------------------------------------------------

    def apply(self, event: TradingEvent) -> None:
        self._remembered = None
        match event:
            case TradeRulesSet(trades_max):
                self.rules.trades_max = trades_max
            case TransferCounted():
                self.pieces.apply(event)
            case TransferUndone(seq):
                if seq in self.undone:
                    raise InvariantBroken("a transfer is undone once", seq=seq)
                self.undone.add(seq)
            case ApprovalRuleSet():
                self.approvals.apply(event, self._hierarchy)
            case _:
                self._apply_reserving(event)

    def _apply_reserving(self, event: Reserving) -> None:
        match event:
            case OfferMade() | OfferAccepted() | OfferClosed():
                self.offers.apply(event)
            case _:
                self.approvals.apply(event, self._hierarchy)
        match event:
            case TransferProposed(offer=offer, quantity=quantity) if offer:
                self.offers.wait(offer, quantity)
            case TransferApproved(offer=offer, quantity=quantity) if offer:
                self.offers.settle(offer, quantity, accepted=True)
            case TransferDeclined(offer=offer, quantity=quantity) if offer:
                self.offers.settle(offer, quantity, accepted=False)
        free(self._families, self._hierarchy, event.freed)
        reserve(self._families, self._hierarchy, event.reserved)

    def reserved(self) -> dict[Place, int]:
        """What open offers and waiting transfers have reserved, bucket by bucket."""
        kept = [
            Reservation(offer.made.source, offer.made.usage_type, offer.made.period, offer.left)
            for offer in self.offers.open.values()
        ]
        kept += [leg.reservation for one in self.approvals.waiting.values() for leg in one.asked.legs]
        places: dict[Place, int] = {}
        for one in kept:
            place = (one.usage_type, one.period, self._hierarchy.by_id[one.node].ordinal)
            places[place] = places.get(place, 0) + one.quantity
        return places

    def check_whole(self) -> None:
        self.offers.check_whole()
        self.pieces.check_whole()
        pending: dict[str, int] = {}
        for proposal in self.approvals.waiting.values():
            ident = proposal.asked.offer
            pending[ident] = pending.get(ident, 0) + proposal.asked.quantity
        for ident, offer in self.offers.open.items():
            if offer.pending != pending.get(ident, 0):
                raise InvariantBroken("what is pending waits for approval", offer=ident)


def _until(asked: int, period: PeriodOpened, now: int) -> int:
    """When an offer ends: within its period, so that nothing is promised beyond it."""
    if period.ends_at <= now:
        raise Refused("period_over", period=period.period)
    expires_at = asked or min(now + OFFER_DAYS * DAY, period.ends_at)
    if not now < expires_at <= period.ends_at:
        raise Refused("bad_expiry", expires_at=expires_at, latest=period.ends_at)
    return expires_at


def _accepted(offer: Offer, target: str, quantity: int, left: int, note: str) -> OfferAccepted:
    made = offer.made
    return OfferAccepted(
        *(made.offer, made.source, target, made.usage_type, made.period, quantity),
        *(made.asks.usage_type, made.asks.price_of(quantity), left, "", note),
    )


def _accepted_at_last(offer: Offer | None, asked: TransferProposed) -> OfferAccepted:
    """The acceptance that waited for approval; nothing is left of an offer that is over."""
    left = offer.left if offer is not None else 0
    return OfferAccepted(
        *(asked.offer, asked.source, asked.target, asked.usage_type, asked.period, asked.quantity),
        *(asked.price_type, asked.price, left, asked.proposal, asked.note),
    )


def _closed(offer: Offer, because: Closing, note: str) -> OfferClosed:
    made = offer.made
    return OfferClosed(
        made.offer, made.source, made.target, made.usage_type, made.period, offer.left, because, note
    )


def _moved(legs: tuple[Leg, ...], reason: Reason, note: str) -> list[Transferred]:
    """The legs, each from bucket to bucket; what one side gives the other gets."""
    return [
        Transferred(leg.source, leg.target, leg.usage_type, leg.period, leg.quantity, reason, note)
        for leg in legs
    ]
