"""What was once stored can be read for ever, means what it meant, and hashes to what it did."""

from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from allotment.backend.log import Group, MemoryLog, replay
from allotment.domain import proof
from allotment.domain.canonical import lines
from allotment.domain.events import TOPICS, decode, encode
from allotment.domain.tenant import Tenant

HERE = Path(__file__).parent
EVENTS = sorted((HERE / "events").glob("*/v*.json"))
LOGS = sorted((HERE / "logs").glob("*.json"))
LINES = (HERE / "CHECKSUMS").read_text(encoding="utf-8").splitlines()

FIRST_LINES = 16
FIRST_LINES_DIGEST = "086d897c3c09ce4ff4062db4e1d8d40fc0205d5bd1dcf670b1be7ca682773944"
"""Of what was laid down first: it shows a line that is taken away together with its file."""


def read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def newest(topic: str) -> Path:
    return max((HERE / "events" / topic).glob("v*.json"), key=lambda path: int(path.stem[1:]))


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, msgspec.Struct):
        return {name: plain(told) for name, told in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple | list):
        return [plain(told) for told in value]
    return value


def covers(now: Any, then: Any) -> bool:
    """Whether all that was told then is told now; fields may have been appended since."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and covers(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return len(now) == len(then) and all(map(covers, now, then))
    return type(now) is type(then) and now == then


# --- the files ------------------------------------------------------------------------------


def test_no_golden_file_was_changed_or_removed():
    changed = []
    for line in LINES:
        digest, name = line.split("  ")
        path = HERE / name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
            changed.append(name)
    assert not changed, "golden files are for ever: add a version beside them (tests/golden/README.md)"


def test_every_golden_file_is_guarded():
    guarded = [line.split("  ")[1] for line in LINES]
    assert len(set(guarded)) == len(guarded)
    assert {path.relative_to(HERE).as_posix() for path in (*EVENTS, *LOGS)} == set(guarded)


def test_the_first_checksums_are_those_laid_down_first():
    first = "".join(f"{line}\n" for line in LINES[:FIRST_LINES])
    assert sha256(first.encode()).hexdigest() == FIRST_LINES_DIGEST


def test_every_event_type_has_golden_files():
    assert {path.parent.name for path in EVENTS} == set(TOPICS), "run tests/golden/make_golden.py"


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_the_newest_golden_file_knows_every_field(topic):
    samples = read(newest(topic))["samples"]
    assert all(list(told["event"]) == list(TOPICS[topic].__struct_fields__) for told in samples), (
        "fields were appended: add the next version to SAMPLES in make_golden.py"
    )


# --- events ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_what_was_stored_is_read_as_what_it_was(path):
    golden = read(path)
    assert golden["topic"] == path.parent.name
    for told in golden["samples"]:
        envelope = decode(golden["topic"], bytes.fromhex(told["state"]))
        assert (envelope.actor, envelope.digest.hex()) == (golden["actor"], golden["digest"])
        assert covers(plain(envelope.event), told["event"])


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_what_is_stored_now_has_the_bytes_of_the_newest_golden_file(topic):
    golden = read(newest(topic))
    for told in golden["samples"]:
        envelope = decode(topic, bytes.fromhex(told["state"]))
        assert encode(envelope.event, golden["actor"], bytes.fromhex(golden["digest"])).hex() == told["state"]


# --- whole logs -----------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    return read(path)["rows"]


def folded(path: Path) -> Tenant:
    tenant = Tenant()
    for row in rows_of(path):
        tenant.apply(decode(row["topic"], bytes.fromhex(row["state"])).event)
    return tenant


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_stored_log_hashes_to_the_root_it_had(path):
    golden, peaks = read(path), []
    tenant = UUID(golden["tenant"]).bytes
    for seq, row in enumerate(golden["rows"], 1):
        key = bytes.fromhex(row["command_key"]) if row["command_key"] else None
        state = bytes.fromhex(row["state"])
        leaf = proof.leaf_hash(tenant, seq, row["topic"].encode(), row["recorded_at"], key, state)
        assert (row["seq"], row["leaf_hash"]) == (seq, leaf.hex())
        proof.append(peaks, seq - 1, leaf)
    assert proof.root_of(peaks).hex() == golden["root"]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_stored_log_folds_to_the_state_it_had(path):
    tenant = folded(path)
    tenant.check_whole()
    assert sha256(b"".join(lines(tenant))).hexdigest() == path.with_suffix(".state").read_text().strip()


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_stored_log_comes_to_the_figures_worked_out_by_hand(path):
    tenant, figures = folded(path), read(path)["figures"]
    assert tenant.charging.amount_total == figures.pop("amount")
    assert tenant.charging.counts == figures.pop("counts")
    names = [member.id for member in tenant.hierarchy.members]
    for family, expected in figures.items():
        usage_type, period = family.split()
        counted = tenant.families[usage_type, period]
        told = {
            column: {name: n for name, n in zip(names, getattr(counted, column), strict=True) if n}
            for column in ("remaining", "consumed", "used")
        }
        assert {"granted": counted.granted_total, **told} == expected


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_stored_log_can_be_copied_event_by_event(path):
    golden, log = read(path), MemoryLog()
    for row in golden["rows"]:
        group = Group(UUID(golden["tenant"]), log.claim(), row["recorded_at"])
        key = bytes.fromhex(row["command_key"]) if row["command_key"] else None
        group.add(row["topic"], bytes.fromhex(row["state"]), key)
        log.append(group)
    assert proof.root_of(log.head().peaks).hex() == golden["root"]
    copied = Tenant()
    for told in replay(log):
        copied.apply(told.event)
    assert list(lines(copied)) == list(lines(folded(path)))
