"""Policies: what happens to usage that goes beyond a threshold of a limit.

A policy stands at a node and watches the limits of one kind there and below. Of those that fit a
use, the one at the most specific node decides, and of its steps the highest that is passed. A
step acts on usage that would go beyond its threshold; usage that just reaches it is as before.
Versions are only ever added: usage meets the version that was in force when it happened.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar, Literal

from msgspec import Struct

from .contract import QUANTITY_MAX
from .hierarchy import RESOURCE_KINDS, Hierarchy, Path
from .refusals import Refused, check_text
from .tariff import MICRO, PRICE, UNITS_MAX, CompiledRate, Rated, round_to
from .window import PERIOD, Calendar, window_of

Action = Literal["notify", "throttle", "redirect", "approval", "block", "overage"]
ACTIONS: tuple[Action, ...] = ("notify", "throttle", "redirect", "approval", "block", "overage")
STEPS_MAX = 20
POLICIES_MAX = 1_000
GROUPS_MAX = 50
PREFIXES_MAX = 500
PERCENT_MAX = 1_000
KBPS_MAX = 100_000_000
DAY_MINUTES = 1_440
NEVER_IN_FORCE = 1 << 62

EMERGENCY = "emergency"
PERSONAL = "personal"
"""Payers beside the enterprise: what they pay for draws no allowance and counts in no limit."""


class Step(Struct, frozen=True, array_like=True):
    """What happens beyond a percentage of the limit, or beyond a quantity."""

    action: Action
    percent: int = 0
    at: int = 0
    """A quantity, where there is no percentage."""
    kbps: int = 0
    """Throttle to this many kilobits per second."""
    price: str = ""
    """Overage: what `per` units cost beyond the threshold, in place of the tariff's price."""
    per: int = 1
    approvers: tuple[str, ...] = ()
    """Roles that may approve; none: whoever may set limits there."""


class Group(Struct, frozen=True, array_like=True):
    """A named group of countries, by what their numbers begin with: ("+41", "+43")."""

    name: str
    prefixes: tuple[str, ...]


class Selector(Struct, frozen=True, array_like=True):
    """Which usage a policy is about. What is left empty selects everything."""

    usage_types: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    """Of resources: "msisdn", "sip" ..."""
    roles: tuple[str, ...] = ()
    """As the record's attribute `role` has it."""
    countries: tuple[str, ...] = ()
    """Groups that the other party's number must be in one of."""
    weekdays: tuple[int, ...] = ()
    """Monday is 0, by the tenant's clock."""
    from_minute: int = 0
    to_minute: int = DAY_MINUTES
    """Minutes of the day, the end excluded; a window past midnight has its end before its start."""


class PolicySet(Struct, frozen=True, array_like=True):
    """A version of a policy holds for usage from a moment on."""

    topic: ClassVar[str] = "policy.set"
    policy: str
    version: int
    valid_from: int
    node: str
    counted: str
    """What the limits count that it watches: a usage type or "money"."""
    window: str
    steps: tuple[Step, ...]
    selector: Selector
    groups: tuple[Group, ...]
    note: str = ""


class PolicyWithdrawn(Struct, frozen=True, array_like=True):
    """A policy holds no more for usage from a moment on; a later version may hold again."""

    topic: ClassVar[str] = "policy.withdrawn"
    policy: str
    version: int
    """The last one."""
    valid_from: int
    node: str
    note: str = ""


class UsageApproved(Struct, frozen=True, array_like=True):
    """Usage that a policy lets nobody make without leave may be made at and below a member, for a time."""

    topic: ClassVar[str] = "policy.usage_approved"
    policy: str
    node: str
    since: int
    until: int
    note: str = ""


class SetPolicy(Struct, frozen=True, array_like=True):
    """A new version of a policy. `valid_from` 0 means now; it may not lie in the past."""

    policy: str
    node: str
    counted: str
    steps: tuple[Step, ...]
    window: str = PERIOD
    valid_from: int = 0
    selector: Selector = Selector()
    groups: tuple[Group, ...] = ()
    note: str = ""


