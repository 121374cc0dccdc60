"""Access: what a proven caller may do, and on which part of the hierarchy.

Two questions, in this order. `require` asks for the verb and gives the tenant to open; a refusal
may be told, since it depends on the caller's role alone. `in_scope` asks for the node; there the
answer must tell nothing: callers treat a node out of scope exactly as one that does not exist,
with the same code, text and work, or the difference would list somebody else's hierarchy.

What is not granted in the table is refused. A principal without a tenant may do nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args
from uuid import UUID

from .identity import Principal, Role

Verb = Literal[
    "read",  # balances, usage, invoices, history: numbers masked
    "read_personal",  # the same with numbers and names in clear
    "allocate",  # hand down, and return up
    "trade",
    "set_limit",
    "organise",  # nodes and resources: add, move, merge, close, suspend
    "set_notice",  # who is told of what
    "configure",  # contract, tariff, rules
    "write_usage",
    "verify",  # re-read the log, export and prove it
]
Scope = Literal["node", "tenant"]

VERBS: tuple[Verb, ...] = get_args(Verb)

SCOPES: Mapping[Verb, Scope] = MappingProxyType(
    {
        "read": "node",
        "read_personal": "node",
        "allocate": "node",
        "trade": "node",
        "set_limit": "node",
        "organise": "node",
        "set_notice": "node",
        "configure": "tenant",
        "write_usage": "tenant",
        "verify": "tenant",
    }
)
"""What a verb acts on. One on the whole tenant is closed to a principal bound to part of it."""

GRANTS: Mapping[Role, frozenset[Verb]] = MappingProxyType(
    {
        "carrier": frozenset(VERBS),
        "telecoms_manager": frozenset(
            {"read", "read_personal", "allocate", "trade", "set_limit", "organise", "set_notice"}
        ),
        "auditor": frozenset({"read", "verify"}),
        "mediation": frozenset({"write_usage"}),
    }
)
"""Role by role, on everything its token's tenant and nodes leave in reach."""

OAUTH_SCOPES: Mapping[Verb, str] = MappingProxyType(
    {
        "read": "read",
        "read_personal": "read:personal",
        "allocate": "buckets:allocate",
        "trade": "buckets:trade",
        "set_limit": "limits:write",
        "organise": "hierarchy:write",
        "set_notice": "notices:write",
        "configure": "tenant:configure",
        "write_usage": "usage:write",
        "verify": "log:verify",
    }
)
"""What tokens and metadata call the verbs. Names for readers: rights follow from the roles."""


class NotPermitted(Exception):
    """A caller's role does not include the verb. Answered with 403."""

    code = "not_permitted"

    def __init__(self, verb: Verb, role: str, remedy: str) -> None:
        super().__init__(f"{role} may not {verb}: {remedy}")
        self.verb = verb
        self.role = role
        self.remedy = remedy


def may(principal: Principal, verb: Verb) -> bool:
    """Whether the principal may do this somewhere in its tenant."""
    return _obstacle(principal, verb) is None


def require(principal: Principal, verb: Verb) -> UUID:
    """The tenant in which the principal may do this; `NotPermitted` otherwise."""
    obstacle = _obstacle(principal, verb)
    if obstacle is not None or principal.tenant_id is None:
        role = "+".join(sorted(principal.roles)) or "none"
        raise NotPermitted(verb, role, obstacle or "")
    return principal.tenant_id


def in_scope(principal: Principal, path: Sequence[str]) -> bool:
    """Whether a node is within the principal's reach, given the ids from the root down to it.

    The path is that of the principal's own tenant at the time asked about. When this is false,
    answer what you answer for a node that does not exist.
    """
    assert not isinstance(path, str), "a path is a sequence of node ids"
    if principal.tenant_id is None:
        return False
    return not principal.nodes or not set(principal.nodes).isdisjoint(path)


def oauth_scope(roles: Collection[str]) -> str:
    """The `scope` a token with these roles carries: space separated, in the table's order."""
    granted = {verb for role, verbs in GRANTS.items() if role in roles for verb in verbs}
    return " ".join(OAUTH_SCOPES[verb] for verb in VERBS if verb in granted)


def _obstacle(principal: Principal, verb: Verb) -> str | None:
    if principal.tenant_id is None:
        return "use a token that names a tenant"
    if not any(verb in verbs for role, verbs in GRANTS.items() if role in principal.roles):
        return f"use a token with one of the roles {', '.join(_holders(verb))}"
    if SCOPES[verb] == "tenant" and principal.nodes:
        return "use a token for the whole tenant: this one is bound to nodes"
    return None


def _holders(verb: Verb) -> list[str]:
    return [role for role, verbs in GRANTS.items() if verb in verbs]
