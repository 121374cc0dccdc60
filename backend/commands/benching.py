"""`allotment bench ...`: how fast charging is, whether it stays so, and on several workers."""

from typing import Any

import rich_click as click

from .options import JSON
from .output import note, say, settings_for_command, table, tell_json


@click.group()
def bench() -> None:
    """Measure, on embedded servers of its own."""


@bench.command()
@click.option("--rounds", type=click.IntRange(1), help="Medians are of these.")
@click.option("--records", type=click.IntRange(1), help="Charged in each round.")
@click.option("--batch", type=click.IntRange(1), help="Records at once.")
@click.option("--devices", type=click.IntRange(1), help="That share one balance.")
@click.option("--depth", type=click.IntRange(3, 64), help="Levels, the devices' own included.")
@click.option("--tenants", type=click.IntRange(1), help="Charged at the same time.")
@click.option("--history", type=click.IntRange(0), help="Events in the log before the first round.")
@click.option("--duplicates", type=click.IntRange(0, 100), help="Per cent of the records that come twice.")
@click.option("--lag-rate", type=click.IntRange(1), help="Records/s at which lag is measured (20,000).")
@click.option("--baselines/--no-baselines", default=None, help="Also measure what we compare with.")
@click.option("--fronts/--no-fronts", default=None, help="Also HTTP, GraphQL and projections' lag.")
@click.option("--native/--no-native", default=None, help="Charge in native code, where it was built.")
@JSON
def charge(as_json: bool, **wanted: Any) -> None:
    """Charge usage as fast as it goes, interleaved with its baselines on the same machine.

    \b
    allotment bench charge
    allotment bench charge --rounds 3 --no-baselines --json
    allotment bench charge --history 1000000 --rounds 1 --no-baselines   (a long log: cold start, replay)
    """
    # Here, not above: the baselines load a library that the product itself stays clear of.
    from ..bench.charge import Plan, run  # noqa: PLC0415

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    _tell(run(Plan(**given), note), as_json=as_json)


@bench.command()
@click.option("--rounds", type=click.IntRange(1), help="Medians are of these.")
@click.option("--records", type=click.IntRange(1), help="Charged for each tenant in each round.")
@click.option("--batch", type=click.IntRange(1), help="Records at once.")
@click.option("--devices", type=click.IntRange(1), help="That share one balance.")
@click.option("--depth", type=click.IntRange(3, 64), help="Levels, the devices' own included.")
@JSON
def workers(as_json: bool, **wanted: Any) -> None:
    """Charge two tenants on one worker, and on two; and say what was full.

    \b
    allotment bench workers
    allotment bench workers --rounds 3 --json
    """
    from ..bench.workers import Plan, run  # noqa: PLC0415  (as above)

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    _tell(run(Plan(**given), note), as_json=as_json)


@bench.command()
@click.option("--rounds", type=click.IntRange(1), help="Medians are of these.")
@click.option("--records", type=click.IntRange(100_000), help="Read and rated in each round.")
@click.option("--processes", type=click.IntRange(1, 64), help="That share the file.")
@click.option("--devices", type=click.IntRange(1), help="That share one balance.")
@click.option("--depth", type=click.IntRange(3, 64), help="Levels, the devices' own included.")
@click.option("--megabytes", type=click.IntRange(10), help="Of the file through which memory is watched.")
@JSON
def intake(as_json: bool, **wanted: Any) -> None:
    """Read CSV, normalise, guide and rate; where the time goes, and whether memory stays flat.

    \b
    allotment bench intake
    allotment bench intake --rounds 1 --megabytes 5000
    """
    from ..bench.intake import Plan, run  # noqa: PLC0415  (as above)

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    _tell(run(Plan(**given), note), as_json=as_json)


@bench.command()
@click.option("--crossings", type=click.IntRange(1), help="How many are told.")
@click.option("--crossings-per-s", type=click.IntRange(1), help="How fast they come.")
@click.option("--records-per-s", type=click.IntRange(0), help="Charged beside.")
@JSON
def notices(as_json: bool, **wanted: Any) -> None:
    """Tell of crossings by webhook and subscription, and how long each takes from its commit.

    \b
    allotment bench notices
    allotment bench notices --crossings 1000 --records-per-s 5000 --json
    """
    from ..bench.notices import Plan, run  # noqa: PLC0415  (as above)

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    _tell(run(Plan(**given), note), as_json=as_json)


