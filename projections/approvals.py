"""Approvals: transfers that wait for approval, how others ended, and the rules in force."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.approval import ApprovalRuleSet, TransferApproved, TransferDeclined, TransferProposed
from ..domain.events import Recorded
from .chunk import Chunk
from .members import each
from .paging import page_values
from .tables import Connection, Table

STATES = ("waiting", "approved", "declined", "withdrawn", "expired")
PROPOSALS = Table(
    "proposals",
    {"proposal": "text"},
    {
        "asked": "bigint",
        "seq": "bigint",
        "state": "text",
        "reason": "text",
        "source": "integer",
        "target": "integer",
        "usage_type": "text",
        "period": "text",
        "quantity": "bigint",
        "offer": "text",
        "price_type": "text",
        "price": "bigint",
        "approvers": "integer[]",
        "roles": "text",
        "four_eyes": "boolean",
        "asked_by": "text",
        "expires_at": "bigint",
        "note": "text",
        "answer": "text",
        "asked_at": "bigint",
        "recorded_at": "bigint",
        "before": "bigint",
    },
)
RULES = Table(
    "approval_rules",
    {"ordinal": "integer", "usage_type": "text"},
    {
        "above": "bigint",
        "approver": "integer",
        "role": "text",
        "four_eyes": "boolean",
        "note": "text",
        "seq": "bigint",
        "recorded_at": "bigint",
        "span": "text",
    },
)
TABLES = (PROPOSALS, RULES)
VERSION = 2

_AT = {figure: place for place, figure in enumerate(PROPOSALS.figures)}
_ROLES = "\x1f"
"""Between the roles of approvers, one for each, in their order."""


class Proposal(Struct, frozen=True):
    """A transfer that needs approval, as its last event leaves it."""

    proposal: str
    asked: int
    """The seq of the event that proposed it."""
    seq: int
    state: str
    reason: str
    source: int
    target: int
    usage_type: str
    period: str
    quantity: int
    offer: str
    price_type: str
    price: int
    approvers: list[int]
    roles: str
    four_eyes: bool
    asked_by: str
    expires_at: int
    note: str
    answer: str
    """The note of who approved or declined it."""
    asked_at: int
    recorded_at: int
    before: int
    """What counted with it, of what was moved before."""
    source_id: str
    target_id: str

    @property
    def role_of_each(self) -> list[str]:
        return self.roles.split(_ROLES)


class Rule(Struct, frozen=True):
    """A rule in force."""

    ordinal: int
    usage_type: str
    above: int
    approver: int
    role: str
    four_eyes: bool
    note: str
    seq: int
    recorded_at: int
    span: str
    """In which what one person moves adds up: "", "day" or "period"."""


def apply(chunk: Chunk, db: Connection) -> None:
    of = chunk.ordinals.of
    rules: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    answers: list[tuple[Recorded, TransferApproved | TransferDeclined]] = []
    rows: dict[tuple[str], list[Any]] = {}
    for told in chunk.others:
        match told.event:
            case ApprovalRuleSet(node, usage_type, above, approver, four_eyes, note):
                rule = (above, of[approver.node], approver.role, four_eyes, note)
                rules[of[node], usage_type] = (*rule, told.seq, told.recorded_at, told.event.window)
            case TransferProposed(proposal):
                rows[(proposal,)] = _asked(told, told.event, chunk)
            case TransferApproved() | TransferDeclined():
                answers.append((told, told.event))
    missing = {answer.proposal for _, answer in answers if (answer.proposal,) not in rows}
    rows |= _held(db, missing) if missing else {}
    for told, answer in answers:
        row = rows[(answer.proposal,)]
        state = answer.because if isinstance(answer, TransferDeclined) else "approved"
        row[_AT["seq"]], row[_AT["state"]], row[_AT["answer"]] = told.seq, state, answer.note
        row[_AT["recorded_at"]] = told.recorded_at
    RULES.put(db, rules)
    PROPOSALS.put(db, rows)


def _held(db: Connection, proposals: set[str]) -> dict[tuple[str], list[Any]]:
    found = db.execute(
        f"SELECT {', '.join(PROPOSALS.columns)} FROM proposals WHERE proposal = ANY(%s::text[])",
        (sorted(proposals),),
    )
    return {(row[0],): list(row[1:]) for row in found}


def _asked(told: Recorded, event: TransferProposed, chunk: Chunk) -> list[Any]:
    of = chunk.ordinals.of
    return [
        *(told.seq, told.seq, "waiting", event.reason, of[event.source], of[event.target]),
        *(event.usage_type, event.period, event.quantity, event.offer, event.price_type, event.price),
        [of[approver.node] for approver in event.approvers],
        _ROLES.join(approver.role for approver in event.approvers),
        *(event.four_eyes, event.asked_by, event.expires_at, event.note, ""),
        *(told.recorded_at, told.recorded_at, event.before),
    ]


# --- queries ---------------------------------------------------------------------------------


def proposals_page(
    db: Connection,
    roots: Sequence[str | None],
    first: int,
    before: int | None = None,
    state: str | None = None,
    proposal: str | None = None,
) -> list[Proposal]:
    """The newest transfers between members of these subtrees, or that somebody there may approve."""
    values = {
        **page_values(first, before),
        "roots": [root for root in roots if root is not None],
        "whole": None in roots,
        "state": state,
        "proposal": proposal,
    }
    return [Proposal(*row) for row in db.execute(_PROPOSALS, values, binary=True)]


def rules(db: Connection) -> list[Rule]:
    """Those in force; a member's rules together."""
    columns = ", ".join(RULES.columns)
    found = db.execute(
        f"SELECT {columns} FROM approval_rules WHERE above IS NOT NULL ORDER BY ordinal, usage_type"
    )
    return [Rule(*row) for row in found]


_COLUMNS = ", ".join(f"p.{column}" for column in PROPOSALS.columns)
_PROPOSALS = f"""
WITH root AS MATERIALIZED (SELECT ordinal FROM members WHERE id = ANY(%(roots)s::text[]))
SELECT {_COLUMNS}, s.id, t.id
FROM proposals p CROSS JOIN {each("members", "ordinal = p.source")} AS s
CROSS JOIN {each("members", "ordinal = p.target")} AS t
WHERE p.asked < %(before)s
  AND (%(state)s::text IS NULL OR p.state = %(state)s)
  AND (%(proposal)s::text IS NULL OR p.proposal = %(proposal)s)
  AND (%(whole)s OR EXISTS (
      SELECT FROM root WHERE root.ordinal = ANY(s.path) OR root.ordinal = ANY(t.path)
      OR EXISTS (SELECT FROM members a WHERE a.ordinal = ANY(p.approvers) AND root.ordinal = ANY(a.path))))
ORDER BY p.asked DESC LIMIT %(first)s
"""
