"""What a snapshot keeps of the hierarchy's life: what members alone do not tell."""

from msgspec import Struct

from .life import NodeChangePlanned
from .member import FOR_EVER, Member, Spell
from .tenant import Tenant

KeptHolder = tuple[int, ...]
"""Whose an identity is: a resource for as long as it stands, or from a moment until another."""


class KeptLife(Struct, array_like=True):
    parents: dict[int, list[tuple[int, int]]]
    closed: dict[int, tuple[int, int]]
    suspended: dict[int, tuple[tuple[int, bool], ...]]
    holders: list[tuple[bytes, list[KeptHolder]]]
    """Of identities that somebody had for a time only."""
    plans: dict[int, NodeChangePlanned]
    versions: dict[int, int]
    labels: dict[int, tuple[bytes, bytes]]


def keep_life(tenant: Tenant) -> KeptLife:
    hierarchy, life = tenant.hierarchy, tenant.life
    return KeptLife(
        {
            node: [(since, above.ordinal) for since, above in dated]
            for node, dated in hierarchy.parents.items()
        },
        hierarchy.closed,
        dict(hierarchy.suspended),
        [
            (token, [_holder(holder) for holder in holders])
            for token, holders in hierarchy.by_token.items()
            if any(isinstance(holder, Spell) for holder in holders)
        ],
        life.plans,
        dict(life.versions),
        dict(life.labels),
    )


def _holder(holder: Member | Spell) -> KeptHolder:
    if isinstance(holder, Spell):
        return holder.member.ordinal, holder.since, holder.until
    return (holder.ordinal,)


def restore_life(tenant: Tenant, kept: KeptLife) -> None:
    """Once the members are there."""
    hierarchy, life = tenant.hierarchy, tenant.life
    members = hierarchy.members
    for node, dated in kept.parents.items():
        hierarchy.parents[node] = [(since, members[above]) for since, above in dated]
    hierarchy.closed.update(kept.closed)
    hierarchy.suspended.update(kept.suspended)
    for token, holders in kept.holders:
        hierarchy.by_token[token] = tuple(
            Spell(members[one[0]], one[1], one[2]) if len(one) > 1 else members[one[0]] for one in holders
        )
    for token, holders in kept.holders:
        for ordinal, _, until in (one for one in holders if len(one) > 1):
            if until != FOR_EVER:
                hierarchy.former.setdefault(ordinal, set()).add(token)
    life.plans, life.versions, life.labels = kept.plans, kept.versions, kept.labels
    _restore_below(tenant)


def _restore_below(tenant: Tenant) -> None:
    """Who ever stood right below which node."""
    hierarchy = tenant.hierarchy
    below, placed = hierarchy.below, hierarchy.placed
    for member in hierarchy.members:
        if not member.is_node:
            for node in {path[1] for _, path in member.stays if path}:
                placed.setdefault(node, []).append(member.ordinal)
        elif member.parent is not None:
            dated = hierarchy.parents.get(member.ordinal) or [(0, member.parent)]
            for parent in {parent.ordinal for _, parent in dated}:
                below.setdefault(parent, []).append(member.ordinal)
