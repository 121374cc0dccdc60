"""Offers: quantity that a node offers to another, or to everybody below a node, for something or nothing.

What is offered is reserved in its bucket until it is taken, withdrawn or expired. At every moment
offered = accepted + pending (waiting for approval) + left, and any part that changes hands comes
out whole on both sides by the agreed rate.
"""

from math import gcd
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from .contract import QUANTITY_MAX
from .hierarchy import Hierarchy, Member
from .refusals import InvariantBroken, Refused, check_text
from .reservation import Leg, Reservation, Reservations, legs_of
from .usage_type import UsageTypes

OFFERS_MAX = 10_000
"""Open at a time, of one tenant."""
ENDED_MAX = 10_000
"""Offers that are over and still known by how they ended; the oldest are forgotten first."""
OFFER_DAYS = 7
"""How long an offer is open that names no end."""

Closing = Literal["withdrawn", "countered", "expired", "declined"]


class Ask(Struct, frozen=True, array_like=True):
    """What is wanted in return: `quantity` units of `usage_type` for every `per` units of the offer."""

    usage_type: str = ""
    """"" asks for nothing; "money" is internal money, in micro-units."""
    quantity: int = 0
    per: int = 1

    @property
    def lot(self) -> int:
        """The smallest part that comes out whole on both sides; others are multiples of it."""
        return self.per // gcd(self.quantity, self.per) if self.usage_type else 1

    def price_of(self, quantity: int) -> int:
        price, rest = divmod(quantity * self.quantity, self.per)
        if rest:
            raise InvariantBroken("both sides of an exchange are whole", quantity=quantity, ask=self)
        return price


NOTHING_ASKED = Ask()


class OfferMade(Struct, frozen=True, array_like=True):
    """Quantity is offered, and reserved in the bucket of who offers it."""

    topic: ClassVar[str] = "offer.made"
    offer: str
    source: str
    target: str
    """Who may take it."""
    everybody: bool
    """Not the target alone: everybody at and below it."""
    usage_type: str
    period: str
    quantity: int
    asks: Ask
    whole: bool
    """It is taken all at once, or not at all."""
    expires_at: int
    counters: str
    """The offer that this one answers; "" for none."""
    note: str

    @property
    def reserved(self) -> Reservations:
        return (Reservation(self.source, self.usage_type, self.period, self.quantity),)

    @property
    def freed(self) -> Reservations:
        return ()

    @property
    def lot(self) -> int:
        return self.quantity if self.whole else self.asks.lot


class OfferAccepted(Struct, frozen=True, array_like=True):
    """An offer was taken, or part of it; both legs of the exchange move in the same commit."""

    topic: ClassVar[str] = "offer.accepted"
    offer: str
    source: str
    target: str
    """Who took it."""
    usage_type: str
    period: str
    quantity: int
    price_type: str
    price: int
    left: int
    """Of the offer, after it."""
    proposal: str
    """The approval it waited for; "" for none."""
    note: str

    @property
    def reserved(self) -> Reservations:
        return ()

    @property
    def freed(self) -> Reservations:
        """What waited for approval was freed by the approval."""
        return () if self.proposal else (self.legs[0].reservation,)

    @property
    def legs(self) -> tuple[Leg, ...]:
        given, price = (self.usage_type, self.quantity), (self.price_type, self.price)
        return legs_of(self.source, self.target, given, price, self.period)


class OfferClosed(Struct, frozen=True, array_like=True):
    """An offer is over; what was left of it is free again."""

    topic: ClassVar[str] = "offer.closed"
    offer: str
    source: str
    target: str
    usage_type: str
    period: str
    left: int
    because: Closing
    """`countered`: who made it has accepted a counter-offer. `declined`: by the one it was made to."""
    note: str

    @property
    def reserved(self) -> Reservations:
        return ()

    @property
    def freed(self) -> Reservations:
        left = Reservation(self.source, self.usage_type, self.period, self.left)
        return (left,) if self.left else ()


