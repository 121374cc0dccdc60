"""A second way to rate, as naive as can be: unit by unit, by a tariff file as it is written, with fractions.

It shares no code with the product and takes no short cuts: the clock on the wall is asked for every minute.
"""

from collections import Counter
from datetime import datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def rated(tariff: dict, usage: dict, taken: int = 0) -> tuple[int, Fraction, int] | None:
    """Billed units, the exact cost in micro-units of those from `taken` on, and the same rounded."""
    rows = rows_for(tariff, usage)
    if rows is None:
        return None
    at_start = row_at(tariff, rows, usage["started_at"])
    times = 1
    if at_start.get("times"):
        times = int(usage["attributes"].get(at_start["times"], "1"))
    prices: list[tuple[str, int]] = []
    by_minute: dict[int, dict] = {}
    begun: set[int] = set()
    while len(prices) < usage["quantity"]:
        row = at_start
        if (at_start.get("across") or tariff.get("across")) == "split":
            moment = usage["started_at"] + len(prices) * 1_000_000
            minute = moment // 60_000_000
            row = by_minute.get(minute) or by_minute.setdefault(minute, row_at(tariff, rows, moment))
        bands = [{"from": 0, **row}, *row.get("bands", [])]
        number = max(n for n, band in enumerate(bands) if band["from"] <= len(prices))
        band = bands[number]
        increment = band.get("increment") or row.get("increment", 1)
        length = increment
        if number not in begun:
            while length < band.get("minimum", 0):
                length += increment
        begun.add(number)
        per = band.get("per") or row.get("per", 1)
        prices += [(band["price"], per)] * length
    units = [price for price in prices for _ in range(times)][taken:]
    if not units:
        return len(prices) * times, Fraction(0), 0
    cost = Fraction(at_start.get("connect_fee", "0")) * 1_000_000
    for (price, per), count in Counter(units).items():
        cost += count * Fraction(price) * 1_000_000 / per
    if at_start.get("percent"):
        cost += Fraction(usage["attributes"]["value"]) * 1_000_000 * Fraction(at_start["percent"]) / 100
    if at_start.get("minimum_charge"):
        cost = max(cost, Fraction(at_start["minimum_charge"]) * 1_000_000)
    if at_start.get("maximum_charge"):
        cost = min(cost, Fraction(at_start["maximum_charge"]) * 1_000_000)
    return len(prices) * times, cost, rounded(tariff, cost)


def rounded(tariff: dict, cost: Fraction) -> int:
    rounding = tariff.get("rounding", {})
    step = 10 ** (6 - rounding.get("decimals", 4))
    steps = cost / step
    whole = steps.numerator // steps.denominator
    rest = steps - whole
    match rounding.get("method", "half_up"):
        case "up":
            whole += rest > 0
        case "half_up":
            whole += rest >= Fraction(1, 2)
        case "half_even":
            whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2)
    return whole * step


def rows_for(tariff: dict, usage: dict) -> list[dict] | None:
    """The rates of one prefix, for all times."""
    fitting = [
        rate
        for rate in tariff["rates"]
        if rate["usage_type"] == usage["usage_type"] and rate.get("direction", "") in ("", usage["direction"])
    ]
    from_zone = origin_of(tariff, usage, {rate["origin"] for rate in fitting if rate.get("origin")})
    for origin in (from_zone, "") if from_zone else ("",):
        found = [
            (len(prefix), bool(rate.get("direction")), rate)
            for rate in fitting
            if rate.get("origin", "") == origin
            for prefix in prefixes_of(tariff, rate)
            if usage["counterpart"].startswith(prefix)
        ]
        if found:
            best = max((length, directed) for length, directed, _ in found)
            return [rate for length, directed, rate in found if (length, directed) == best]
    return None


def prefixes_of(tariff: dict, rate: dict) -> list[str]:
    for zone in tariff.get("zones", []):
        if zone["name"] == rate["zone"] and zone.get("prefixes") and not rate.get("prefix"):
            return zone["prefixes"]
    return [rate.get("prefix", "")]


def origin_of(tariff: dict, usage: dict, names: set[str]) -> str:
    zones = [zone for zone in tariff.get("zones", []) if zone["name"] in names]
    network = usage["attributes"].get("network", "").replace("-", "")
    for part in (network, network[:3]):
        for zone in zones:
            if part and part in [one.replace("-", "") for one in zone.get("networks", [])]:
                return zone["name"]
    for length in range(len(usage["line"]), 0, -1):
        for zone in zones:
            if usage["line"][:length] in zone.get("prefixes", []):
                return zone["name"]
    return ""


def row_at(tariff: dict, rows: list[dict], moment: int) -> dict:
    local = datetime.fromtimestamp(moment // 1_000_000, ZoneInfo(tariff["time_zone"]))
    for window in tariff.get("windows", []):
        for row in rows:
            if row.get("window") == window["name"] and is_in(tariff, window, local):
                return row
    return next(row for row in rows if not row.get("window"))


def is_in(tariff: dict, window: dict, local: datetime) -> bool:
    clock = f"{local.hour:02d}:{local.minute:02d}"
    for span in window["spans"]:
        begins, ends = span.get("from", "00:00"), span.get("to", "24:00")
        if begins < ends:
            if begins <= clock < ends and is_day(tariff, span, local):
                return True
        elif (clock >= begins and is_day(tariff, span, local)) or (
            clock < ends and is_day(tariff, span, local - timedelta(days=1))
        ):
            return True
    return False


def is_day(tariff: dict, span: dict, local: datetime) -> bool:
    text = local.date().isoformat()
    holiday = text in tariff.get("holidays", []) or text[5:] in tariff.get("holidays", [])
    return not span.get("days") or ("holiday" if holiday else WEEKDAYS[local.weekday()]) in span["days"]
