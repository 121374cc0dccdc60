"""The plain charge: nothing it touches is near a limit, so it is decided and counted in one go.

It gives what `Charging.decide` gives and leaves what `Charging.count` leaves, at a fifth of the cost:
period, tariff and family of a moment are put together when configuration changes, and the path is
walked once. Whatever is not plain is left to them, and then nothing has changed: so is every use of a
type that is limited by day, week or in a rolling window, and what is so old that it may be held.
"""

from .bucket import Drawn, Family
from .charging import FUTURE_MAX, Charging, UsageCharged, charged
from .contract import Contracts
from .hierarchy import Hierarchy
from .member import BEFORE_ALL
from .rating.finding import Deck
from .tariff import EXACT_MAX, NOTHING, CompiledRate, Tariffs
from .usage import MONEY, UsageRecord


class _Lane:
    """What charges one usage type in one direction, within a window."""

    __slots__ = ("deck", "family")

    def __init__(self, deck: Deck, family: Family) -> None:
        self.deck = deck
        self.family = family


class _Window:
    """A stretch of time in which one period and one tariff version hold: [starts_at, ends_at)."""

    __slots__ = ("ends_at", "lanes", "money", "overage", "starts_at")

    def __init__(self, starts_at: int, ends_at: int, *, overage: bool, money: Family) -> None:
        self.starts_at = starts_at
        self.ends_at = ends_at
        self.overage = overage
        self.money = money
        self.lanes: dict[str, _Lane] = {}
        """By usage type and direction, written together."""


class PlainCharges:
    """Charges what is plain, on the same parts of one tenant's state as `Charging`."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        tariffs: Tariffs,
        families: dict[tuple[str, str], Family],
        charging: Charging,
    ) -> None:
        self._hierarchy = hierarchy
        self._frozen = hierarchy.frozen
        self._contracts = contracts
        self._tariffs = tariffs
        self._families = families
        self._charging = charging
        self._late = charging.late.by_source
        self._window: _Window | None = None
        """The one last used, of those compiled."""
        self._windows: list[_Window] = []

    def forget(self) -> None:
        """Contracts, periods or tariffs have changed, or what is counted by day or week."""
        self._window = None
        self._windows.clear()

    def charge(self, record: UsageRecord, token: bytes, sealed: bytes, now: int) -> UsageCharged | None:
        """Decide and count a plain charge; None, and nothing has changed, where it is not plain."""
        try:
            at = record.started_at
            suspended = self._hierarchy.suspended
            window = self._window
            if window is None or not window.starts_at <= at < window.ends_at:
                window = self._window_at(at)
            path = self._hierarchy.guide(token, at)
            frozen = self._frozen and not self._frozen.keys().isdisjoint(path or ())
            if window is None or not path or at > now + FUTURE_MAX or frozen:
                return None
            too_old = self._late and now - at > self._charging.late.least
            if too_old or (suspended and path[0] in suspended):
                return None
            lane = window.lanes.get(record.usage_type + record.direction)
            rate = lane.deck.find(record.counterpart) if lane is not None else None
            if type(rate) is not CompiledRate or lane is None:
                # There is none, or it is not plain.
                return None
            family, billed = lane.family, rate.billed(record.quantity)
            if not billed:
                return None
            drawn: Drawn = ()
            taken, rated = 0, NOTHING
            if rate.included:
                drawn, taken = family.draw(path, billed)
            if taken < billed:
                rated = rate.rate(billed, taken)
                capped = family.caps is not None and family.caps.touches(path)
                if (rate.included and not window.overage) or max(rated.exact) >= EXACT_MAX or capped:
                    return None
        except Exception:  # noqa: BLE001  (nothing has changed: `Charging.decide` tells what it is)
            return None
        if not family.count_unless_near(path, billed):
            return None
        if rated.amount:
            if window.money.holders or not window.money.count_unless_near(path, rated.amount):
                family.uncount(path, billed)
                return None
            self._charging.amount_total += rated.amount
        if drawn:
            family.consume(drawn)
            if family.caps is not None:
                family.caps.count(path, drawn)
        self._charging.counts["charged"] += 1
        return charged(record, sealed, path, family.period, billed, rate, drawn, rated)

    def oldest(self, now: int) -> int:
        """Usage since this is not held for its age: for native code, which compares nothing else."""
        return now - self._charging.late.least if self._late else BEFORE_ALL

    def _window_at(self, at: int) -> _Window | None:
        """What holds at a moment, if a period is open and a tariff valid."""
        for window in self._windows:
            if window.starts_at <= at < window.ends_at:
                self._window = window
                return window
        compiled = self._compile(at)
        if compiled is not None:
            self._window = compiled
            self._windows.append(compiled)
        return compiled

    def _compile(self, at: int) -> _Window | None:
        opened, tariff = self._contracts.period_at(at), self._tariffs.at(at)
        covered = self._contracts.agreed.at(at)
        if opened is None or tariff is None or covered is None:
            return None
        following = self._tariffs.next_after(at)
        window = _Window(
            max(opened.starts_at, covered.starts_at, tariff.published.valid_from),
            min(opened.ends_at, covered.ends_at, opened.ends_at if following is None else following),
            overage=opened.overage,
            money=self._families[MONEY, opened.period],
        )
        # Where the contract has a price of its own for overage, `Charging.decide` applies it.
        priced = {price.usage_type for price in self._contracts.terms_of(opened).overage_prices}
        for (usage_type, direction), deck in tariff.decks.items():
            if usage_type not in priced and not self._charging.limits.counts_windows(usage_type):
                window.lanes[usage_type + direction] = _Lane(deck, self._families[usage_type, opened.period])
        return window
