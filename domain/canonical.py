"""The state of a tenant as canonical lines: the same log gives the same bytes, everywhere.

Each line is a JSON object with sorted keys; lines come in the order of what they describe.
Only what is not zero is told, so that the bytes do not depend on how memory was laid out.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from .bucket import Family
from .gauge import Gauge
from .hierarchy import Hierarchy, Member
from .member import Spell
from .notice import Notices
from .rerating import Rerating
from .session import Session
from .tariff import Tariffs, first_published
from .tenant import Tenant
from .trading_kept import describe_trading

_BASIS_FIRST = 5
"""So many fields had the basis of a session before its prices could change."""
_encoder = msgspec.json.Encoder(order="sorted")


def line(described: dict[str, Any]) -> bytes:
    return _encoder.encode(described) + b"\n"


def lines(tenant: Tenant) -> Iterator[bytes]:
    return (line(described) for described in describe(tenant))


def describe(tenant: Tenant) -> Iterator[dict[str, Any]]:
    opened = tenant.opened
    if opened is not None:
        yield {"is": "tenant", **msgspec.structs.asdict(opened)}
    for member in tenant.hierarchy.members:
        yield _member(member)
    yield from _life(tenant)
    for signed in tenant.contracts.signed:
        yield {"is": "contract", **msgspec.structs.asdict(signed)}
    for contract in sorted(tenant.contracts.ends):
        ending = tenant.contracts.ends[contract]
        yield {"is": "end", "contract": contract, **msgspec.structs.asdict(ending)}
    for defined in tenant.types.defined:
        yield {"is": "usage type", **msgspec.structs.asdict(defined)}
    for period in sorted(tenant.contracts.periods):
        yield {"is": "period", **msgspec.structs.asdict(tenant.contracts.periods[period])}
    yield from _tariffs(tenant.tariffs)
    for usage_type in sorted(tenant.limits.by_type):
        for ordinal in sorted(tenant.limits.by_type[usage_type]):
            for limit in tenant.limits.by_type[usage_type][ordinal]:
                yield {"is": "limit", **msgspec.to_builtins(msgspec.structs.asdict(limit))}
    for (usage_type, period, ordinal), percent in sorted(tenant.limits.fired.items()):
        member_id = tenant.hierarchy.members[ordinal].id
        yield {
            "is": "fired",
            "usage_type": usage_type,
            "period": period,
            "node": member_id,
            "percent": percent,
        }
    yield from _notices(tenant.notices)
    yield from _allocation(tenant)
    yield from _rules(tenant)
    for key in sorted(tenant.families, key=lambda key: (key[1], key[0])):
        yield from _family(tenant.families[key], tenant.hierarchy)
    for ident in sorted(tenant.sessions.open):
        yield {"is": "session", **_session(tenant.sessions.open[ident])}
    # In the order in which they will be forgotten.
    for session in tenant.sessions.expired.values():
        yield {"is": "session ended by silence", **_session(session)}
    yield from describe_trading(tenant.trading)
    yield from _rerating(tenant.rerating)
    yield from _owed(tenant)
    yield {"is": "usage", "amount": tenant.charging.amount_total, **tenant.charging.counts}
    yield from _suspense(tenant)


def _suspense(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """Nothing where nothing ever waited."""
    suspense = tenant.suspense
    if suspense.waiting or any(suspense.settled.values()):
        yield {"is": "suspense", "waiting": len(suspense.waiting), **suspense.settled}
    for waiting, revision in sorted(suspense.waiting.items()):
        yield {"is": "waiting", "record": waiting.hex(), "revision": revision}
    yield from _writing_off(tenant)
    for ident in sorted(tenant.receiving.open):
        yield {"is": "import", **msgspec.structs.asdict(tenant.receiving.open[ident])}
    for digest in sorted(tenant.receiving.digests):
        yield {"is": "imported", "digest": digest}


def _writing_off(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """And what is held for its age."""
    for source in sorted(tenant.charging.late.by_source):
        yield {"is": "late rule", **msgspec.structs.asdict(tenant.charging.late.by_source[source])}
    writing_off = tenant.suspense.writing_off
    if writing_off.rule is not None:
        yield {"is": "dismissal rule", **msgspec.structs.asdict(writing_off.rule)}
    for waiting, by in sorted(writing_off.asked.items()):
        yield {"is": "dismissal asked", "record": waiting.hex(), "by": by}
    for person, (day, much) in sorted(writing_off.alone.items()):
        yield {"is": "written off alone", "person": person, "day": day, "value": much}


def _tariffs(tariffs: Tariffs) -> Iterator[dict[str, Any]]:
    for tariff in tariffs.versions:
        yield {"is": "tariff", **first_published(tariff.made)}
    for version in sorted(tariffs.withdrawn):
        yield {"is": "tariff withdrawn", **msgspec.structs.asdict(tariffs.withdrawn[version])}


def _rerating(rerating: Rerating) -> Iterator[dict[str, Any]]:
    for name in sorted(rerating.jobs):
        job = rerating.jobs[name]
        told: dict[str, Any] = {"changed": job.changed, "amount": job.amount, "corrected": job.corrected}
        if job.counting:
            told["counting"] = msgspec.to_builtins(job.counting)
        yield {"is": "rating job", "job": name, "scope": _builtins(job.started.scope), **told}
    if rerating.unsettled:
        yield {"is": "plans half counted", "counting": msgspec.to_builtins(rerating.unsettled)}
    if rerating.changed:
        yield {"is": "rerated", "amount": rerating.changed}
    for period in sorted(rerating.corrected):
        yield {"is": "corrected", "period": period, "amount": rerating.corrected[period]}
    for at, amount in sorted(rerating.resettling.corrected.items()):
        yield {"is": "plan corrected", **msgspec.structs.asdict(at), "amount": amount}
    for plan, period in sorted(rerating.resettling.by_charge):
        yield {"is": "plan corrected by charge", "plan": plan, "period": period}


def _owed(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """What fees were charged and taken back, channels, and what plans have counted."""
    for charged in tenant.fees.charged.values():
        yield {"is": charged.topic, **msgspec.structs.asdict(charged)}
    for credited in tenant.fees.credited.values():
        yield {"is": credited.topic, **msgspec.structs.asdict(credited)}
    for resource in sorted(tenant.channels.last):
        yield {"is": "channels", **msgspec.structs.asdict(tenant.channels.last[resource])}
    for plan, period in sorted(tenant.plans.counters):
        for ordinal, (units, spent) in sorted(tenant.plans.counters[plan, period].items()):
            whose = tenant.hierarchy.members[ordinal].id
            about = {"plan": plan, "period": period, "member": whose}
            yield {"is": "plan counter", **about, "units": units, "spent": spent}


def _notices(notices: Notices) -> Iterator[dict[str, Any]]:
    for ident in sorted(notices.recipients):
        yield {"is": "recipient", **_builtins(notices.recipients[ident])}
    for ident in sorted(notices.webhooks):
        webhook = notices.webhooks[ident]
        told = {**_builtins(webhook), "created": _builtins(webhook.created)}
        yield {"is": "webhook", **told}


def _builtins(told: msgspec.Struct) -> dict[str, Any]:
    """By the names of its fields; bytes in hex."""
    fields = msgspec.structs.asdict(told)
    return {
        name: value.hex() if isinstance(value, bytes) else msgspec.to_builtins(value)
        for name, value in fields.items()
    }


def _rules(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """What limits and policies have beside the limits per period."""
    limits, members = tenant.limits, tenant.hierarchy.members
    for (usage_type, period, ordinal), told in sorted(limits.told.items()):
        about = {"usage_type": usage_type, "period": period, "node": members[ordinal].id}
        yield {"is": "told", **about, "thresholds": sorted(map(list, told))}
    for key in sorted(limits.raises):
        for raised in limits.raises[key]:
            yield {"is": "raised", **msgspec.structs.asdict(raised)}
    for usage_type in sorted(limits.windows):
        for ordinal in sorted(limits.windows[usage_type]):
            for window, limit in sorted(limits.windows[usage_type][ordinal].items()):
                yield {"is": "limit", **msgspec.to_builtins(msgspec.structs.asdict(limit))}
                yield {"is": "gauge", **_gauge(limits.gauges[usage_type][ordinal][window])}
    for policy in sorted(limits.policies.versions):
        for version in limits.policies.versions[policy]:
            yield {"is": version.topic, **msgspec.to_builtins(msgspec.structs.asdict(version))}
        for approved in limits.policies.approved.get(policy, ()):
            yield {"is": approved.topic, **msgspec.structs.asdict(approved)}


def _gauge(gauge: Gauge) -> dict[str, Any]:
    told = {str(number): sorted(map(list, told)) for number, told in gauge.told.items()}
    bins = {str(number): used for number, used in gauge.bins.items()}
    return {"first": gauge.first, "latest": gauge.latest, "bins": bins, "told": told}


def _member(member: Member) -> dict[str, Any]:
    described: dict[str, Any] = {
        "is": "node" if member.is_node else "resource",
        "id": member.id,
        "ordinal": member.ordinal,
        "kind": member.kind,
        "parent": member.parent.id if member.parent else "",
    }
    if member.is_node:
        described["name"] = member.name
    if member.stays or not member.is_node:
        described["stays"] = [[since, list(path)] for since, path in member.stays]
    if not member.is_node:
        described["identities"] = [identity.token.hex() for identity in member.identities]
    return described


def _allocation(tenant: Tenant) -> Iterator[dict[str, Any]]:
    for usage_type in sorted(tenant.caps.by_type):
        for ordinal in sorted(tenant.caps.by_type[usage_type]):
            for cap in tenant.caps.by_type[usage_type][ordinal]:
                yield {"is": "cap", **msgspec.structs.asdict(cap)}
    for ordinal in sorted(tenant.hierarchy.frozen):
        yield {"is": "frozen", **msgspec.structs.asdict(tenant.hierarchy.frozen[ordinal])}
    for at in sorted(tenant.sessions.terms.by_node):
        told_terms = msgspec.structs.asdict(tenant.sessions.terms.by_node[at])
        yield {"is": "session terms", **msgspec.to_builtins(told_terms)}
    for template in sorted(tenant.templates.by_name):
        told = tenant.templates.by_name[template]
        yield {"is": "template", **msgspec.to_builtins(msgspec.structs.asdict(told))}
    # In the order in which they are carried out when a period opens.
    for schedule, scheduled in tenant.schedules.by_id.items():
        next_at = tenant.schedules.next_at.get(schedule, 0)
        told_of = msgspec.to_builtins(msgspec.structs.asdict(scheduled))
        yield {"is": "schedule", **told_of, "next_at": next_at}


def _life(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """Nothing for a hierarchy in which nothing but resources ever moved."""
    hierarchy, life = tenant.hierarchy, tenant.life
    for ordinal, (at, successor) in sorted(hierarchy.closed.items()):
        to = hierarchy.members[successor].id if successor >= 0 else ""
        yield {"is": "closed", "node": hierarchy.members[ordinal].id, "at": at, "successor": to}
    for ordinal, told in sorted(hierarchy.suspended.items()):
        yield {"is": "suspension", "resource": hierarchy.members[ordinal].id, "told": told}
    for token, holders in sorted(hierarchy.by_token.items()):
        spells = [[holder.id, holder.since, holder.until] for holder in holders if isinstance(holder, Spell)]
        if spells:
            yield {"is": "identity", "token": token.hex(), "spells": spells}
    for _, plan in sorted(life.plans.items()):
        yield {"is": "plan", **msgspec.structs.asdict(plan)}
    for ordinal, (token, _) in sorted(life.labels.items()):
        yield {"is": "label", "resource": hierarchy.members[ordinal].id, "token": token.hex()}


def _session(session: Session) -> dict[str, Any]:
    told = msgspec.to_builtins(msgspec.structs.asdict(session))
    for name in ("prefix", "basis"):
        # Most sessions have none: they are told as before there were any.
        told = {key: value for key, value in told.items() if key != name or value}
    if session.basis is not None and not session.basis.switches:
        told["basis"] = told["basis"][:_BASIS_FIRST]
    return {**told, "subject": session.subject.hex(), "sealed": session.sealed.hex()}


def _family(family: Family, hierarchy: Hierarchy) -> Iterator[dict[str, Any]]:
    about = {"usage_type": family.usage_type, "period": family.period}
    yield {
        "is": "family",
        **about,
        "granted": family.granted_total,
        "remaining": family.remaining_total,
        "consumed": family.consumed_total,
        "expired": family.expired_total,
        "rolled": family.rolled_total,
        "rolled_in": family.rolled_in_total,
        "agreed": family.agreed,
    }
    for ordinal, member in enumerate(hierarchy.members):
        figures = {
            "remaining": family.remaining[ordinal],
            "reserved": family.reserved[ordinal],
            "consumed": family.consumed[ordinal],
            "used": family.used[ordinal],
            "rolled": sorted(family.rolled.get(ordinal, {}).items()),
        }
        if family.caps is not None and ordinal in family.caps.drawn:
            figures["drawn_from_above"] = family.caps.drawn[ordinal]
            figures["told"] = ordinal in family.caps.told
        if any(figures.values()):
            yield {"is": "bucket", **about, "node": member.id, **figures}
