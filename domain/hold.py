"""Holds: what a running session keeps back, so that nobody else can have it meanwhile.

A session holds what all it has used, and the slice granted beyond that, would cost as one whole
usage: parts of the buckets on its path, overage, money. Held units are `reserved` in their
buckets and count as used at every member of the path, so consumed + reserved passes no limit.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from .bucket import NEVER, Drawn, Family
from .cap import CapReached, count_drawn, reached
from .charging import uncovered
from .hierarchy import Member, Path
from .limit import Limits, Stop, ThresholdCrossed
from .policy import Asked, Ruling, priced_above
from .rating.sessions import begun_before, has_ended, may_cost_more
from .refusals import InvariantBroken
from .slicing import Wish
from .tariff import EXACT_MAX, NOTHING, CompiledRate, Rated
from .usage import MONEY


class Hold(Struct, frozen=True, array_like=True, gc=False):
    """What is held for one session, priced as one whole usage."""

    total: int
    """Used so far and granted beyond it."""
    billed: int
    """`total`, rounded up to the tariff's increment."""
    drawn: Drawn
    """What is reserved in each bucket, in the order of consumption: (ordinal, quantity)."""
    overage: int
    amount: int


NO_HOLD = Hold(0, 0, (), 0, 0)


class Slice(Struct, frozen=True):
    """What may be used next."""

    hold: Hold
    quantity: int
    """The slice; 0 is a denial."""
    final: bool
    """Nothing is left beyond it."""