class OfferTrade(Struct, frozen=True, array_like=True):
    """Offer some of a node's quantity: to a target, or to everybody at and below it ("": the enterprise).

    With `counters` it answers another offer, and goes to who made that.
    """

    offer: str
    source: str
    usage_type: str
    quantity: int
    asks: Ask = NOTHING_ASKED
    target: str = ""
    everybody: bool = False
    period: str = ""
    whole: bool = False
    expires_at: int = 0
    """0 leaves it to us."""
    counters: str = ""
    note: str = ""


class AcceptOffer(Struct, frozen=True, array_like=True):
    """Take an offer for a node: all that is left of it, or a part."""

    offer: str
    target: str
    quantity: int | None = None
    note: str = ""


class WithdrawOffer(Struct, frozen=True, array_like=True):
    """Take back what is left of an offer."""

    offer: str
    note: str = ""


class DeclineOffer(Struct, frozen=True, array_like=True):
    """Say no to an offer, as the node that it was made to: what is left of it is free again."""

    offer: str
    target: str
    note: str = ""


class ExpireOffer(Struct, frozen=True, array_like=True):
    """End an offer whose time is over."""

    offer: str


class Offer(Struct, frozen=True, array_like=True):
    """An offer, as its next decision needs it."""

    made: OfferMade
    left: int
    pending: int = 0
    """Accepted, and waiting for approval."""
    accepted: int = 0
    ended: str = ""
    """How: "accepted", or why it was closed; "" while it is open."""


OfferEvent = OfferMade | OfferAccepted | OfferClosed


class Offers:
    """The open offers of a tenant, and how others ended."""

    def __init__(self, types: UsageTypes) -> None:
        self._types = types
        self.open: dict[str, Offer] = {}
        self.ended: dict[str, Offer] = {}

    # --- asked by decisions -------------------------------------------------------------------

    def known(self, ident: str) -> Offer | None:
        return self.open.get(ident) or self.ended.get(ident)

    def standing(self, ident: str, now: int) -> Offer:
        """An offer that can be taken; refuses one that is over, and says how it ended."""
        offer = self.known(ident)
        if offer is None:
            raise Refused("unknown_offer", offer=ident)
        if offer.ended == "expired" or (not offer.ended and now >= offer.made.expires_at):
            raise Refused("offer_expired", offer=ident, expires_at=offer.made.expires_at)
        if offer.ended:
            raise Refused("offer_gone", offer=ident, ended=offer.ended, left=0)
        return offer

    def check_new(self, command: OfferTrade) -> None:
        """Refuses what no bucket and no hierarchy could make right."""
        check_text("offer", command.offer)
        check_text("note", command.note, empty=True)
        if self.known(command.offer) is not None:
            raise Refused("exists_already", id=command.offer)
        if len(self.open) >= OFFERS_MAX:
            raise Refused("too_many_offers", offers_max=OFFERS_MAX)
        self._types.check(command.usage_type, money=True)
        check_quantity(command.quantity)
        self._check_ask(command)

    def _check_ask(self, command: OfferTrade) -> None:
        asks, quantity = command.asks, command.quantity
        if not asks.usage_type:
            if asks != NOTHING_ASKED:
                raise Refused("unknown_usage_type", usage_type="", known=self._types.known(money=True))
            return
        self._types.check(asks.usage_type, money=True)
        check_quantity(asks.quantity)
        check_quantity(asks.per)
        if asks.usage_type == command.usage_type:
            raise Refused("same_usage_type", usage_type=asks.usage_type)
        if quantity % asks.lot:
            below = quantity // asks.lot * asks.lot
            nearest = [one for one in (below, below + asks.lot) if one > 0]
            raise Refused("uneven_quantity", quantity=quantity, lot=asks.lot, nearest=nearest)
        if asks.price_of(quantity) > QUANTITY_MAX:
            raise Refused("quantity_out_of_range", quantity=quantity, quantity_max=QUANTITY_MAX)

    # --- applied ------------------------------------------------------------------------------

    def apply(self, event: OfferEvent) -> None:
        match event:
            case OfferMade(ident, quantity=quantity):
                self.open[ident] = Offer(event, quantity)
            case OfferAccepted(ident, quantity=quantity, proposal=proposal):
                if not proposal:
                    offer = self.open[ident]
                    self._put(replace(offer, left=offer.left - quantity, accepted=offer.accepted + quantity))
                offer = self.known(ident) or Offer(_FORGOTTEN, 0)
                if offer.left != event.left:
                    raise InvariantBroken("an acceptance tells what is left", offer=ident, left=offer.left)
            case OfferClosed(ident, left=left, because=because):
                offer = self.open[ident]
                if offer.left != left:
                    raise InvariantBroken("a closed offer frees what was left", offer=ident, left=offer.left)
                self._put(replace(offer, left=0, ended=because))

    def wait(self, ident: str, quantity: int) -> None:
        """A part of it waits for approval."""
        offer = self.open[ident]
        self._put(replace(offer, left=offer.left - quantity, pending=offer.pending + quantity))

    def settle(self, ident: str, quantity: int, *, accepted: bool) -> None:
        """A part of it waits no longer: taken, or offered again where the offer is still open."""
        offer = self.known(ident)
        if offer is None:
            return
        pending = offer.pending - quantity
        if accepted:
            self._put(replace(offer, pending=pending, accepted=offer.accepted + quantity))
        else:
            back = 0 if offer.ended else quantity
            self._put(replace(offer, pending=pending, left=offer.left + back))

    def _put(self, offer: Offer) -> None:
        ident = offer.made.offer
        if min(offer.left, offer.pending, offer.accepted) < 0:
            raise InvariantBroken("no more of an offer is taken than was offered", offer=offer)
        if not offer.ended and not offer.left and not offer.pending:
            offer = replace(offer, ended="accepted")
        if not offer.ended:
            self.open[ident] = offer
            return
        self.open.pop(ident, None)
        self.ended[ident] = offer
        if len(self.ended) > ENDED_MAX:
            del self.ended[next(iter(self.ended))]

    def check_whole(self) -> None:
        for offer in self.open.values():
            if offer.made.quantity != offer.left + offer.pending + offer.accepted:
                raise InvariantBroken("offered = accepted + pending + left", offer=offer)
            if offer.left % offer.made.lot or offer.accepted % offer.made.lot:
                raise InvariantBroken("an offer is taken in whole lots", offer=offer)