class WithdrawPolicy(Struct, frozen=True, array_like=True):
    """End a policy, now (0) or from a later moment on."""

    policy: str
    valid_from: int = 0
    note: str = ""


class ApproveUsage(Struct, frozen=True, array_like=True):
    """Allow at and below a member until a moment what a policy makes wait for an approval."""

    policy: str
    node: str
    until: int
    roles: tuple[str, ...] = ()
    """Of whoever approves; none for the carrier's own programs."""
    note: str = ""


class Ruling(Struct, frozen=True, array_like=True, gc=False):
    """What a policy ruled of one use: stands in the event that tells of it."""

    policy: str
    version: int
    action: Action
    limit_of: int
    """The ordinal of the member whose limit it was."""
    counted: str
    window: str
    percent: int
    at: int
    """The threshold as a quantity."""
    kbps: int = 0
    above: int = 0
    """Billed units at the price of the policy."""
    price: str = ""
    per: int = 1


class Asked(Struct, frozen=True, gc=False):
    """A use, as far as a policy asks about it."""

    path: Path
    usage_type: str
    direction: str
    at: int
    kind: str
    role: str
    counterpart: str


class Reached(Struct, frozen=True, gc=False):
    """How far a limit on the path would come with this use."""

    ordinal: int
    counted: str
    window: str
    quantity: int
    total: int


class Compiled:
    """A version of a policy, ready to be asked."""

    def __init__(self, version: PolicySet, ordinal: int) -> None:
        self.version = version
        self.ordinal = ordinal
        selector = version.selector
        named = {group.name: group.prefixes for group in version.groups}
        self.prefixes = tuple(prefix for name in selector.countries for prefix in named.get(name, ()))
        self.timed = bool(selector.weekdays) or (selector.from_minute, selector.to_minute) != (0, DAY_MINUTES)

    def fits(self, asked: Asked, calendar: Calendar) -> bool:
        selector = self.version.selector
        return (
            self.ordinal in asked.path
            and (not selector.usage_types or asked.usage_type in selector.usage_types)
            and (not selector.directions or asked.direction in selector.directions)
            and (not selector.kinds or asked.kind in selector.kinds)
            and (not selector.roles or asked.role in selector.roles)
            and (not selector.countries or asked.counterpart.startswith(self.prefixes))
            and (not self.timed or _in_time(selector, *calendar.minute_of_week(asked.at)))
        )

    def step(self, reached: Reached, *, approved: bool) -> tuple[Step, int] | None:
        """The highest step that is passed, and its threshold as a quantity."""
        best: tuple[Step, int] | None = None
        for step in self.version.steps:
            if step.action == "notify" or (step.action == "approval" and approved):
                continue
            threshold = quantity_at(step.percent, step.at, reached.quantity)
            if reached.total > threshold and (best is None or threshold >= best[1]):
                best = (step, threshold)
        return best


