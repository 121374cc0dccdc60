"""Templates: a rule by which a node divides what it has among those below it.

"Each cost centre gets 5 %": parts of what the node has when it is applied, by the largest
remainder, so that they add up exactly. "2 GB per device": by how many devices stand in each part.
"""

from typing import ClassVar, Literal, get_args

from msgspec import Struct

from .contract import QUANTITY_MAX
from .hierarchy import NODE_KINDS, RESOURCE_KINDS, Hierarchy, Member
from .refusals import Refused, check_text
from .usage_type import UsageTypes

Share = Literal["percent", "per_device", "each"]
SHARES: tuple[Share, ...] = get_args(Share)
CHILDREN, RESOURCES = "children", "resources"
WHOLE = 10_000
"""100 %, in hundredths of a percent."""
TEMPLATES_MAX = 1_000


class Rule(Struct, frozen=True, array_like=True):
    """How much each of those below gets."""

    share: Share
    amount: int
    """`percent`: hundredths of a percent of what the node has, to each. Else a quantity, in its unit."""
    to: str = CHILDREN
    """`children`: the nodes right below; a kind of node or resource; `resources`: every device."""


class TemplateDefined(Struct, frozen=True, array_like=True):
    """A rule has a name, or another rule has it from now on."""

    topic: ClassVar[str] = "allocation.template_defined"
    template: str
    usage_type: str
    rule: Rule
    note: str = ""


class DefineTemplate(Struct, frozen=True, array_like=True):
    """Keep a rule under a name. Defined again, the name stands for the new rule."""

    template: str
    usage_type: str
    rule: Rule
    note: str = ""


class ApplyTemplate(Struct, frozen=True, array_like=True):
    """Divide what a node has by a rule: one that is given, or one that has a name."""

    node: str
    template: str = ""
    rule: Rule | None = None
    usage_type: str = ""
    """"" means the template's own."""
    period: str = ""
    note: str = ""


class Templates:
    """The rules that have names."""

    def __init__(self, types: UsageTypes) -> None:
        self._types = types
        self.by_name: dict[str, TemplateDefined] = {}

    def decide(self, command: DefineTemplate) -> TemplateDefined:
        check_text("template", command.template)
        check_text("note", command.note, empty=True)
        self._types.check(command.usage_type, money=True)
        check_rule(command.rule)
        if command.template not in self.by_name and len(self.by_name) >= TEMPLATES_MAX:
            raise Refused("too_many_templates", templates_max=TEMPLATES_MAX)
        return TemplateDefined(command.template, command.usage_type, command.rule, command.note)

    def apply(self, event: TemplateDefined) -> None:
        self.by_name[event.template] = event

    def named(self, template: str) -> TemplateDefined:
        found = self.by_name.get(template)
        if found is None:
            raise Refused("unknown_template", template=template)
        return found


def check_rule(rule: Rule) -> None:
    if rule.share not in SHARES:
        raise Refused("unknown_share", share=rule.share, known=list(SHARES))
    most = WHOLE if rule.share == "percent" else QUANTITY_MAX
    if not 1 <= rule.amount <= most:
        raise Refused("amount_out_of_range", amount=rule.amount, amount_max=most)
    known = (CHILDREN, RESOURCES, *NODE_KINDS, *RESOURCE_KINDS)
    if rule.to not in known:
        raise Refused("unknown_kind", kind=rule.to, known=list(known))


def shares(
    rule: Rule, node: Member, available: int, hierarchy: Hierarchy, now: int
) -> list[tuple[Member, int]]:
    """Who gets how much, in the order of their ordinals; whoever gets nothing is left out."""
    targets = _targets(rule.to, node, hierarchy, now)
    if not targets:
        raise Refused("nobody_below", node=node.id, kind=rule.to)
    match rule.share:
        case "percent":
            parts = split(available, [rule.amount] * len(targets), WHOLE)
        case "each":
            parts = [rule.amount] * len(targets)
        case "per_device":
            counted = _devices(targets, hierarchy, now)
            parts = [rule.amount * counted[target.ordinal] for target in targets]
    return [(target, part) for target, part in zip(targets, parts, strict=True) if part]


def split(whole: int, weights: list[int], of: int) -> list[int]:
    """Parts of a whole by the largest remainder: they add up to whole * sum(weights) / of, rounded down."""
    exact = [divmod(whole * weight, of) for weight in weights]
    parts = [part for part, _ in exact]
    missing = whole * sum(weights) // of - sum(parts)
    # Of equal remainders the first gets more.
    by_remainder = sorted(range(len(parts)), key=lambda place: -exact[place][1])
    for place in by_remainder[:missing]:
        parts[place] += 1
    return parts


def _targets(to: str, node: Member, hierarchy: Hierarchy, now: int) -> list[Member]:
    if to == CHILDREN:
        return [one for one in hierarchy.children(node) if one.ordinal not in hierarchy.closed]
    wanted = RESOURCE_KINDS if to == RESOURCES else (to,)
    ordinal = node.ordinal
    return [
        one
        for one in hierarchy.members
        if one.kind in wanted
        and one is not node
        and one.ordinal not in hierarchy.closed
        and ordinal in _way(one, now)
    ]


def _devices(targets: list[Member], hierarchy: Hierarchy, now: int) -> dict[int, int]:
    """How many living resources stand at and below each."""
    counted = dict.fromkeys((target.ordinal for target in targets), 0)
    for one in hierarchy.members:
        if not one.is_node:
            for ordinal in _way(one, now):
                if ordinal in counted:
                    counted[ordinal] += 1
    return counted


def _way(member: Member, now: int) -> tuple[int, ...]:
    """From a member up; nowhere for a resource that is not there now."""
    return member.path if member.is_node else member.path_at(now)