def taken(offer: Offer, quantity: int | None) -> int:
    """How much of an offer is taken; refuses what is not there, or would not come out whole."""
    wanted, lot, left = offer.left if quantity is None else quantity, offer.made.lot, offer.left
    ident = offer.made.offer
    if quantity is not None:
        check_quantity(quantity)
    if wanted > left or not left:
        raise Refused("insufficient_offer", offer=ident, left=left, pending=offer.pending)
    if wanted % lot:
        below = wanted // lot * lot
        nearest = [one for one in (below, below + lot) if 0 < one <= left]
        raise Refused("uneven_quantity", quantity=wanted, lot=lot, nearest=nearest)
    return wanted


def check_addressed(offer: OfferMade, member: Member, hierarchy: Hierarchy, now: int) -> None:
    """Refuses a member that the offer was not made to."""
    target = hierarchy.member(offer.target)
    if target is not member and not (offer.everybody and target.ordinal in member.standing(now)):
        raise Refused("not_addressed", offer=offer.offer, node=member.id)


def check_sides(source: Member, target: Member, now: int) -> None:
    """Refuses a trade of a member with itself, or with one above or below it."""
    if source is target:
        raise Refused("same_node", node=source.id)
    if source.ordinal in target.standing(now):
        raise Refused("not_a_trade", source=source.id, target=target.id, remedy="allocate")
    if target.ordinal in source.standing(now):
        raise Refused("not_a_trade", source=source.id, target=target.id, remedy="return")


def check_quantity(quantity: int) -> None:
    if quantity <= 0:
        raise Refused("not_positive", quantity=quantity)
    if quantity > QUANTITY_MAX:
        raise Refused("quantity_out_of_range", quantity=quantity, quantity_max=QUANTITY_MAX)


_FORGOTTEN = OfferMade("", "", "", False, "", "", 0, NOTHING_ASKED, False, 0, "", "")
"""Stands for an offer that ended so long ago that nothing of it is known: nothing is left of it."""
