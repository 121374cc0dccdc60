"""Session terms: what the carrier lays down for sessions at and below a node, for one usage type or all.

How much is granted at a time, for how long, and what the network does when the last units are used. Of
those on a session's path the nearest hold, whole; of those at one node the ones of its own usage type.
"""

import re
from typing import ClassVar, get_args

from msgspec import Struct

from .contract import QUANTITY_MAX
from .hierarchy import Hierarchy, Path
from .refusals import Refused, check_text
from .session_conditions import TERMINATE, Conditions, FinalAction
from .usage_type import UsageTypes

ACTIONS: tuple[FinalAction, ...] = get_args(FinalAction)
VALIDITY_SECONDS_MAX = 600
"""As long as a session may be silent."""
HOLDING_SECONDS_MAX = 86_400
PERCENT_MAX = 99
ADDRESS = re.compile(r"(?:https?://|sips?:)[!-~]{1,180}")
EVERY_TYPE = ""


class SessionTerms(Struct, frozen=True, array_like=True):
    """What is laid down; 0 and nothing are as usual."""

    action: FinalAction = TERMINATE
    address: str = ""
    """Where to redirect the user to: a web or SIP address."""
    filter_id: str = ""
    """What the user may still reach, by a name that the network knows."""
    usual: int = 0
    """How much is granted at a time where the network leaves it to us."""
    least: int = 0
    """When little is left, slices become smaller, but not smaller than this."""
    validity_seconds: int = 0
    threshold_percent: int = 0
    """Report when so much of a slice is left."""
    holding_seconds: int = 0
    """Give a slice back that was not touched for so long."""
    pooled: bool = False
    """Services that cost money by the unit share what is reserved for all of them in one session."""

    def conditions(self, granted: int, *, last: bool) -> Conditions:
        """What is told beside a slice; of the end only when it is near."""
        ending = (self.action, self.address, self.filter_id) if last else (TERMINATE, "", "")
        threshold = granted * self.threshold_percent // 100
        return Conditions(self.validity_seconds, threshold, self.holding_seconds, *ending)


class SessionTermsSet(Struct, frozen=True, array_like=True):
    """From now on these terms hold for slices granted at and below a node; None: those above hold again."""

    topic: ClassVar[str] = "session.terms_set"
    node: str
    usage_type: str
    """Empty for all that have no terms of their own there."""
    terms: SessionTerms | None
    note: str = ""


class SetSessionTerms(Struct, frozen=True, array_like=True):
    """Lay terms down for sessions at and below a node, or take them back."""

    node: str
    usage_type: str = EVERY_TYPE
    terms: SessionTerms | None = None
    note: str = ""


class TermsInForce:
    """The terms of all nodes."""

    def __init__(self) -> None:
        self.by_node: dict[tuple[int, str], SessionTermsSet] = {}

    def of(self, path: Path, usage_type: str) -> SessionTerms | None:
        if self.by_node:
            for ordinal in path:
                for kind in (usage_type, EVERY_TYPE):
                    found = self.by_node.get((ordinal, kind))
                    if found is not None:
                        return found.terms
        return None

    def decide(self, command: SetSessionTerms, hierarchy: Hierarchy, types: UsageTypes) -> SessionTermsSet:
        member = hierarchy.member(command.node)
        if command.usage_type:
            types.check(command.usage_type)
        check_text("note", command.note, empty=True)
        if command.terms is None:
            if (member.ordinal, command.usage_type) not in self.by_node:
                raise Refused("no_session_terms", node=member.id, usage_type=command.usage_type)
        else:
            _check(command.terms)
        return SessionTermsSet(member.id, command.usage_type, command.terms, command.note)

    def apply(self, event: SessionTermsSet, hierarchy: Hierarchy) -> None:
        at = (hierarchy.by_id[event.node].ordinal, event.usage_type)
        if event.terms is None:
            self.by_node.pop(at, None)
        else:
            self.by_node[at] = event


def _check(terms: SessionTerms) -> None:
    check_text("filter_id", terms.filter_id, empty=True)
    redirects, restricts = terms.action == "REDIRECT", terms.action == "RESTRICT_ACCESS"
    for field, fits, remedy in (
        ("action", terms.action in ACTIONS, f"use one of {', '.join(ACTIONS)}"),
        ("address", not redirects or _is_address(terms.address), "give a web or SIP address to redirect to"),
        ("address", redirects or not terms.address, "only REDIRECT has an address"),
        ("filter_id", bool(terms.filter_id) == restricts, "RESTRICT_ACCESS, and only it, has a filter"),
        *_in_bounds(terms),
        ("least", _is_in_order(terms), "give at most the usual slice"),
    ):
        if not fits:
            raise Refused("bad_session_terms", field=field, value=getattr(terms, field), remedy=remedy)


def _in_bounds(terms: SessionTerms) -> list[tuple[str, bool, str]]:
    bounds = {
        "usual": QUANTITY_MAX,
        "least": QUANTITY_MAX,
        "validity_seconds": VALIDITY_SECONDS_MAX,
        "threshold_percent": PERCENT_MAX,
        "holding_seconds": HOLDING_SECONDS_MAX,
    }
    return [
        (field, 0 <= getattr(terms, field) <= most, f"give 0 to {most}") for field, most in bounds.items()
    ]


def _is_in_order(terms: SessionTerms) -> bool:
    return not terms.usual or terms.least <= terms.usual


def _is_address(text: str) -> bool:
    return ADDRESS.fullmatch(text) is not None
