"""What is counted natively from stored bytes is what the tally counts of the same charges, one by one."""

from array import array
from collections import Counter
from sys import byteorder
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projections.test_tally import DAY, NOVEMBER, charges

from allotment.backend import tallied
from allotment.backend.copying import SINCE_2000
from allotment.backend.native import using
from allotment.backend.reading_log import decode_charges
from allotment.domain.charging import CORPORATE, UsageCharged
from allotment.domain.events import SCHEMA, Envelope
from allotment.projections import used
from allotment.projections.blocks import MEMBERS
from allotment.projections.chunk import ROOT, Charges, Ordinals
from allotment.projections.daily import CONSUMPTION
from allotment.projections.line_kinds import number_of
from allotment.projections.tally import tally
from allotment.projections.usages import BLOCK_BITS, copied
from allotment.projections.used import USED

ZONE = ZoneInfo("Europe/Berlin")
encode = msgspec.msgpack.Encoder().encode

needed = pytest.mark.skipif(using.reader() is None, reason=f"charges with {using.told()}")


def stored(given_charges, schema=SCHEMA):
    """As they stand in the log, and as the views are told of them."""
    keys = [number.to_bytes(16, "big") for number in range(len(given_charges))]
    times = [NOVEMBER + number for number in range(len(given_charges))]
    seqs = list(range(4_090, 4_090 + len(given_charges)))
    sent = array("q", [time - SINCE_2000 for time in times])
    if byteorder == "little":
        sent.byteswap()
    states = b"".join(encode(Envelope(schema, "someone", b"digest", charge)) for charge in given_charges)
    told = tallied.Stored(states, array("q", seqs).tobytes(), b"".join(keys), sent.tobytes())
    return told, Charges(seqs, keys, times, given_charges)


def decoded(states):
    return [envelope.event for envelope in decode_charges(len(states), b"".join(states))]


def rows_of(packed):
    """Packed columns read again: by key, what is not nothing."""
    columns = {name: values(column) for name, column in packed.columns.items()}
    assert {len(column) for column in columns.values()} == {packed.size}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def values(column):
    kind, size = int.from_bytes(column[8:12], "big"), int.from_bytes(column[12:16], "big")
    at, found = 20, []
    for _ in range(size):
        width = int.from_bytes(column[at : at + 4], "big")
        raw = column[at + 4 : at + 4 + width]
        found.append(raw.decode() if kind == 25 else int.from_bytes(raw, "big", signed=True))
        at += 4 + width
    assert at == len(column)
    return found


@needed
@settings(max_examples=150, deadline=None, database=None)
@given(given_charges=st.lists(charges(), max_size=25))
def test_what_is_counted_and_the_tally_of_the_rest_are_the_tally_of_all(given_charges):
    assert_counted_alike(given_charges)


def assert_counted_alike(given_charges):
    told, as_told = stored(given_charges)
    whole = tally(given_charges, ZONE)
    counted, rows = tallied.counted(told, ZONE, decoded)
    rest = tally(counted.rest, ZONE)
    assert rows == copied(as_told)
    assert used_of(whole) == summed(used_of(rest), spread(USED, counted.used))
    paid = keyed(counted.consumed, ("period", "usage_type", "ordinal"))
    assert consumed_of(whole) == summed(consumed_of(rest), paid)
    if not counted.rest:
        assert by_group(USED, counted.used) == by_group(USED, used.added(whole.used))
    figures = ("records", "quantity", "billed", "overage", "amount", "credit")
    lines = summed(named(by_kind(rest), figures), keyed(counted.lines, ("kind", "node")))
    assert named(by_kind(whole), figures) == lines
    assert counted.kinds == {number_of(kind): kind for kind in counted.kinds.values()}
    assert {kind for kind, _ in lines} <= {*counted.kinds, *(kind for kind, _ in by_kind(rest))}
    assert days_of(whole) == summed(days_of(rest), spread(CONSUMPTION, counted.days))
    blocks = Counter(
        (one.period, seq >> BLOCK_BITS) for seq, one in zip(as_told.seqs, given_charges, strict=True)
    )
    assert keyed(counted.blocks, ("period", "block")) == {
        key: {"usages": much} for key, much in blocks.items()
    }
    names = ("records", "amount")
    assert named(whole.sources, names) == summed(named(rest.sources, names), named(counted.sources, names))
    plain = [one for one in given_charges if one.payer == CORPORATE and not one.credit]
    assert len(counted.rest) == len(given_charges) - len(plain)
    assert not plain or counted.since == min(one.started_at for one in plain)


@needed
@settings(max_examples=150, deadline=None, database=None)
@given(
    given_charges=st.lists(charges(), max_size=6),
    parents=st.fixed_dictionaries({7: st.sampled_from([3, 5]), 3: st.sampled_from([1, 2])}),
    members=st.sampled_from([8, 12]),
)
def test_charges_are_held_against_the_hierarchy_as_their_paths_would_be(given_charges, parents, members):
    standing = hierarchy(parents, members)
    told, _ = stored(given_charges)
    counted, _ = tallied.counted(told, ZONE, decoded, standing.ways())
    drawn = [one for one in given_charges if one.payer == CORPORATE and not one.credit and one.drawn]
    stand = all(one.path[0] < members and standing.stands(one.path) for one in drawn)
    assert counted.stood is (standing.shape if stand else None)


@needed
def test_nothing_is_known_of_ways_where_no_hierarchy_was_given():
    counted, _ = tallied.counted(stored([])[0], ZONE, decoded)
    assert counted.stood is None