class Policies:
    """All versions of all policies, and what was approved."""

    def __init__(self, calendar: Calendar) -> None:
        self.versions: dict[str, list[PolicySet | PolicyWithdrawn]] = {}
        self.approved: dict[str, list[UsageApproved]] = {}
        self._calendar = calendar
        self._nodes: dict[str, int] = {}
        self._last: tuple[int, int, tuple[Compiled, ...]] | None = None
        """Those in force within [starts_at, ends_at)."""

    def __bool__(self) -> bool:
        return bool(self.versions)

    # --- asked ----------------------------------------------------------------------------------

    def decide(self, asked: Asked, limits: Sequence[Reached]) -> Ruling | None:
        """What is ruled of a use that brings the limits on its path so far."""
        best: tuple[tuple[int, Fraction, int, str], Ruling] | None = None
        for place, compiled in self._fitting(asked):
            approved, version = self._is_approved(compiled, asked), compiled.version
            for reached in limits:
                if not _watches(version, place, reached, asked.path):
                    continue
                passed = compiled.step(reached, approved=approved)
                if passed is None:
                    continue
                share = Fraction(passed[1], max(reached.quantity, 1))
                rank = (place, -share, asked.path.index(reached.ordinal), version.policy)
                if best is None or rank < best[0]:
                    best = rank, _ruling(version, *passed, reached)
        return best[1] if best is not None else None

    def thresholds(
        self, asked: Asked, ordinal: int, counted: str, window: str
    ) -> Iterator[tuple[PolicySet, Step]]:
        """The thresholds that policies add to a limit: they are told as the limit's own are."""
        for place, compiled in self._fitting(asked):
            version = compiled.version
            if (version.counted, version.window) == (counted, window) and asked.path.index(ordinal) <= place:
                for step in version.steps:
                    yield version, step

    def lowest(self, counted: str, window: str, quantity: int) -> int | None:
        """The first quantity at which any policy could have a say about such a limit."""
        return min(
            (
                max(1, quantity_at(step.percent, step.at, quantity))
                for versions in self.versions.values()
                for version in versions
                if isinstance(version, PolicySet) and (version.counted, version.window) == (counted, window)
                for step in version.steps
            ),
            default=None,
        )

    def place_of(self, counterpart: str) -> str:
        """The longest prefix of any group that a number begins with: what sessions keep of it."""
        prefixes = (
            prefix
            for versions in self.versions.values()
            for version in versions
            if isinstance(version, PolicySet)
            for group in version.groups
            for prefix in group.prefixes
            if counterpart.startswith(prefix)
        )
        return max(prefixes, key=len, default="")

    def in_force(self, at: int) -> tuple[Compiled, ...]:
        last = self._last
        if last is None or not last[0] <= at < last[1]:
            last = self._last = self._compile(at)
        return last[2]

    def version_at(self, policy: str, at: int) -> PolicySet | None:
        """The version that holds at a moment: the one that begins last, and of several the one set later."""
        begun = [version for version in self.versions.get(policy, ()) if version.valid_from <= at]
        last = max(reversed(begun), key=lambda version: version.valid_from, default=None)
        return last if isinstance(last, PolicySet) else None

    def _fitting(self, asked: Asked) -> Iterator[tuple[int, Compiled]]:
        for compiled in self.in_force(asked.at):
            if compiled.fits(asked, self._calendar):
                yield asked.path.index(compiled.ordinal), compiled

    def _is_approved(self, compiled: Compiled, asked: Asked) -> bool:
        return any(
            given.since <= asked.at < given.until and self._nodes[given.node] in asked.path
            for given in self.approved.get(compiled.version.policy, ())
        )

    def _compile(self, at: int) -> tuple[int, int, tuple[Compiled, ...]]:
        moments = [version.valid_from for versions in self.versions.values() for version in versions]
        starts_at = max((moment for moment in moments if moment <= at), default=-NEVER_IN_FORCE)
        ends_at = min((moment for moment in moments if moment > at), default=NEVER_IN_FORCE)
        found = [version for policy in self.versions if (version := self.version_at(policy, at))]
        return starts_at, ends_at, tuple(Compiled(version, self._nodes[version.node]) for version in found)

    # --- decided --------------------------------------------------------------------------------

    def set(self, command: SetPolicy, hierarchy: Hierarchy, now: int) -> PolicySet:
        check_policy(command, hierarchy)
        if command.policy not in self.versions and len(self.versions) >= POLICIES_MAX:
            raise Refused("too_many_policies", policies_max=POLICIES_MAX)
        return PolicySet(
            command.policy,
            self._next(command.policy),
            self._from(command.valid_from, now),
            command.node,
            command.counted,
            command.window,
            tuple(sorted(command.steps, key=lambda step: (step.percent, step.at))),
            command.selector,
            command.groups,
            command.note,
        )

    def withdraw(self, command: WithdrawPolicy, now: int) -> PolicyWithdrawn:
        check_text("note", command.note, empty=True)
        last = self._known(command.policy)
        if isinstance(last, PolicyWithdrawn):
            raise Refused("policy_withdrawn", policy=command.policy, valid_from=last.valid_from)
        valid_from = self._from(command.valid_from, now)
        return PolicyWithdrawn(command.policy, last.version, valid_from, last.node, command.note)

    def approve(self, command: ApproveUsage, hierarchy: Hierarchy, now: int) -> UsageApproved:
        check_text("note", command.note, empty=True)
        version, member = self.version_at(command.policy, now), hierarchy.member(command.node)
        if version is None:
            raise Refused("unknown_policy", policy=command.policy)
        steps = [step for step in version.steps if step.action == "approval"]
        above = hierarchy.by_id[version.node].ordinal
        if not steps or above not in member.standing(now):
            raise Refused("nothing_to_approve", policy=command.policy, node=command.node)
        if command.until <= now:
            raise Refused("bad_end", until=command.until, now=now)
        allowed = sorted({role for step in steps for role in step.approvers})
        if command.roles and allowed and not set(allowed) & set(command.roles):
            raise Refused("may_not_approve", policy=command.policy, node=command.node, roles=allowed)
        return UsageApproved(command.policy, command.node, now, command.until, command.note)

    def apply(self, event: PolicySet | PolicyWithdrawn | UsageApproved, hierarchy: Hierarchy) -> None:
        self._nodes[event.node] = hierarchy.by_id[event.node].ordinal
        if isinstance(event, UsageApproved):
            # What has ended before this one began can still be asked for, by late usage: it stays.
            self.approved.setdefault(event.policy, []).append(event)
        else:
            self.versions.setdefault(event.policy, []).append(event)
            self._last = None

    def _known(self, policy: str) -> PolicySet | PolicyWithdrawn:
        versions = self.versions.get(policy)
        if not versions:
            raise Refused("unknown_policy", policy=policy)
        return versions[-1]

    def _next(self, policy: str) -> int:
        return 1 + sum(isinstance(version, PolicySet) for version in self.versions.get(policy, ()))

    def _from(self, valid_from: int, now: int) -> int:
        # Usage that was decided already is not decided again: a policy begins now, or later.
        if valid_from and valid_from < now:
            raise Refused("begins_in_the_past", field="valid_from", value=valid_from, now=now)
        return valid_from or now