class Terms:
    """By what one session is charged: its rate and path, what it holds and what it has used.

    What was used within the hold can be charged whatever the limits say now; beyond that they are
    asked again.
    """

    def __init__(
        self,
        rate: CompiledRate,
        path: Path,
        families: tuple[Family, Family],
        limits: Limits,
        own: Hold,
        used: int,
        asked: Asked,
        *,
        overage: bool,
        frozen: int | None = None,
        spared: bool = False,
    ) -> None:
        self.rate = rate
        self.path = path
        self.asked = asked
        self._policies = bool(limits.policies) and not spared
        self._may_cost_more = self._policies or may_cost_more(rate)
        """Than it was held for: a policy prices it, or its plan has gone on meanwhile."""
        self.family, self.money = families
        self.limits = limits
        self.own = own
        self.used = used
        self._safe = min(used, own.total)
        self._overage = overage or not rate.included
        self._held = dict(own.drawn)
        self.ends = False
        """Whether the maximum charge of the rate ends it: then nothing is granted beyond."""
        self._frozen = frozen
        """Who on the path is frozen: then only what was granted before may be used."""

    def grant(self, wish: Wish, crowd: int, sharing: Callable[[Stop], int]) -> Slice:
        """The slice after what is used: as wished where there is plenty for the whole crowd, or a share.

        `sharing`: how many of the crowd draw on what somebody stops.
        """
        used, plenty = self.used, max(wish.quantity * wish.shares(crowd), wish.quantity + 1)
        if self.fits(used + plenty):
            return Slice(self.priced(used + wish.quantity)[0], wish.quantity, final=False)
        stop = self.stop(used + plenty)
        among = sharing(stop) if stop is not None and crowd > 1 else crowd
        most = wish.quantity * wish.shares(among)
        total = used + wish.of(self.largest(used + most) - used, among)
        total = min(total, self.largest(total))
        hold, _ = self.priced(total)
        slice_ = max(0, total - used)
        return Slice(hold, slice_, final=bool(slice_) and not self.fits(total + 1))

    def largest(self, most: int) -> int:
        """The largest total, up to `most`, that fits."""
        if self.fits(most):
            return most
        fits, too_much = 0 if self._may_cost_more else self._safe, most
        while too_much - fits > 1:
            middle = (fits + too_much) // 2
            if self.fits(middle):
                fits = middle
            else:
                too_much = middle
        return fits

    def fits(self, total: int) -> bool:
        return self.stop(total) is None

    def priced(self, total: int) -> tuple[Hold, Rated]:
        """What so much costs as one whole usage, were nothing held."""
        hold, rated, _ = self.ruled(total)
        return hold, rated

    def ruled(self, total: int) -> tuple[Hold, Rated, Ruling | None]:
        """The same, and what a policy rules of it."""
        billed = self.rate.billed(total)
        hold, rated = self._priced(total, billed, billed)
        ruling = self._ruling(hold) if self._policies else None
        if ruling is None or ruling.action != "overage":
            return hold, rated, ruling
        above = billed if ruling.counted == MONEY else min(billed, self._beyond(ruling, billed))
        hold, rated = self._priced(total, billed, billed - above, ruling)
        return hold, rated, replace(ruling, above=above)

    def costs_as_rated(self) -> bool:
        """Whether no policy has a say about it, or is near to."""
        return not self._policies

    def ruling_of(self, hold: Hold) -> Ruling | None:
        """What a policy rules of a hold that it does not stop."""
        ruling = self.ruled(hold.total)[2] if self._policies else None
        return None if ruling is None or ruling.action in STOPPING else ruling

    def _priced(self, total: int, billed: int, rest: int, ruling: Ruling | None = None) -> tuple[Hold, Rated]:
        """Of what is billed the rest is charged as usual, and what is above it as a policy says."""
        drawn, taken = self._draw(rest) if self.rate.included else ((), 0)
        at = self.asked.at
        rated = self.rate.rate(rest, taken, at) if taken < rest else NOTHING
        if ruling is not None:
            rated = priced_above(self.rate, rest, taken, billed - rest, ruling.price, ruling.per, at)
        return Hold(total, billed, drawn, rated.overage, rated.amount), rated

    def _ruling(self, hold: Hold) -> Ruling | None:
        reached = [
            one
            for counter, more in self._more(hold)
            for one in self.limits.reached(counter, self.path, more, self.asked.at)
        ]
        return self.limits.policies.decide(self.asked, reached)

    def _beyond(self, ruling: Ruling, billed: int) -> int:
        used = self.limits.used(self.family, ruling.limit_of, ruling.window, self.asked.at)
        return used - self.own.billed + billed - ruling.at

    def stop(self, total: int) -> Stop | None:
        """What stops so much from being used."""
        if total <= self._safe:
            return self._dearer(total) if self._may_cost_more else None
        if self._frozen is not None:
            used = self.family.used[self._frozen]
            return Stop("frozen", self._frozen, self.family.usage_type, used, 0)
        hold, rated, ruling = self.ruled(total)
        if ruling is not None and ruling.action in STOPPING:
            return self._stop_of(ruling)
        ended = self._ended(total) if self.ends else None
        if ended is not None:
            return Stop("maximum_charge", self.path[0], MONEY, hold.amount, ended)
        if hold.overage and not self._overage:
            taken = hold.billed - hold.overage
            return uncovered(self.family, self.path, hold.billed, taken, self._held)
        if max(rated.exact) >= EXACT_MAX:
            return _uncountable(self.money, self.path[-1])
        for counted, (counter, more) in zip((hold.billed, hold.amount), self._more(hold), strict=True):
            stop = self._stopped(counter, more) if counted else None
            if stop is not None:
                return stop
        return None

    def _ended(self, total: int) -> int | None:
        """The maximum charge, where what comes before the increment of the last unit costs as much."""
        begun = begun_before(self.rate, total)
        taken = self._draw(begun)[1] if self.rate.included else 0
        return has_ended(self.rate, begun, taken, self.asked.at)

    def _dearer(self, total: int) -> Stop | None:
        """What was held before may cost more by now, by a policy or plan: money still has its limits."""
        hold, _, _ = self.ruled(total)
        more = hold.amount - self.own.amount
        return self._stopped(self.money, more) if more > 0 else None

    def crossed(self, hold: Hold) -> list[ThresholdCrossed]:
        """The thresholds that are reached when this is held, or charged, in place of the own hold."""
        return [
            crossing
            for counter, more in self._more(hold)
            if more > 0
            for crossing in self.limits.crossed(counter, self.path, more, self.asked)
        ]

    def capped(self, total: int, members: Sequence[Member]) -> list[CapReached]:
        """The cap that keeps buckets above it from paying for all of so much, if it was not told yet."""
        if self.family.caps is None or not self.rate.included:
            return []
        hold, _ = self.priced(total)
        return reached(self.family, self.path, hold.billed, members, self._held) if hold.overage else []

    def _more(self, hold: Hold) -> tuple[tuple[Family, int], tuple[Family, int]]:
        own = self.own
        return (self.family, hold.billed - own.billed), (self.money, hold.amount - own.amount)

    def _stopped(self, counter: Family, more: int) -> Stop | None:
        if counter.used[self.path[-1]] + more >= NEVER:
            return _uncountable(counter, self.path[-1])
        return self.limits.stop(counter, self.path, more, self.asked.at)

    def _stop_of(self, ruling: Ruling) -> Stop:
        counter = self.money if ruling.counted == MONEY else self.family
        used = self.limits.used(counter, ruling.limit_of, ruling.window, self.asked.at)
        reason = STOPPING[ruling.action]
        return Stop(reason, ruling.limit_of, ruling.counted, used, ruling.at, ruling.window)

    def _free(self, ordinal: int) -> int:
        return self.family.available(ordinal) + self._held.get(ordinal, 0)

    def _draw(self, quantity: int) -> tuple[Drawn, int]:
        """As `Family.draw`, with the own hold given back."""
        caps = self.family.caps
        if caps is not None and caps.touches(self.path):
            capped = caps.draw(self.path, quantity, self._free, self._held)
            return capped.drawn, capped.taken
        drawn: list[tuple[int, int]] = []
        left = quantity
        for ordinal in self.path:
            free = self.family.available(ordinal) + self._held.get(ordinal, 0)
            part = min(free, left)
            if part > 0:
                drawn.append((ordinal, part))
                left -= part
        return tuple(drawn), quantity - left