def hierarchy(parents, members):
    """The one of `PATHS`, but for who stands below another."""
    standing, usual = Ordinals(), {1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2, 7: 3, 8: 3, 9: 4, 10: 5, 11: 0}
    for ordinal in range(members):
        parent = parents.get(ordinal, usual.get(ordinal, ROOT))
        standing.enter(str(ordinal), ordinal, parent, is_node=ordinal < 7)
    return standing


def by_kind(told):
    """Lines of a tally as the table has them: what allowances paid is the rest of what was billed."""
    return {
        (number_of((period, *kind)), node): (*figures[:3], *figures[4:])
        for (period, node, *kind), figures in told.lines.items()
    }


def used_of(told):
    return {
        (*of, ordinal): shown({name: getattr(one, name).get(ordinal, 0) for name in used.COUNTS})
        for of, one in told.used.items()
        for ordinal in one.used
    }


def consumed_of(told):
    return {
        (*of, ordinal): {"consumed": part}
        for of, one in told.used.items()
        for ordinal, part in one.consumed.items()
    }


def days_of(told):
    rows = named(told.days, ("used", "overage", "amount", "records", "drawn"))
    return {(period, kind, day, ordinal): row for (period, ordinal, kind, day), row in rows.items()}


def by_group(table, added):
    """The bytes of each."""
    found, at = {}, 0
    for group, blocks in added.groups:
        size = table.size * len(blocks)
        found[group] = list(blocks), added.figures[at : at + size]
        at += size
    return found


def spread(table, added):
    """What blocks say, member by member, where it is not nothing."""
    found, at = {}, 0
    for group, blocks in added.groups:
        assert list(blocks) == sorted(set(blocks)), "each once, in the order of the index"
        for block in blocks:
            figures = added.figures[at : at + table.size]
            at += table.size
            for ordinal in range(block * MEMBERS, (block + 1) * MEMBERS):
                row = shown(dict(zip(table.counts, table.of(ordinal, figures), strict=True)))
                if row:
                    found[(*group, ordinal)] = row
    assert at == len(added.figures)
    return found


def named(sums, figures):
    rows = {key: dict(zip(figures, row, strict=True)) for key, row in sums.items()}
    return {key: there for key, row in rows.items() if (there := shown(row))}


def keyed(packed, key):
    rows = rows_of(packed)
    keys = [tuple(row[name] for name in key) for row in rows]
    assert keys == sorted(set(keys)), "each once, in the order of the index"
    told = {
        of: shown({name: much for name, much in row.items() if name not in key})
        for of, row in zip(keys, rows, strict=True)
    }
    return {of: row for of, row in told.items() if row}


def shown(row):
    return {name: much for name, much in row.items() if much}


def summed(one, other):
    sums = {key: dict(row) for key, row in one.items()}
    for key, row in other.items():
        held = sums.setdefault(key, {})
        for name, much in row.items():
            held[name] = held.get(name, 0) + much
    return {key: there for key, row in sums.items() if (there := shown(row))}


def charge(**changed):
    plain = UsageCharged(
        *("pbx", "a record", (7, 3, 1, 0), "voice", "2026-11", NOVEMBER + DAY, "outbound", 60, 60, 1, 0),
        *("+44", "national", CORPORATE, "default", ((0, 60),), 0, 0, (0, 1), b"sealed"),
    )
    return msgspec.structs.replace(plain, **changed)


@needed
@pytest.mark.parametrize(
    ("what", "given_charges", "schema"),
    [
        ("another version wrote them", [charge()], SCHEMA + 1),
        ("a node of its own", [charge(path=(7,))], SCHEMA),
        ("an ordinal that no table holds", [charge(path=(7, 2**31, 0))], SCHEMA),
        ("more than a column holds", [charge(quantity=2**63)], SCHEMA),
        ("sums that no column holds", [charge(billed=2**62), charge(billed=2**62)], SCHEMA),
        ("parts that no bucket paid", [charge(drawn=((0, -5),))], SCHEMA),
        ("vast parts", [charge(path=(7, *[3] * 300), drawn=((3, 2**54),) * 128)], SCHEMA),
    ],
)
def test_what_is_not_of_the_form_it_knows_is_left_to_python(what, given_charges, schema):
    told, _ = stored(given_charges, schema)
    assert tallied.counted(told, ZONE, decoded) is None


@needed
def test_what_buckets_paid_is_counted_at_each_place_of_a_path():
    assert_counted_alike([charge(path=(7, 3, 3, 0), drawn=((3, 40), (9, 20)))])


@needed
def test_bytes_that_end_too_soon_or_go_on_too_long_are_left():
    told, _ = stored([charge(), charge(amount=5)])
    for size in range(len(told.states)):
        assert tallied.counted(told._replace(states=told.states[:size]), ZONE, decoded) is None
    assert tallied.counted(told._replace(states=told.states + b"\xc0"), ZONE, decoded) is None
    assert tallied.counted(told, ZONE, decoded) is not None
    with using.python_only():
        assert tallied.counted(told, ZONE, decoded) is None


@needed
def test_a_charge_of_before_a_field_was_added_is_counted():
    told, _ = stored([charge()])
    fields = list(msgspec.msgpack.decode(told.states))
    fields[3] = fields[3][:20]
    before = told._replace(states=encode(fields))
    assert tallied.counted(before, ZONE, decoded) == tallied.counted(told, ZONE, decoded)
