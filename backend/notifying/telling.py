"""Telling: an event as programs and people are told of it: a CloudEvent, or a letter.

Whoever asked at a node is told as a reader bound to that node would be: what is beyond it has neither
name nor id, and nothing that is sealed is told.
"""

from collections.abc import Sequence
from email.message import EmailMessage
from hashlib import sha256
from uuid import UUID

import msgspec

from ...domain.events import Recorded
from ...domain.limit import ThresholdCrossed
from ...domain.tenant import Tenant
from ...graphql.asking import Reach
from ...graphql.scalars import moment_text
from ...graphql.telling import Teller
from ...tenants.identity import Principal
from .queue import notice_id

CLOUD_EVENT = "application/cloudevents+json"
TYPE_PREFIX = "allotment."
TOLD_MAX = 200
"""Events in one letter; of more it says how many there were."""


def teller_for(state: Tenant, tenant: UUID, node: str) -> Teller:
    """At the enterprise itself nothing is beyond reach."""
    member = state.hierarchy.by_id.get(node)
    nodes = () if member is None or member.ordinal == 0 else (node,)
    reader = Principal("notices", "notices", tenant, frozenset(), nodes, 0)
    return Teller(state, Reach(reader, state))


def cloud_event(told: Recorded, tenant: UUID, teller: Teller) -> bytes:
    """CloudEvents 1.0, structured, in JSON. The same event gives the same id for ever."""
    subject = getattr(told.event, "node", "") or getattr(told.event, "resource", "")
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": notice_id(tenant, told.seq),
            "source": f"urn:allotment:tenant:{tenant}",
            "type": TYPE_PREFIX + told.topic,
            **({"subject": subject} if subject else {}),
            "time": moment_text(told.recorded_at),
            "datacontenttype": "application/json",
            "tenantid": str(tenant),
            "sequence": f"{told.seq:020d}",
            "data": {
                "seq": str(told.seq),
                "actor": told.actor,
                "sentence": teller.sentence(told.event),
                "event": teller.facts(told.event),
            },
        }
    )


def letter(
    events: Sequence[Recorded], tenant: UUID, name: str, role: str, teller: Teller, sender: str, to: str
) -> EmailMessage:
    """One message with all of them. Sent again, it has the same Message-ID."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = _subject(events, name, teller)
    message["Message-ID"] = f"<{_letter_id(events, tenant, to)}@{sender.rpartition('@')[2] or 'allotment'}>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [
        f"{moment_text(told.recorded_at)[:16]}Z  {teller.sentence(told.event)}" for told in events[:TOLD_MAX]
    ]
    if len(events) > TOLD_MAX:
        lines.append(f"... and {len(events) - TOLD_MAX} more.")
    message.set_content(
        "\n".join([*lines, "", f"You get this as {role}. Events {events[0].seq} to {events[-1].seq}.", ""])
    )
    return message


def _subject(events: Sequence[Recorded], name: str, teller: Teller) -> str:
    if len(events) > 1:
        return f"{name}: {len(events)} notices"
    event = events[0].event
    if isinstance(event, ThresholdCrossed):
        return f"{name}: {teller.name(event.node)} at {event.percent} % of its limit on {event.usage_type}"
    return f"{name}: {event.topic.replace('.', ' ').replace('_', ' ')}"


def _letter_id(events: Sequence[Recorded], tenant: UUID, to: str) -> str:
    told = ",".join(str(one.seq) for one in events)
    return sha256(f"{tenant}:{to}:{told}".encode()).hexdigest()[:32]
