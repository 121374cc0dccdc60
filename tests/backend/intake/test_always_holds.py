"""What must always hold of reading: every row is accounted for, and no call is charged twice."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend.intake.elsewhere import Task, _batches, _together
from allotment.backend.intake.formats import load_format
from allotment.backend.intake.reading import Reader
from allotment.domain.usage import UsageRecord

HEADER = "id,method,from_tag,to_tag,callid,sip_code,sip_reason,time,src_user,src_domain,dst_user\n"
CALLS = st.lists(st.tuples(st.integers(0, 3_599), st.integers(0, 3_599)), max_size=12)


def row(method: str, call: int, second: int, tags: str = "f,t") -> str:
    clock = f"12:{second // 60:02}:{second % 60:02}"
    return f"1,{method},{tags},c{call},200,OK,2026-03-01 {clock},ann,example.org,gw\n"


def read(rows: list[str]) -> Reader:
    reader = Reader(
        io.BytesIO((HEADER + "".join(rows)).encode()), load_format("kamailio-acc"), time_zone="UTC"
    )
    reader.found = list(reader)  # type: ignore[attr-defined]
    return reader


@settings(max_examples=150, deadline=None)
@given(CALLS, st.randoms(use_true_random=False), st.data())
def test_halves_find_each_other_in_any_order_and_every_row_is_accounted_for(
    calls: list[tuple[int, int]], chance: random.Random, data: st.DataObject
) -> None:
    rows, expected = [], {}
    for number, (began, lasted) in enumerate(calls):
        ended = min(3_599, began + lasted)
        swapped = data.draw(st.booleans())
        rows += [row("INVITE", number, began), row("BYE", number, ended, "t,f" if swapped else "f,t")]
        expected[f"c{number};f;t"] = ended - began
    rows += data.draw(
        st.lists(st.sampled_from([row("ACK", 0, 0), "torn\n", row("INVITE", 99, 0)]), max_size=5)
    )
    chance.shuffle(rows)
    reader = read(rows)
    counts = reader.counts
    assert counts.read == len(rows)
    assert counts.read == counts.records + counts.unreadable + counts.merged + counts.ignored
    found = {each.record_id: each.quantity for each in reader.found if isinstance(each, UsageRecord)}  # type: ignore[attr-defined]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["1,100,voice,2026-03-01T12:00:00,60", "torn", '2,"1', "", ",,,,"]), max_size=40)
)
def test_another_process_reads_what_this_one_reads(tmp_path_factory: object, rows: list[str]) -> None:
    content = ("id,line,type,start,quantity\n" + "\n".join(rows)).encode()
    format = load_format("generic-csv")
    here = Reader(io.BytesIO(content), format, time_zone="UTC", name="f")
    expected = [(record, here.position) for record in here]
    file = tmp_path_factory.getbasetemp() / "rows.csv"  # type: ignore[attr-defined]
    file.write_bytes(content)
    batches = list(_batches(Task(str(file), format, "UTC", "f", "")))
    assert [pair for batch in batches for pair in _together(batch, "f")] == expected
    assert batches[-1].counts == here.counts
