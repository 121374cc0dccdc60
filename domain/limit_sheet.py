"""Limits as a sheet: CSV with the same columns in and out.

    node,usage_type,quantity,window,kind,thresholds,from_period,note
    sales,data,5 GB,day,hard,80% 100%,,
    chen,voice,none,,,,,

The first row names the columns, in any order; comma or semicolon. A quantity is a whole number in the usage
type's unit, or has a unit of its own; "none" lifts the limit. Thresholds are percentages or quantities, with
spaces between, or "none". An empty cell says what `SetLimit` takes where nothing is said.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from .limit import THRESHOLDS, THRESHOLDS_MAX, InForce, Kind, SetAnyLimit
from .limits_at_once import LIMITS_MAX, SetLimits
from .raising import MayRaise
from .refusals import Refused
from .sheet import quantity_of, read
from .tenant import Tenant
from .window import PERIOD

COLUMNS = ("node", "usage_type", "quantity", "window", "kind", "thresholds", "from_period", "note")
REQUIRED = ("node", "usage_type", "quantity")
NONE = "none"
"""As a quantity it lifts the limit; as thresholds, nobody is told."""
KINDS: dict[str, Kind] = {"": "hard", "hard": "hard", "soft": "soft"}


def limits_of(text: str, note: str = "") -> tuple[SetAnyLimit, ...]:
    """The limits of a CSV; refuses it with every row that cannot be read. `note`: of rows without."""
    return read(text, COLUMNS, REQUIRED, LIMITS_MAX, lambda told: _limit(told, note))


def together(limits: Iterable[SetAnyLimit], tenant: Tenant, now: int, roles: tuple[str, ...]) -> SetLimits:
    """These as one command of whoever has these roles; who may raise each limit stays as it is."""
    return SetLimits(
        limits=tuple(
            replace(limit, may_raise=may_raise_now(limit, tenant, now), roles=roles) for limit in limits
        )
    )


def may_raise_now(limit: SetAnyLimit, tenant: Tenant, now: int) -> tuple[MayRaise, ...]:
    """Who may raise the limit that this one takes the place of."""
    member = tenant.hierarchy.by_id.get(limit.node)
    if member is None:
        return ()
    period = limit.from_period or tenant.contracts.name_at(now)
    held = tenant.limits.of(member.ordinal, limit.usage_type, period, None, limit.window)
    return held.may_raise if held is not None else ()


def as_set(usage_type: str, held: InForce) -> SetAnyLimit:
    """What sets a limit in force again as it was set, without any raise, from the period that runs on."""
    quantity = held.quantity if held.set_to is None else held.set_to
    return SetAnyLimit(
        *(held.node, usage_type, quantity, held.thresholds, "", held.window, held.kind, held.quantities)
    )


def row_of(limit: SetAnyLimit) -> tuple[str, ...]:
    """The same as cells, in the order of the columns."""
    thresholds = [*(f"{percent}%" for percent in limit.thresholds), *map(str, limit.quantities)]
    quantity = NONE if limit.quantity is None else str(limit.quantity)
    about = (limit.node, limit.usage_type, quantity, limit.window, limit.kind)
    return (*about, " ".join(thresholds) or NONE, limit.from_period, limit.note)


def _limit(told: dict[str, str], note: str) -> SetAnyLimit:
    percents, quantities = _thresholds(told.get("thresholds", ""))
    kind = told.get("kind", "").lower()
    if kind not in KINDS:
        raise Refused("bad_kind", value=kind, known=["hard", "soft"])
    return SetAnyLimit(
        told["node"],
        told["usage_type"].lower(),
        _quantity(told["quantity"]),
        percents,
        told.get("from_period", ""),
        told.get("window", "") or PERIOD,
        KINDS[kind],
        quantities,
        note=told.get("note", "") or note,
    )


def _quantity(cell: str) -> int | None:
    if cell.lower() == NONE:
        return None
    quantity = quantity_of(cell)
    if quantity is None:
        # Left out by mistake it must not lift a limit.
        raise Refused("bad_quantity", quantity="", example=f"90000 or 2 GB; {NONE} lifts the limit")
    return quantity


def _thresholds(cell: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Percentages and quantities; at the usual percentages where none are named."""
    words = [] if cell.lower() == NONE else cell.split()
    percents = [word[:-1] for word in words if word.endswith("%")]
    if not all(percent.isascii() and percent.isdigit() and len(percent) < 5 for percent in percents):
        raise Refused("bad_thresholds", thresholds=words, thresholds_max=THRESHOLDS_MAX, percent_max=100)
    quantities = [quantity_of(word) or 0 for word in words if not word.endswith("%")]
    return tuple(map(int, percents)) if cell else THRESHOLDS, tuple(quantities)