@bench.command()
@click.option("--devices", type=click.IntRange(1), help="Of the enterprise.")
@click.option("--depth", type=click.IntRange(3, 64), help="Levels, the devices' own included.")
@click.option("--rate", type=click.IntRange(1), help="Records charged per second meanwhile.")
@click.option("--requests", type=click.IntRange(4), help="Of each question.")
@click.option("--portals", type=click.IntRange(1), help="That ask at once in the end.")
@JSON
def reading(as_json: bool, **wanted: Any) -> None:
    """Ask for a subtree's balances, reviews and sizings in a deep, wide tree while usage flows.

    \b
    allotment bench reading
    allotment bench reading --devices 10000 --depth 6 --json
    """
    from ..bench.reading import Plan, run  # noqa: PLC0415  (as above)

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    _tell(run(Plan(**given), note), as_json=as_json)


@bench.command()
@JSON
def publishing(*, as_json: bool) -> None:
    """Publish sheets of 50,000 destinations while somebody charges, and tell the longest wait.

    \b
    allotment bench publishing
    """
    from ..bench.publishing import run  # noqa: PLC0415  (as above)

    settings_for_command()
    _tell(run(note), as_json=as_json)


@bench.command()
@JSON
def rating(*, as_json: bool) -> None:
    """Load a tariff of 50,000 prefixes, and rate by it beside one of 50.

    \b
    allotment bench rating
    """
    from ..bench.rating import run  # noqa: PLC0415  (as above)

    settings_for_command()
    _tell(run(note), as_json=as_json)


def _tell(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        tell_json(figures)
        return
    spread = figures["spread"]
    rows = [(name, f"{figures[name]:,.3f}", *(f"{value:,.3f}" for value in spread[name])) for name in spread]
    say(table(("figure", "median", "min", "max"), rows, right=(1, 2, 3)))
    if "full" in figures:
        say(figures["full"])


@bench.command()
@click.option("--rounds", type=click.IntRange(1), help="Turns; ratios are medians of these.")
@click.option("--records", type=click.IntRange(1_000), help="Charged in each turn.")
@click.option("--devices", type=click.IntRange(1_000), help="Of the largest enterprise.")
@click.option("--history", type=click.IntRange(20_000), help="Events of the longest log.")
@JSON
def growth(*, as_json: bool, **wanted: Any) -> None:
    """Charge enterprises of many sizes by turns: depth, devices, history and duplicates.

    \b
    allotment bench growth
    allotment bench growth --devices 1000000 --history 10000000 --json
    """
    from ..bench.growth import Plan, run  # noqa: PLC0415  (as above)

    settings_for_command()
    given = {name: value for name, value in wanted.items() if value is not None}
    if "devices" in given:
        most = given["devices"]
        given["devices"] = (*(10**power for power in range(3, 7) if 10**power < most), most)
    if "history" in given:
        given["history"] = (10_000, given["history"])
    figures = run(Plan(**given), note)
    if as_json:
        tell_json(figures)
        return
    columns = ("what", "size", "us", "ours", "postgres", "ratio", "goal", "cold start s")
    rows = [
        (
            *(what, f"{one['size']:,}", one["cpu_us"], one["ours_us"], one["postgres_us"], one["ratio"]),
            *(goal, one["cold_start_s"]),
        )
        for what, goal in figures["goals"].items()
        for one in figures[what]
    ]
    told = [tuple(map(str, row)) for row in rows]
    say(table(columns, told, right=(1, 2, 3, 4, 5, 6, 7)))


@bench.command()
@click.option("--records", type=click.IntRange(100_000), help="Charged in all.")
@click.option("--batch", type=click.IntRange(1), help="Records at once.")
@click.option("--devices", type=click.IntRange(1), help="That share one balance.")
@click.option("--depth", type=click.IntRange(3, 64), help="Levels, the devices' own included.")
@click.option("--views/--no-views", default=None, help="Also keep the views up to date, in the same process.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, with every second.")
def sustained(as_json: bool, **wanted: Any) -> None:
    """Charge millions of records on one tenant, and tell each second that was slow, and the memory.

    \b
    allotment bench sustained
    allotment bench sustained --records 600000 --json
    """
    # Here, not above: as in `charge`.
    from ..bench.sustained import Endurance, run  # noqa: PLC0415

    settings_for_command()
    figures = run(Endurance(**{name: value for name, value in wanted.items() if value is not None}), note)
    if as_json:
        tell_json(figures)
        return
    slow = figures.pop("slow_seconds")
    told = [(name, f"{value:,}") for name, value in figures.items() if isinstance(value, int | float)]
    say(table(("figure", "value"), told, right=(1,)))
    columns = (
        "second",
        "charged",
        "pace",
        "cpu_ms",
        "stolen_ms",
        "dirty_mb",
        "rss_mb",
        "snapshot",
        "checkpoint",
    )
    if slow:
        say(table(columns, [tuple(str(second[name]) for name in columns) for second in slow]))
