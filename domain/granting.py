"""Granting within a period: top-ups, and grants that are changed while the period runs.

Both enter or leave the enterprise's bucket at once. Nothing is taken away that was consumed,
handed down or is held for a session.
"""

from fractions import Fraction
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from .bucket import Family
from .calendar import local_day
from .contract import Contracts, ContractSigned, PeriodOpened, SignContract
from .refusals import InvariantBroken, Refused, check_text
from .terms import QUANTITY_MAX, USUAL, Grant, prorated
from .vintage import take_youngest


class ToppedUp(Struct, frozen=True, array_like=True):
    """The enterprise has got more than its contract grants, for this period."""

    topic: ClassVar[str] = "bucket.topped_up"
    node: str
    usage_type: str
    period: str
    quantity: int
    note: str = ""


class GrantChanged(Struct, frozen=True, array_like=True):
    """What the contract grants was changed, and with it the bucket of the period that runs."""

    topic: ClassVar[str] = "bucket.grant_changed"
    node: str
    usage_type: str
    period: str
    contract: str
    version: int
    before: int
    """Per whole period."""
    after: int
    share: tuple[int, int]
    """The part of the whole period that the change counts for."""
    change: int
    """(after - before) times the share, rounded towards nothing: what has entered, or left."""
    note: str = ""


class TopUp(Struct, frozen=True, array_like=True):
    """Grant more, at once and until the period's end."""

    usage_type: str
    quantity: int
    period: str = ""
    """"" means the one that is running."""
    note: str = ""


class ChangeGrants(Struct, frozen=True, array_like=True):
    """Grant other quantities per period from now on, in the running period too.

    Types that are not named keep theirs. `prorate`: in the running period only for what is left of it.
    """

    contract: str
    grants: tuple[Grant, ...]
    prorate: bool = False
    note: str = ""


Families = dict[tuple[str, str], Family]


def decide_top_up(command: TopUp, contracts: Contracts, families: Families, root: str, now: int) -> ToppedUp:
    contracts.types.check(command.usage_type, money=True)
    check_text("note", command.note, empty=True)
    if command.quantity <= 0:
        raise Refused("not_positive", quantity=command.quantity)
    period = contracts.require(command.period or contracts.name_at(now))
    if period.ends_at <= now:
        raise Refused("period_over", period=period.period)
    family = families[command.usage_type, period.period]
    _check_within(command.usage_type, family.granted_total + command.quantity)
    return ToppedUp(root, command.usage_type, period.period, command.quantity, command.note)


def decide_change(
    command: ChangeGrants, contracts: Contracts, families: Families, root: str, now: int
) -> list[ContractSigned | GrantChanged]:
    """The contract's next version, and what it changes in the period that runs."""
    check_text("note", command.note, empty=True)
    span = contracts.agreed.at(now)
    contracts.newest(command.contract)
    if span is None or span.signed.contract != command.contract:
        raise Refused("not_in_force", contract=command.contract)
    signed, _ = contracts.decide(_amended(command, span.signed, contracts, now), now)
    assert isinstance(signed, ContractSigned)
    period = contracts.require(contracts.name_at(now))
    if period.contract != command.contract:
        raise Refused("not_in_force", contract=command.contract)
    changed = [_changed(command, grant, signed, period, contracts, families, now) for grant in command.grants]
    changes = [replace(one, node=root) for one in changed if one.after != one.before]
    if not changes:
        raise Refused("nothing_changed", contract=command.contract)
    for change in changes:
        _check_left(change, families[change.usage_type, change.period])
    return [signed, *changes]


def _amended(
    command: ChangeGrants, now_signed: ContractSigned, contracts: Contracts, now: int
) -> SignContract:
    """The version in force with other grants, from today on."""
    given = {grant.usage_type: grant for grant in command.grants}
    kept = [given.pop(grant.usage_type, grant) for grant in now_signed.grants]
    if len({grant.usage_type for grant in command.grants}) != len(command.grants):
        raise Refused("granted_twice", usage_types=[grant.usage_type for grant in command.grants])
    ending = contracts.ends.get(command.contract)
    terms = replace(now_signed.agreed, ends_on=ending.ends_on if ending is not None else "")
    today = local_day(now, contracts.zone).isoformat()
    return SignContract(
        *(command.contract, today, (*kept, *given.values()), now_signed.overage),
        *(None if terms == USUAL else terms, command.note),
    )


def _changed(
    command: ChangeGrants,
    grant: Grant,
    signed: ContractSigned,
    period: PeriodOpened,
    contracts: Contracts,
    families: Families,
    now: int,
) -> GrantChanged:
    before = families[grant.usage_type, period.period].agreed
    if before is None:
        before = contracts.granted(period, grant.usage_type)
    share = Fraction(*period.share)
    if command.prorate:
        share *= Fraction(period.ends_at - now, period.ends_at - period.starts_at)
    parts = share.numerator, share.denominator
    return GrantChanged(
        *("", grant.usage_type, period.period, signed.contract, signed.version, before, grant.quantity),
        *(parts, prorated(grant.quantity - before, parts), command.note),
    )


def _check_left(change: GrantChanged, family: Family) -> None:
    available = family.available(0)
    if -change.change > available:
        raise Refused(
            "insufficient_allowance",
            node=change.node,
            usage_type=family.usage_type,
            period=family.period,
            available=available,
            reserved=family.reserved[0],
        )
    _check_within(change.usage_type, family.granted_total + change.change)


def _check_within(usage_type: str, granted: int) -> None:
    if granted > QUANTITY_MAX:
        raise Refused("quantity_out_of_range", usage_type=usage_type, quantity_max=QUANTITY_MAX)


def apply_change(event: GrantChanged, family: Family, ordinal: int) -> None:
    family.agreed = event.after
    if event.change >= 0:
        family.grant(ordinal, event.change)
        return
    taken = -event.change
    take_youngest(family.rolled, ordinal, family.remaining[ordinal], taken)
    family.granted_total -= taken
    family.remaining_total -= taken
    family.remaining[ordinal] -= taken
    if family.remaining[ordinal] < family.reserved[ordinal]:
        raise InvariantBroken("only what is left can be taken back", member=ordinal, taken=taken)
    family.check()