STOPPING = {"block": "blocked_by_policy", "approval": "approval_required", "redirect": "redirected"}
"""What a policy does that ends what the enterprise pays for, and what it is called."""


def _uncountable(counter: Family, ordinal: int) -> Stop:
    return Stop("limit_exceeded", ordinal, counter.usage_type, counter.used[ordinal], NEVER)


# --- applied ---------------------------------------------------------------------------------


def keep(families: dict[tuple[str, str], Family], at: tuple[str, str], path: Path, hold: Hold) -> None:
    """Reserve the parts of a hold, and count it at every member of the path."""
    family = families[at]
    for ordinal, part in hold.drawn:
        reserved = family.reserved[ordinal] = family.reserved[ordinal] + part
        if part <= 0 or reserved > family.remaining[ordinal]:
            raise InvariantBroken("0 <= reserved <= remaining", member=ordinal, reserved=reserved)
    if sum(part for _, part in hold.drawn) + hold.overage != hold.billed:
        raise InvariantBroken("the parts of a hold add up", hold=hold)
    count_drawn(family, path, hold.drawn)
    if hold.billed:
        family.count(path, hold.billed)
    if hold.amount:
        families[MONEY, at[1]].count(path, hold.amount)


def give_back(families: dict[tuple[str, str], Family], at: tuple[str, str], path: Path, hold: Hold) -> None:
    """The reverse of `keep`."""
    family = families[at]
    for ordinal, part in hold.drawn:
        reserved = family.reserved[ordinal] = family.reserved[ordinal] - part
        if reserved < 0:
            raise InvariantBroken("only what is reserved is given back", member=ordinal, reserved=reserved)
    count_drawn(family, path, hold.drawn, -1)
    for counter, quantity in ((family, hold.billed), (families[MONEY, at[1]], hold.amount)):
        used = counter.used
        for ordinal in path if quantity else ():
            left = used[ordinal] = used[ordinal] - quantity
            if left < 0:
                raise InvariantBroken("only what was counted is given back", member=ordinal, used=left)