def check_policy(command: SetPolicy, hierarchy: Hierarchy) -> None:
    """Refuses what no policy may be, naming the field."""
    check_text("policy", command.policy)
    check_text("note", command.note, empty=True)
    hierarchy.member(command.node)
    window_of(command.window)
    if not 1 <= len(command.steps) <= STEPS_MAX:
        raise Refused("bad_policy", field="steps", value=len(command.steps), remedy=f"give 1 to {STEPS_MAX}")
    for index, step in enumerate(command.steps):
        for field, wrong, remedy in _step_faults(step):
            if wrong:
                value = str(getattr(step, field))
                raise Refused("bad_policy", field=f"steps[{index}].{field}", value=value, remedy=remedy)
    for field, wrong, remedy in _selector_faults(command.selector, command.groups):
        if wrong:
            raise Refused("bad_policy", field=field, value="", remedy=remedy)


def priced_above(
    rate: CompiledRate, rest: int, taken: int, above: int, price: str, per: int, at: int
) -> Rated:
    """What units cost that no allowance covered, those above `rest` at a policy's price: rounded once."""
    usual = rate.rate(rest, taken, at)
    exact = Fraction(*usual.exact) + above * Fraction(Decimal(price)) * Fraction(MICRO, per)
    amount = round_to(rate.step, rate.method, exact.numerator, exact.denominator)
    return Rated(usual.overage + above, amount, (exact.numerator, exact.denominator))


