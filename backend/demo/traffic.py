"""The demonstration's usage: calls, megabytes and messages as a network would report them.

The same seed and the same dates give the same records, byte for byte. They are lines of NDJSON
in our own format, because they go through the same door as a carrier's.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .enterprises import LENDER, POOL, Enterprise

SOURCE = "meridian-core"
SEED = 2026
MB = 10**6

_CALLED = (
    *("+442079460", "+447700900", "+493023125", "+130555501", "+33199000", "+815012345"),
    "+881623456",
)
_CALLED_WEIGHTS = (30, 30, 14, 14, 6, 4, 2)
_HOURS = (*range(7, 20), *range(8, 18), 21, 23)


def history(enterprise: Enterprise, since: datetime, until: datetime, seed: int = SEED) -> bytes:
    """Every record of a time, in the order of its start; with a few that a real network would send.

    Among them: records sent twice, lines nobody has, and a line that cannot be read.
    """
    chance = random.Random(f"{seed}:{enterprise.slug}")  # noqa: S311  (repeatable on purpose)
    starts = sorted(_moment(chance, since, until) for _ in range(enterprise.records))
    # What the story counts on is left alone in the month that is running.
    quiet = {line for line in enterprise.tablets if _crew(line) in (POOL, LENDER)}
    month = until.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    lines = []
    for number, start in enumerate(starts, 1):
        spared = quiet if start >= month else set()
        told = record(enterprise, chance, f"h-{number:05d}", start, spared)
        if number % 400 == 0:
            told["line"] = f"+4477009009{number // 400:02d}"
        lines.append(encoded(told))
        if number % 300 == 0:
            lines.append(encoded(told))
    lines.append(b'{"source": "%s", "id": "torn", "line": "+447700900' % SOURCE.encode())
    return b"\n".join(lines) + b"\n"


def record(
    enterprise: Enterprise,
    chance: random.Random,
    ident: str,
    start: datetime,
    spared: Sequence[str] | set[str] = (),
) -> dict[str, Any]:
    """One use by one device, of a kind that such a device makes."""
    kind = chance.choices(("desk", "mobile", "tablet"), (34 if enterprise.desks else 0, 44, 22))[0]
    if kind == "desk":
        return _call(chance, ident, chance.choice(enterprise.desks), start)
    if kind == "mobile":
        line = chance.choice(enterprise.mobiles)
        make = chance.choices((_call, _data, _message), (40, 40, 20))[0]
        return make(chance, ident, line, start)
    line = chance.choice([line for line in enterprise.tablets if line not in spared] or enterprise.mobiles)
    return (_video if chance.random() < 0.15 else _data)(chance, ident, line, start)


def use(
    ident: str, line: str, usage_type: str, quantity: int, start: datetime, **more: Any
) -> dict[str, Any]:
    """A record, in our own format."""
    stamp = start.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    about = {"source": SOURCE, "id": ident, "line": line, "type": usage_type}
    return {**about, "quantity": quantity, "start": stamp, **more}


def encoded(told: dict[str, Any]) -> bytes:
    return msgspec.json.encode(told)


def stream_of(records: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(encoded(told) + b"\n" for told in records)


def _call(chance: random.Random, ident: str, line: str, start: datetime) -> dict[str, Any]:
    answered = chance.random() < 0.86
    seconds = int(chance.lognormvariate(4.6, 0.9)) + 1 if answered else 0
    if chance.random() < 0.25:
        return use(ident, line, "voice", seconds, start, direction="inbound", counterpart="+442079460999")
    if len(line) == 3 and chance.random() < 0.4:
        return use(ident, line, "voice", seconds, start, counterpart=str(chance.randrange(100, 200)))
    called = chance.choices(_CALLED, _CALLED_WEIGHTS)[0]
    return use(ident, line, "voice", seconds, start, counterpart=f"{called}{chance.randrange(100, 1000)}")


def _data(chance: random.Random, ident: str, line: str, start: datetime) -> dict[str, Any]:
    quantity = int(chance.lognormvariate(5.5, 1.0) * MB)
    return use(
        ident, line, "data", quantity, start, attributes={"network": chance.choice(("4g", "5g", "5g"))}
    )


def _message(chance: random.Random, ident: str, line: str, start: datetime) -> dict[str, Any]:
    return use(
        ident,
        line,
        "messaging",
        chance.randrange(1, 4),
        start,
        counterpart=f"+44770090{chance.randrange(1000, 2000)}",
    )


def _video(chance: random.Random, ident: str, line: str, start: datetime) -> dict[str, Any]:
    return use(ident, line, "video", chance.randrange(60, 1_500), start)


def _moment(chance: random.Random, since: datetime, until: datetime) -> datetime:
    """Mostly within working hours."""
    while True:
        day = since + timedelta(days=chance.randrange((until - since).days + 1))
        if day.weekday() < 5 or chance.random() < 0.25:
            break
    moment = day.replace(hour=chance.choice(_HOURS), minute=chance.randrange(60), second=chance.randrange(60))
    return min(moment, until - timedelta(minutes=1))


def _crew(line: str) -> str:
    """The crew of a tablet's line: +447700900812 is the third tablet of crew 1."""
    return f"crew-{line[-2]}" if line.startswith("+4477009008") else ""


def tablets_of(crew: str, enterprise: Enterprise) -> list[str]:
    return [line for line in enterprise.tablets if _crew(line) == crew]
