"""Tariff files and usage by chance: small, and strange enough to find what is wrong."""

from datetime import datetime
from random import Random
from zoneinfo import ZoneInfo

from domain.rating.oracle import WEEKDAYS, prefixes_of

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]
DAYS = [
    *("2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05"),
    *("2026-10-03", "2026-10-04", "2028-02-28", "2028-02-29", "2026-12-24", "2026-12-25", "2026-12-31"),
    *("2026-11-16", "2026-11-20", "2026-11-21", "2026-11-22", "2026-02-15", "2026-03-22"),
]
PREFIXES = ["+1", "+12", "+123", "+13", "+2", "+21", "+3", "1", "12"]
HOLIDAYS = ["12-25", "2026-12-24", "02-29", "2026-10-25", "2026-11-20"]
QUANTITIES = [0, 1, 5, 6, 7, 29, 30, 31, 59, 60, 61, 62, 90, 120, 121, 180, 333, 600, 601]
NETWORKS = ["208", "208-01", "20810", "310-410", "222"]


def tariff_by_chance(chance: Random) -> dict:
    zones = _zones(chance)
    windows = [_window(chance, name) for name in ("peak", "night", "feast")[: chance.randint(0, 3)]]
    rates: list[dict] = []
    seen = set()
    for _ in range(chance.randint(1, 6)):
        rate = _rate(chance, zones)
        origin = chance.choice(zones)["name"] if zones and chance.random() < 0.3 else ""
        key = (rate["usage_type"], rate["direction"], origin, rate["prefix"] or rate["zone"])
        if key in seen:
            continue
        seen.add(key)
        rates += _timed(chance, {**rate, "origin": origin}, windows)
    return {
        "id": "by chance",
        "valid_from": "2020-01-01",
        "currency": "EUR",
        "time_zone": chance.choice(ZONES),
        "rounding": {
            "method": chance.choice(["half_up", "half_even", "up", "down"]),
            "decimals": chance.randint(0, 6),
        },
        "zones": zones,
        "windows": windows,
        "holidays": chance.sample(
            ["12-25", "2026-12-24", "02-29", "2026-10-25", "2026-11-20"], chance.randint(0, 3)
        ),
        "rates": rates,
    }


def usage_by_chance(chance: Random, tariff: dict) -> dict:
    meant = chance.choice(tariff["rates"])
    number = chance.choice(prefixes_of(tariff, meant)) if chance.random() < 0.9 else chance.choice(PREFIXES)
    day = datetime.fromisoformat(chance.choice(DAYS)).replace(tzinfo=ZoneInfo(tariff["time_zone"]))
    start = int(day.timestamp()) * 1_000_000 + chance.randrange(86_400_000_000)
    if chance.random() < 0.5:
        start = start // 900_000_000 * 900_000_000 + chance.choice([-1_000_000, -1, 0, 1, 59_000_000])
    return {
        "usage_type": meant["usage_type"] if chance.random() < 0.95 else "messaging",
        "direction": meant["direction"] or chance.choice(["outbound", "inbound"]),
        "line": chance.choice([*PREFIXES, ""]) + "55",
        "counterpart": number + chance.choice(["", "3", "77"]),
        "quantity": chance.choice(QUANTITIES) if chance.random() < 0.97 else chance.randint(0, 7_500),
        "started_at": start,
        "attributes": {
            "network": chance.choice(["", "20801", "208-10", "310410", "222-99", "999-99", "far"]),
            "participants": str(chance.randint(1, 5)),
            "value": chance.choice(["0", "12.5", "0.000001", "999999.99"]),
        },
    }


def _zones(chance: Random) -> list[dict]:
    prefixes, networks = chance.sample(PREFIXES, len(PREFIXES)), chance.sample(NETWORKS, len(NETWORKS))
    return [
        {
            "name": name,
            "prefixes": [prefixes.pop() for _ in range(chance.randint(1, 2))],
            "networks": [networks.pop() for _ in range(chance.randint(0, 1))],
        }
        for name in ("eu", "us", "islands")[: chance.randint(0, 3)]
    ]


def _window(chance: Random, name: str) -> dict:
    spans = []
    for _ in range(chance.randint(1, 2)):
        span: dict = {}
        if chance.random() < 0.7:
            span["days"] = chance.sample([*WEEKDAYS, "holiday"], chance.randint(1, 8))
        if chance.random() < 0.8:
            clocks = ["01:30", "02:00", "02:15", "02:30", "03:00", "08:00", "18:00", "23:59", "00:01"]
            span["from"], span["to"] = chance.sample(clocks, 2)
        spans.append(span)
    return {"name": name, "spans": spans}


def _price(chance: Random) -> str:
    return chance.choice(["0", "1", "0.05", "0.0123", "0.333333333333", str(chance.randint(0, 99))])


def _rate(chance: Random, zones: list[dict]) -> dict:
    in_zone = bool(zones) and chance.random() < 0.4
    rate = {
        "usage_type": chance.choice(["voice", "video", "data"]),
        "zone": chance.choice(zones)["name"] if in_zone else "any",
        "prefix": "" if in_zone else chance.choice(["", *PREFIXES]),
        "direction": chance.choice(["", "outbound", "inbound"]),
        **_measured(chance),
        "included": chance.random() < 0.5,
    }
    if chance.random() < 0.5:
        starts = sorted(chance.sample([1, 30, 60, 61, 120, 600, 3_600], chance.randint(1, 3)))
        rate["bands"] = [{"from": start, **_measured(chance)} for start in starts]
    if chance.random() < 0.3:
        rate["connect_fee"] = _price(chance)
    if chance.random() < 0.2:
        rate["minimum_charge"] = chance.choice(["0.1", "5"])
    if chance.random() < 0.2:
        rate["maximum_charge"] = chance.choice(["5", "20", "1000"])
    if chance.random() < 0.2:
        rate["times"] = chance.choice(["participants", "segments"])
    if chance.random() < 0.2:
        rate["percent"] = chance.choice(["0", "2.5", "12.3456", "100"])
    return rate


def _measured(chance: Random) -> dict:
    return {
        "price": _price(chance),
        "per": chance.choice([1, 3, 60, 1000]),
        "increment": chance.choice([1, 1, 6, 30, 60]),
        "minimum": chance.choice([0, 0, 1, 30, 31, 61]),
    }


def _timed(chance: Random, rate: dict, windows: list[dict]) -> list[dict]:
    """The rate, and the same at other prices in some windows."""
    chosen = [window["name"] for window in windows if chance.random() < 0.6]
    split = rate["usage_type"] != "data" and chance.random() < 0.6
    rows = [{**rate, "across": "split" if split else "start"}]
    for name in chosen:
        row = {**rows[0], "window": name, "price": _price(chance), "per": chance.choice([1, 60])}
        if "bands" in row:
            row["bands"] = [{**band, "price": _price(chance)} for band in row["bands"]]
        if not split and chance.random() < 0.5:
            row |= {"increment": 7, "minimum": 0}
            row.pop("bands", None)
        rows.append(row)
    chance.shuffle(rows)
    return rows