def quantity_at(percent: int, at: int, quantity: int) -> int:
    """A threshold as the first whole quantity that reaches it."""
    return -(-quantity * percent // 100) if percent else at


def _ruling(version: PolicySet, step: Step, threshold: int, reached: Reached) -> Ruling:
    return Ruling(
        version.policy,
        version.version,
        step.action,
        reached.ordinal,
        reached.counted,
        reached.window,
        step.percent,
        threshold,
        step.kbps,
        0,
        step.price,
        step.per,
    )


def _watches(version: PolicySet, place: int, reached: Reached, path: Path) -> bool:
    """Whether it is a limit of the kind that the policy is about, at its node or below."""
    kind = (reached.counted, reached.window)
    return (version.counted, version.window) == kind and path.index(reached.ordinal) <= place


def _in_time(selector: Selector, weekday: int, minute: int) -> bool:
    """The night of a weekday that goes past midnight belongs to the day that it began on."""
    begins, ends = selector.from_minute, selector.to_minute
    if begins <= ends:
        return (not selector.weekdays or weekday in selector.weekdays) and begins <= minute < ends
    if minute >= begins:
        return not selector.weekdays or weekday in selector.weekdays
    return minute < ends and (not selector.weekdays or (weekday - 1) % 7 in selector.weekdays)


Fault = tuple[str, bool, str]


def _step_faults(step: Step) -> Iterable[Fault]:
    return (
        ("action", step.action not in ACTIONS, f"use one of {', '.join(ACTIONS)}"),
        ("percent", not 0 <= step.percent <= PERCENT_MAX, f"1 to {PERCENT_MAX}, or a quantity in `at`"),
        ("at", not 0 <= step.at <= QUANTITY_MAX, f"0 to {QUANTITY_MAX}"),
        ("at", bool(step.percent) and bool(step.at), "give a percentage or a quantity, not both"),
        ("kbps", not 0 <= step.kbps <= KBPS_MAX, f"0 to {KBPS_MAX}"),
        ("kbps", step.action == "throttle" and not step.kbps, "a throttle needs a rate"),
        (
            "price",
            step.action == "overage" and not PRICE.fullmatch(step.price),
            "an exact price, such as 0.05",
        ),
        ("per", not 1 <= step.per <= UNITS_MAX, f"1 to {UNITS_MAX}"),
        ("approvers", any(not role.isidentifier() for role in step.approvers), "names of roles"),
    )


def _selector_faults(selector: Selector, groups: tuple[Group, ...]) -> Iterable[Fault]:
    names = [group.name for group in groups]
    prefixes = [prefix for group in groups for prefix in group.prefixes]
    wrong_texts = [
        text
        for text in (*names, *prefixes, *selector.roles)
        if not text or not text.isprintable() or len(text) > 100
    ]
    return (
        (
            "selector.directions",
            bool(set(selector.directions) - {"outbound", "inbound"}),
            "outbound, inbound",
        ),
        (
            "selector.kinds",
            bool(set(selector.kinds) - set(RESOURCE_KINDS)),
            f"use {', '.join(RESOURCE_KINDS)}",
        ),
        ("selector.weekdays", any(not 0 <= day <= 6 for day in selector.weekdays), "0 (Monday) to 6"),
        ("selector.from_minute", not 0 <= selector.from_minute < DAY_MINUTES, f"0 to {DAY_MINUTES - 1}"),
        ("selector.to_minute", not 0 < selector.to_minute <= DAY_MINUTES, f"1 to {DAY_MINUTES}"),
        ("selector.countries", bool(set(selector.countries) - set(names)), "groups given in `groups`"),
        ("groups", len(groups) > GROUPS_MAX or len(prefixes) > PREFIXES_MAX, f"at most {GROUPS_MAX} groups"),
        (
            "groups",
            len(set(names)) != len(names) or not all(g.prefixes for g in groups),
            "each once, not empty",
        ),
        ("groups", bool(wrong_texts), "1 to 100 printable characters"),
    )
