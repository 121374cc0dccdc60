"""All views: each a pure function of the log, with a version that says which function.

A view's rows and its position are committed together. When `apply` or the tables of a view
change, its version is raised, and it is built again from event 1.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from . import (
    accuracy,
    allocations,
    approvals,
    balances,
    consumption,
    contracts,
    fees,
    invoices,
    limits,
    members,
    notices,
    offers,
    plans,
    presence,
    rating_jobs,
    rules,
    sessions,
    suspense,
    tariffs,
    timeline,
    usages,
)
from .chunk import Chunk
from .tables import Connection, Table


class View(Struct, frozen=True):
    name: str
    version: int
    tables: tuple[Table, ...]
    apply: Callable[[Chunk, Connection], None]
    reads: tuple[str, ...] = ()
    """Views that its queries read as well."""


VIEWS = (
    View("members", members.VERSION, members.TABLES, members.apply),
    View("balances", balances.VERSION, balances.TABLES, balances.apply, ("members",)),
    View("limits", limits.VERSION, limits.TABLES, limits.apply, ("members", "balances")),
    View(
        "allocations",
        allocations.VERSION,
        allocations.TABLES,
        allocations.apply,
        ("members", "balances"),
    ),
    View("usages", usages.VERSION, usages.TABLES, usages.apply, ("members",)),
    View("suspense", suspense.VERSION, suspense.TABLES, suspense.apply, ("usages", "members")),
    View("accuracy", accuracy.VERSION, accuracy.TABLES, accuracy.apply),
    View("tariffs", tariffs.VERSION, tariffs.TABLES, tariffs.apply),
    View("presence", presence.VERSION, presence.TABLES, presence.apply, ("members",)),
    View("fees", fees.VERSION, fees.TABLES, fees.apply),
    View("plans", plans.VERSION, plans.TABLES, plans.apply),
    View(
        "invoices",
        invoices.VERSION,
        invoices.TABLES,
        invoices.apply,
        ("members", "balances", "contracts", "presence", "fees", "plans", "tariffs"),
    ),
    View("contracts", contracts.VERSION, contracts.TABLES, contracts.apply),
    View("sessions", sessions.VERSION, sessions.TABLES, sessions.apply, ("members",)),
    View("rules", rules.VERSION, rules.TABLES, rules.apply, ("members", "balances")),
    View("rating_jobs", rating_jobs.VERSION, rating_jobs.TABLES, rating_jobs.apply),
    View("notices", notices.VERSION, notices.TABLES, notices.apply),
    View("offers", offers.VERSION, offers.TABLES, offers.apply, ("members",)),
    View("approvals", approvals.VERSION, approvals.TABLES, approvals.apply, ("members",)),
    View(
        "consumption",
        consumption.VERSION,
        consumption.TABLES,
        consumption.apply,
        ("members", "balances", "limits"),
    ),
    View("timeline", timeline.VERSION, timeline.TABLES, timeline.apply, ("members", "usages")),
)


def views_for(names: Iterable[str]) -> Sequence[View]:
    """The views of these names, with those that their queries read."""
    wanted = set(names)
    unknown = wanted - {view.name for view in VIEWS}
    if unknown:
        raise ValueError(f"no view is called {sorted(unknown)}, there are {[view.name for view in VIEWS]}")
    wanted |= {read for view in VIEWS if view.name in wanted for read in view.reads}
    return [view for view in VIEWS if view.name in wanted]
