"""Declarations: what a format file may say, key by key.

The types are the reference; `docs/formats.md` explains them to carriers. Unknown keys are refused.
Whether what is declared can also be done, `soundness.py` finds out.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

from msgspec import Struct, field

CLOCK = "hh:mm:ss"
UNITS: dict[str, tuple[str, int, int]] = {
    "us": ("second", 1, 1_000_000),
    "ms": ("second", 1, 1_000),
    "s": ("second", 1, 1),
    "min": ("second", 60, 1),
    "h": ("second", 3_600, 1),
    CLOCK: ("second", 1, 1),
    "bit": ("byte", 1, 8),
    "byte": ("byte", 1, 1),
    "kB": ("byte", 1_000, 1),
    "MB": ("byte", 1_000_000, 1),
    "GB": ("byte", 1_000_000_000, 1),
    "KiB": ("byte", 1 << 10, 1),
    "MiB": ("byte", 1 << 20, 1),
    "GiB": ("byte", 1 << 30, 1),
    "message": ("message", 1, 1),
}
"""Unit of a column -> (unit of the usage type, times, divided by)."""

DIRECTIONS = ("outbound", "inbound")
TIME_FORMATS = ("iso8601", "rfc2822", "epoch_s", "epoch_ms", "epoch_us", "gregorian_s")


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a text comes from. Exactly one of `at` and `constant` is given."""

    at: str | list[str] | None = None
    """A column or JSON path; several are joined, leaving out those that are empty."""
    join: str = " "
    pattern: str = ""
    """A regular expression with one group: the text is what the group matched, or nothing."""
    table: dict[str, str] | None = None
    """What a text stands for; a text that is not listed makes the record unreadable."""
    smallest: bool = False
    """Of several columns take the smallest text instead of joining: an id that both legs agree on."""
    digest: bool = False
    """Take a digest instead of the text: an id made of several columns says nothing personal."""
    address: Literal["", "ipv4", "ipv4_low_byte_first"] = ""
    """The text is an address written as one integer, signed or not; 0 is no address."""
    constant: str | None = None


Places = str | Place | list[str | Place]
"""One place, or several of which the first that holds something counts."""


class Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the fields of a usage record come from."""

    id: Places
    usage_type: Places
    line: Places | None = None
    counterpart: Places | None = None
    caller: Places | None = None
    """With `called`, instead of `line` and `counterpart`: the direction says which is the line."""
    called: Places | None = None
    direction: Places = field(default_factory=lambda: Place(constant="outbound"))
    source: Places | None = None


class Derived(Struct, frozen=True, forbid_unknown_fields=True):
    """A time that is written as another time and a length, such as an end and a duration."""

    start: str = field(name="from")
    """A name out of `times.at`. Where it holds no time, there is none."""
    plus: list[str] = []
    minus: list[str] = []
    """Columns with lengths of time; an empty one is none."""
    unit: str = "s"


class Times(Struct, frozen=True, forbid_unknown_fields=True):
    """The times of a record: each has a name, and is read once."""

    at: dict[str, Places]
    started_at: list[str]
    """Names out of `at`; the first that holds a time counts."""
    format: str
    """One of `TIME_FORMATS`, or a strptime pattern."""
    zone: str = "stated"
    """For texts without an offset: "utc", "tenant", a zone's name; "stated" refuses them."""
    none: list[str] = field(default_factory=lambda: ["0", "0000-00-00 00:00:00"])
    """Texts that mean that there is no time, besides the empty one."""
    derived: dict[str, Derived] = {}
    """Further times, by name."""


