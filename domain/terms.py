"""Terms of a contract: what is agreed besides the grants themselves.

Everything has a usual value, and a contract without terms has them all: calendar months, until
further notice, nothing rolled over, no minimum, the tariff's own prices.
"""

from fractions import Fraction

from msgspec import Struct

from .calendar import MONTHLY, Calendar, check_calendar, date_of
from .refusals import Refused
from .tariff import PRICE, UNITS_MAX
from .usage import MONEY

QUANTITY_MAX = 2**60
CYCLES_MAX = 120
HOURS_MAX = 31 * 24
MONTHS_MAX = 120
OVER_COMMITMENT_MAX = 10_000


class Grant(Struct, frozen=True, array_like=True):
    usage_type: str
    quantity: int


class RollOverRule(Struct, frozen=True, array_like=True):
    """How much of a grant's rest goes on into the next period; what does not expires."""

    usage_type: str
    cycles: int = 1
    """A unit that was rolled over so often expires at the end of the next period."""
    quantity: int | None = None
    """At most so much at a period's end, of all buckets together."""
    percent: int | None = None
    """At most so much of the grant. Without either: all of it."""

    def cap(self, granted: int) -> int | None:
        """The most that may be rolled over, of a grant of so much."""
        return self.quantity if self.percent is None else granted * self.percent // 100


class OveragePrice(Struct, frozen=True, array_like=True):
    """What overage of a type costs under this contract, whatever the tariff says of it."""

    usage_type: str
    price: str
    """Of `per` units, in the tenant's currency: "0.05"."""
    per: int = 1


class Terms(Struct, frozen=True, array_like=True):
    calendar: Calendar = MONTHLY
    ends_on: str = ""
    """The last day that is covered; "" means until further notice."""
    renews_months: int = 0
    """So many months longer at each end, by itself, unless it is ended before."""
    prorate: bool = False
    """A first or last period that is cut short gets its share of grants and commitment, rounded down."""
    rollover: tuple[RollOverRule, ...] = ()
    rolls_to_enterprise: bool = False
    """Rolled units enter the enterprise's bucket, not the bucket of who had them."""
    settle_after_hours: int = 0
    """So long after a period's end its rest stays where it is, for usage that is told late."""
    commitment: int = 0
    """Spend agreed per period, in micro-units: what is missing is owed all the same."""
    overage_prices: tuple[OveragePrice, ...] = ()
    over_commitment_percent: int = 0
    """Caps below a bucket may add up to so much more than it has; 0: to what it has."""
    expires: bool = False
    """What is left at a period's end expires, bucket by bucket, also where nothing is rolled over."""

    @property
    def settles(self) -> bool:
        """Whether what is left at a period's end is rolled over or expires, rather than stay as it is."""
        return bool(self.rollover) or self.expires


USUAL = Terms()


def check_terms(terms: Terms, starts_on: str, grants: tuple[Grant, ...]) -> None:
    """Refuses what cannot be agreed, naming the field."""
    check_calendar(terms.calendar)
    if terms.ends_on:
        check_ends_on(terms.ends_on, starts_on)
    for field, value, most in (
        ("renews_months", terms.renews_months, MONTHS_MAX),
        ("settle_after_hours", terms.settle_after_hours, HOURS_MAX),
        ("commitment", terms.commitment, QUANTITY_MAX),
        ("over_commitment_percent", terms.over_commitment_percent, OVER_COMMITMENT_MAX),
    ):
        if not 0 <= value <= most:
            raise Refused("bad_terms", field=field, value=value, remedy=f"give 0 to {most}")
    if terms.renews_months and not terms.ends_on:
        raise Refused(
            "bad_terms",
            field="renews_months",
            value=terms.renews_months,
            remedy="give a last day to renew at",
        )
    granted = {grant.usage_type for grant in grants}
    _check_once("rollover", [rule.usage_type for rule in terms.rollover])
    for rule in terms.rollover:
        _check_rule(rule, granted)
    _check_once("overage_prices", [price.usage_type for price in terms.overage_prices])
    for price in terms.overage_prices:
        _check_price(price)


def check_ends_on(ends_on: str, starts_on: str) -> None:
    date_of(ends_on)
    if ends_on < starts_on:
        raise Refused("ends_before_start", ends_on=ends_on, starts_on=starts_on)


def _check_once(field: str, types: list[str]) -> None:
    for usage_type in types:
        if types.count(usage_type) > 1:
            raise Refused("bad_terms", field=field, value=usage_type, remedy="give each usage type once")


def _check_rule(rule: RollOverRule, granted: set[str]) -> None:
    for field, wrong, remedy in (
        ("usage_type", rule.usage_type not in granted, "roll over what is granted"),
        ("cycles", not 1 <= rule.cycles <= CYCLES_MAX, f"give 1 to {CYCLES_MAX}"),
        ("quantity", rule.quantity is not None and not 0 <= rule.quantity <= QUANTITY_MAX, "give 0 or more"),
        ("percent", rule.percent is not None and not 0 <= rule.percent <= 100, "give 0 to 100"),
        ("percent", rule.percent is not None and rule.quantity is not None, "cap by one of the two"),
    ):
        if wrong:
            value = getattr(rule, field)
            raise Refused("bad_terms", field=f"rollover.{field}", value=value, remedy=remedy)


def _check_price(price: OveragePrice) -> None:
    for field, wrong, remedy in (
        ("usage_type", price.usage_type == MONEY, "money has no overage"),
        ("price", not PRICE.fullmatch(price.price), 'give a number such as "0.05"'),
        ("per", not 1 <= price.per <= UNITS_MAX, f"give 1 to {UNITS_MAX}"),
    ):
        if wrong:
            value = getattr(price, field)
            raise Refused("bad_terms", field=f"overage_prices.{field}", value=value, remedy=remedy)


def prorated(quantity: int, share: tuple[int, int]) -> int:
    """A share of a quantity, rounded down: towards nothing, whichever way it goes."""
    exact = Fraction(quantity) * Fraction(*share)
    return int(exact)


def share_of(part: int, whole: int) -> tuple[int, int]:
    """A part of a whole, in lowest terms."""
    share = Fraction(part, whole)
    return share.numerator, share.denominator
