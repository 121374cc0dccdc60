"""A tenant's state as bytes, from which the same state comes back: a fold cut short.

In two parts. The structure (members, contracts, tariffs, limits) is large and changes seldom; the
counters are lists of numbers and change with every charge. What follows from these, such as
compiled rates and the index of identities, is built again.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from .bucket import NEVER, Family
from .contract import ContractSigned, PeriodOpened
from .hierarchy import Identity, Member, Path
from .limit import LimitSet
from .tariff import TariffPublished
from .tenant import Tenant, TenantOpened

MEMBERS_AT_ONCE = 2_000
"""Members encoded in one call: others get their turn in between."""
NOBODY = -1


class FamilyCounters(Struct, array_like=True):
    usage_type: str
    period: str
    granted_total: int
    remaining_total: int
    consumed_total: int
    remaining: list[int]
    consumed: list[int]
    reserved: list[int]
    used: list[int]
    armed: list[tuple[int, int, int]]
    """(ordinal, mark, ceiling) of the members that have, or had, a limit."""


class Counters(Struct, array_like=True):
    opened: TenantOpened | None
    periods: list[PeriodOpened]
    families: list[FamilyCounters]
    fired: dict[str, list[tuple[str, int, int]]]
    """Usage type -> (period, ordinal, percent)."""
    counts: dict[str, int]
    amount_total: int


class KeptMember(Struct, array_like=True, gc=False):
    id: str
    kind: str
    name: str
    is_node: bool
    parent: int
    above: int
    """Which of the `ways` its path goes on with, after itself."""
    stays: list[tuple[int, int]]
    """(since, which of the `ways`), `NOBODY` where it had ended."""
    identities: tuple[Identity, ...]


class Structure(Struct, array_like=True):
    """All but the members, which are many, and stand before it in blocks."""

    ways: list[Path]
    signed: list[ContractSigned]
    tariffs: list[TariffPublished]
    limits: dict[str, dict[int, list[LimitSet]]]


_encode = msgspec.msgpack.Encoder().encode
_decode_counters = msgspec.msgpack.Decoder(Counters).decode
_decode_structure = msgspec.msgpack.Decoder(Structure).decode
_decode_members = msgspec.msgpack.Decoder(list[KeptMember]).decode
_decode_blocks = msgspec.msgpack.Decoder(list[bytes]).decode


def copy_counters(tenant: Tenant) -> Counters:
    """What changes with every charge, copied. The state must stand still meanwhile."""
    fired: dict[str, list[tuple[str, int, int]]] = {}
    for (usage_type, period, ordinal), percent in tenant.limits.fired.items():
        fired.setdefault(usage_type, []).append((period, ordinal, percent))
    return Counters(
        tenant.opened,
        list(tenant.contracts.periods.values()),
        [
            _copy_family(family, tenant.limits.by_type.get(family.usage_type, {}))
            for family in tenant.families.values()
        ],
        fired,
        dict(tenant.charging.counts),
        tenant.charging.amount_total,
    )


def encode_counters(counters: Counters) -> bytes:
    return _encode(counters)


def encode_structure(tenant: Tenant) -> bytes:
    """Members, contracts, tariffs and limits: right only if none of these changed meanwhile."""
    places: dict[Path, int] = {}
    blocks = [_encode(block) for block in _blocks(tenant.hierarchy.members, places)]
    structure = Structure(
        list(places),
        tenant.contracts.signed,
        [tariff.published for tariff in tenant.tariffs.versions],
        tenant.limits.by_type,
    )
    return _encode([*blocks, _encode(structure)])


def restore(counters: bytes, structure: bytes) -> Tenant:
    """The state that both parts were taken of."""
    *blocks, rest = _decode_blocks(structure)
    kept, counted = _decode_structure(rest), _decode_counters(counters)
    tenant = Tenant()
    if counted.opened is not None:
        tenant.apply(counted.opened)
    for signed in kept.signed:
        tenant.contracts.apply(signed)
    for period in counted.periods:
        tenant.contracts.apply(period)
    for tariff in kept.tariffs:
        tenant.tariffs.apply(tariff)
    tenant.limits.by_type = kept.limits
    for usage_type, all_fired in counted.fired.items():
        for period_name, ordinal, percent in all_fired:
            tenant.limits.fired[usage_type, period_name, ordinal] = percent
    _restore_members(tenant, kept.ways, (member for block in blocks for member in _decode_members(block)))
    for family in counted.families:
        tenant.families[family.usage_type, family.period] = _restore_family(family)
    tenant.charging.counts.update(counted.counts)
    tenant.charging.amount_total = counted.amount_total
    return tenant


# --- members -------------------------------------------------------------------------------------


def _blocks(members: list[Member], places: dict[Path, int]) -> Iterator[list[KeptMember]]:
    for first in range(0, len(members), MEMBERS_AT_ONCE):
        yield [_keep(member, places) for member in members[first : first + MEMBERS_AT_ONCE]]


def _keep(member: Member, places: dict[Path, int]) -> KeptMember:
    """Thousands of resources share the way from their node up: it is told once."""
    above = places.setdefault(member.path[1:], len(places))
    stays = [
        (since, places.setdefault(path[1:], len(places)) if path else NOBODY) for since, path in member.stays
    ]
    parent = member.parent.ordinal if member.parent else NOBODY
    return KeptMember(
        member.id, member.kind, member.name, member.is_node, parent, above, stays, member.identities
    )


def _restore_members(tenant: Tenant, ways: list[Path], kept: Iterable[KeptMember]) -> None:
    hierarchy = tenant.hierarchy
    members, by_id, by_token = hierarchy.members, hierarchy.by_id, hierarchy.by_token
    parents: list[int] = []
    kinds: dict[str, str] = {}
    for ordinal, one in enumerate(kept):
        member = Member(one.id, ordinal, kinds.setdefault(one.kind, one.kind), one.name, is_node=one.is_node)
        member.path = path = (ordinal, *ways[one.above])
        member.identities = one.identities
        for since, way in one.stays:
            # The last stay and the member share one path, as they did.
            stay = () if way == NOBODY else path if way == one.above else (ordinal, *ways[way])
            member.stays.append((since, stay))
        members.append(member)
        by_id[one.id] = member
        parents.append(one.parent)
        for identity in one.identities:
            holders = by_token.get(identity.token)
            by_token[identity.token] = (*holders, member) if holders else (member,)
    for member, parent in zip(members, parents, strict=True):
        if parent != NOBODY:
            member.parent = members[parent]


# --- families ------------------------------------------------------------------------------------


def _copy_family(family: Family, limited: dict[int, list[LimitSet]]) -> FamilyCounters:
    mark, ceiling = family.mark, family.ceiling
    return FamilyCounters(
        family.usage_type,
        family.period,
        family.granted_total,
        family.remaining_total,
        family.consumed_total,
        family.remaining.copy(),
        family.consumed.copy(),
        family.reserved.copy(),
        family.used.copy(),
        [(ordinal, mark[ordinal], ceiling[ordinal]) for ordinal in limited],
    )


def _restore_family(kept: FamilyCounters) -> Family:
    family = Family(kept.usage_type, kept.period, 0)
    family.granted_total = kept.granted_total
    family.remaining_total = kept.remaining_total
    family.consumed_total = kept.consumed_total
    family.remaining, family.consumed = kept.remaining, kept.consumed
    family.reserved, family.used = kept.reserved, kept.used
    family.mark = [NEVER] * len(kept.used)
    family.ceiling = [NEVER] * len(kept.used)
    for ordinal, mark, ceiling in kept.armed:
        family.mark[ordinal], family.ceiling[ordinal] = mark, ceiling
    return family