class Term(Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a sum, of which each one counts several times: 2**32 for gigawords."""

    at: str
    times: int = 1


class Quantity(Struct, frozen=True, forbid_unknown_fields=True):
    """How much. Exactly one of `at`, `sum`, and `from` with `to`; with legs `from` and `to`, and
    `at` where it counts for a call of one leg."""

    at: Places | None = None
    times: int = 1
    """What one in the column `at` counts for, in its unit: 100 with "ms" for tenths of a second."""
    sum: list[str | Term] | None = None
    start: str | None = field(default=None, name="from")
    """Names of times: the quantity is the span between them."""
    end: str | None = field(default=None, name="to")
    unit: str | dict[str, str] | None = None
    """Of the column, or by usage type. Left out: the usage type's own."""
    round: Literal["up", "down", "half_up", "refuse"] = "refuse"
    """What happens to a part of a unit."""


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """A stated duration that must agree with the span between two times."""

    duration: str
    must: Literal["equal", "at_most"]
    start: str = field(name="from")
    end: str = field(name="to")
    unit: str = "s"
    tolerance_seconds: int = 0


class Legs(Struct, frozen=True, forbid_unknown_fields=True):
    """Several rows are one call: those with the same `fields.id`."""

    leg: list[str]
    """Columns that tell the legs of one call apart."""
    first: str
    """Name of the time that orders the legs."""
    order: str = ""
    """Column with a number that orders legs of the same time."""
    apart: list[str] = []
    """Columns that keep calls of the same id apart, where a file has them."""
    window_rows: int = 200_000
    """A call is complete when this many rows came after its last leg."""


class Pairs(Struct, frozen=True, forbid_unknown_fields=True):
    """Two rows are one record: one that begins it and one that ends it.

    The columns of the row that ends it are read as `end.COLUMN`. A row that is neither is read by itself.
    """

    begins: dict[str, list[str]]
    """Column -> texts: a row with one of each begins a record."""
    ends: dict[str, list[str]]
    same: list[str]
    """Columns in which both rows agree."""
    crossed: list[str] = []
    """Two more columns, in which they agree in this order or the other: who hangs up swaps the tags."""
    window_rows: int = 200_000
    """A row waits for its other half until this many rows came after it."""


class Numbers(Struct, frozen=True, forbid_unknown_fields=True):
    """How numbers are brought into international form."""

    region: str = ""
    """Country in which a number without "+" was dialled, "GB"; empty leaves such numbers as dialled."""
    extension_digits_max: int = 6
    """Numbers of up to so many digits are extensions or short codes, and are left alone."""
    masked: str = ""
    """Characters that stand for digits which are kept secret, "*x"."""


class Csv(Struct, frozen=True, forbid_unknown_fields=True):
    """How a text file is cut into rows and cells."""

    header: Literal["yes", "no", "detect"] = "yes"
    columns: list[str] = []
    """The columns in their order, where there is no header."""
    optional: list[list[str]] = []
    """Groups of columns that a file may lack, each as a whole."""
    header_only: list[str] = []
    """Columns that only a file with a header may have."""
    separator: str = ","
    quote: str = '"'
    escape: str = ""
    """Stands before a quote inside quotes; left out, such a quote is doubled."""
    encoding: str = "utf-8"
    skip_lines: int = 0
    """Lines before the header or the first row."""
    type_row: list[str] = []
    """Words such as INTEGER: a row after the header of which every cell begins with one is no record."""


class Json(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the records of a JSON document stand, and what they may hold."""

    list: str = ""
    """Path to the list of records; empty: the document is the list."""
    closed: bool = False
    """A record with a key that the format does not name is unreadable."""
    single: bool = False
    """An object stands for a list of one: elements that write a file for each call."""


class Blocks(Struct, frozen=True, forbid_unknown_fields=True):
    """How a text file is cut into records of several lines, with blank lines between them."""

    separator: str = "="
    """Between the name and the text of a line."""
    quote: str = '"'
    title: str = "Title"
    """The name given to the first line of a record, which has none."""
    encoding: str = "utf-8"


class Format(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole declaration."""

    kind: Literal["csv", "json", "ndjson", "blocks"]
    fields: Fields
    times: Times
    quantity: Quantity
    name: str = ""
    """Left out: the file's own name."""
    description: str = ""
    source: str = ""
    """Whose records these are, where neither the record nor the caller says."""
    csv: Csv = Csv()
    json: Json = Json()
    blocks: Blocks = Blocks()
    numbers: Numbers = Numbers()
    attributes: dict[str, Places] = {}
    attributes_at: str = ""
    """Path to an object of which every entry becomes an attribute."""
    ignore: dict[str, list[str]] = {}
    """Column -> texts: rows that are no usage, such as a line of totals."""
    ignore_filled: list[str] = []
    """Columns that mark a row as no usage by holding anything."""
    checks: list[Check] = []
    legs: Legs | None = None
    pairs: Pairs | None = None


END = "end."
"""Before the name of a column: that of the row which ends a pair."""


def time_names(times: Times) -> list[str]:
    """The times of a record, in the order in which they are read."""
    return [*times.at, *times.derived]


def terms_of(quantity: Quantity) -> list[Term]:
    """Every form of `sum`, spelt out."""
    return [Term(term) if isinstance(term, str) else term for term in quantity.sum or []]


def layouts(csv: Csv) -> dict[int, list[str]]:
    """Number of cells -> columns, for rows without a header: every choice of optional groups."""
    found: dict[int, list[str]] = {}
    for size in range(len(csv.optional) + 1):
        for groups in combinations(csv.optional, size):
            missing = {column for group in groups for column in group}
            columns = [column for column in csv.columns if column not in missing]
            found.setdefault(len(columns), columns)
    return found


def places_of(places: Places) -> list[Place]:
    """Every form of `Places`, spelt out."""
    listed = places if isinstance(places, list) else [places]
    return [Place(at=place) if isinstance(place, str) else place for place in listed]


def columns_of(place: Place) -> list[str]:
    """The columns that a place reads."""
    if place.at is None:
        return []
    return [place.at] if isinstance(place.at, str) else place.at


def referenced(format: Format) -> dict[str, str]:
    """Every column that the format reads -> the key that asks for it."""
    prefix = END if format.pairs else ""
    return {column.removeprefix(prefix): where for where, column in reversed(list(_references(format)))}


def all_places(format: Format) -> Iterator[tuple[str, Places]]:
    """Every place that the format names, with its key."""
    for name in format.fields.__struct_fields__:
        if (places := getattr(format.fields, name)) is not None:
            yield f"fields.{name}", places
    for name, places in format.times.at.items():
        yield f"times.at.{name}", places
    if format.quantity.at is not None:
        yield "quantity.at", format.quantity.at
    for name, places in format.attributes.items():
        yield f"attributes.{name}", places


def _references(format: Format) -> Iterator[tuple[str, str]]:
    for where, places in all_places(format):
        for place in places_of(places):
            yield from ((where, column) for column in columns_of(place))
    yield from (("quantity.sum", term.at) for term in terms_of(format.quantity))
    for name, derived in format.times.derived.items():
        yield from ((f"times.derived.{name}", column) for column in [*derived.plus, *derived.minus])
    yield from (("checks.duration", check.duration) for check in format.checks)
    yield from (("ignore", column) for column in format.ignore)
    yield from (("ignore_filled", column) for column in format.ignore_filled)
    if format.pairs:
        yield from (("pairs.begins", column) for column in format.pairs.begins)
        yield from (("pairs.ends", column) for column in format.pairs.ends)
        yield from (("pairs.same", column) for column in format.pairs.same)
        yield from (("pairs.crossed", column) for column in format.pairs.crossed)
    if format.attributes_at:
        yield "attributes_at", format.attributes_at
    if format.legs:
        yield from (("legs.leg", column) for column in format.legs.leg)
        yield from (("legs.apart", column) for column in format.legs.apart)
        if format.legs.order:
            yield "legs.order", format.legs.order
