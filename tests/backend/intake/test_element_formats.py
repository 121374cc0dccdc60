"""The formats of network elements, on rows as those elements write them. The rows are our own."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from allotment.backend.intake.formats import load_format
from allotment.backend.intake.reading import Reader
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.domain.usage import UsageRecord

ROOT = Path(__file__).parents[3]
CDR = ROOT.parent / "shared" / "data" / "cdr"
needs_shared_data = pytest.mark.skipif(not CDR.is_dir(), reason="the shared sample records are not here")
NOON = 1_772_366_400
"""2026-03-01 12:00 UTC, in seconds."""
GREGORIAN = 62_167_219_200


def read(content: bytes | str, format: str) -> tuple[list[Any], Reader]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    reader = Reader(stream, load_format(format), time_zone="Europe/London", name="f")
    return list(reader), reader


def told(found: list[Any]) -> list[Any]:
    """What matters of each record: its quantity and parties, or its reason."""
    return [
        (each.quantity, each.line, each.direction, each.counterpart)
        if isinstance(each, UsageRecord)
        else each.reason
        for each in found
    ]


def since_noon(record: UsageRecord) -> int:
    return record.started_at // 1_000_000 - NOON


# FreeSWITCH


def switch_row(
    uuid: str,
    other: str = "",
    answer: str = "12:00:05",
    billsec: int = 55,
    duration: int = 60,
    codecs: str = "y",
) -> str:
    stamp = f"2026-03-01 {answer}" if answer else ""
    end = "2026-03-01 12:01:00" if answer else "2026-03-01 12:00:30"
    written = ',"PCMU","PCMU"' if codecs else ""
    return (
        f'"Ann","+442071838750","+13051416799","default","2026-03-01 12:00:00","{stamp}","{end}",'
        f'"{duration}","{billsec}","NORMAL_CLEARING","{uuid}","{other}",""{written}\n'
    )


CALLED = ("+442071838750", "outbound", "+13051416799")


@pytest.mark.parametrize(
    ("rows", "outcome", "merged"),
    [
        (switch_row("a"), [(55, *CALLED)], 0),
        (switch_row("a", codecs=""), [(55, *CALLED)], 0),
        (switch_row("a", billsec=54), [(54, *CALLED)], 0),
        (switch_row("a", billsec=53), ["contradictory"], 0),
        (switch_row("a", answer="", billsec=0, duration=30), [(0, *CALLED)], 0),
        (switch_row("a", "b") + switch_row("b", "a", "12:00:06", 54), [(55, *CALLED)], 1),
        (switch_row("b", "a", "12:00:06", 54) + switch_row("a", "b"), [(55, *CALLED)], 1),
        (switch_row("a", "b") + switch_row("c", "d"), [(55, *CALLED)] * 2, 0),
    ],
)
def test_a_freeswitch_call_is_charged_once_for_its_billable_seconds(
    rows: str, outcome: Any, merged: int
) -> None:
    found, reader = read(rows, "freeswitch-csv")
    assert (told(found), reader.counts.merged) == (outcome, merged)


@needs_shared_data
def test_freeswitch_columns_stand_as_its_documentation_says() -> None:
    rows = (CDR / "freeswitch_csv_example_layout.csv").read_text().split()[1:]
    assert [row.partition(",")[2] for row in rows] == load_format("freeswitch-csv").csv.columns


def json_call(**variables: Any) -> str:
    known = {
        "uuid": "u1",
        "start_uepoch": str(NOON * 1_000_000),
        "answer_uepoch": str(NOON * 1_000_000 + 5_250_000),
        "end_uepoch": str(NOON * 1_000_000 + 60_900_000),
        "billsec": "55",
    }
    profile = {"caller_id_number": "+442071838750", "destination_number": "+13051416799"}
    return json.dumps(
        {
            "core-uuid": "c",
            "channel_data": {"direction": "inbound"},
            "variables": known | variables,
            "callflow": [{"caller_profile": profile}],
        }
    )


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        (json_call(), [(55, *CALLED)]),
        (f"[{json_call()}, {json_call(uuid='u2')}]", [(55, *CALLED)] * 2),
        (json_call(answer_uepoch="0", billsec="0"), [(0, *CALLED)]),
        (json_call(originating_leg_uuid="u0"), []),
        (json_call(billsec="70"), ["contradictory"]),
        (json_call(uuid=""), ["missing_field"]),
    ],
)
def test_a_freeswitch_document(document: str, outcome: Any) -> None:
    found, reader = read(document, "freeswitch-json")
    assert told(found) == outcome
    assert reader.counts.read == reader.counts.records + reader.counts.unreadable + reader.counts.ignored


# Cisco CUCM

CUCM_COLUMNS = (
    '"cdrRecordType","globalCallID_callManagerId","globalCallID_callId","origLegCallIdentifier",'
    '"dateTimeOrigination","origIpAddr","callingPartyNumber","originalCalledPartyNumber",'
    '"finalCalledPartyNumber","dateTimeConnect","dateTimeDisconnect","duration","origDeviceName",'
    '"origCalledPartyRedirectOnBehalfOf","pkid"\n'
)
CUCM_TYPES = (
    "INTEGER,INTEGER,INTEGER,INTEGER,INTEGER,INTEGER,VARCHAR(50),VARCHAR(50),VARCHAR(50),INTEGER,INTEGER,"
    "INTEGER,VARCHAR(129),INTEGER,UNIQUEIDENTIFIER\n"
)


def cucm(
    number: int, leg: int, connect: int | None, disconnect: int, called: str = "2002",
    duration: int | None = None, calling: str = "2001", on_behalf: int = 12, address: int = -1_139_627_840,
) -> str:  # fmt: skip
    connected = 0 if connect is None else NOON + connect
    stated = (0 if connect is None else disconnect - connect) if duration is None else duration
    return (
        f'1,1,{number},{leg},{NOON},{address},"{calling}","2002","{called}",{connected},{NOON + disconnect},'
        f'{stated},"SEP001122334455",{on_behalf},"pk-{number}-{leg}"\n'
    )


@pytest.mark.parametrize(
    ("rows", "outcome", "ignored"),
    [
        (cucm(7, 1, 5, 65), [(60, "2001", "outbound", "2002")], 0),
        (cucm(7, 1, None, 20), [(0, "2001", "outbound", "2002")], 0),
        (cucm(7, 1, 5, 5), [(0, "2001", "outbound", "2002")], 0),
        (
            cucm(7, 1, 5, 35) + cucm(7, 2, 35, 65, "2003", calling="2002"),
            [(60, "2001", "outbound", "2002")],
            0,
        ),
        (cucm(7, 1, 5, 65) + cucm(7, 2, 30, 50, "2003"), [(60, "2001", "outbound", "2002")], 0),
        (cucm(7, 1, 5, 65) + cucm(7, 2, 6, 65, "7999", on_behalf=27), [(60, "2001", "outbound", "2002")], 1),
        (cucm(7, 1, 5, 65, duration=90), ["contradictory"], 0),
        (cucm(7, 1, 5, 65, calling=""), ["missing_field"], 0),
        (cucm(7, 1, 5, 65) + cucm(8, 1, 5, 65), [(60, "2001", "outbound", "2002")] * 2, 0),
    ],
)
def test_a_cucm_call_is_charged_once_whatever_its_legs(rows: str, outcome: Any, ignored: int) -> None:
    found, reader = read(CUCM_COLUMNS + CUCM_TYPES + rows, "cisco-cucm")
    assert (told(found), reader.counts.ignored) == (outcome, ignored)


def test_a_cucm_record_is_named_by_node_and_call_and_begins_when_it_was_connected() -> None:
    (record,), _ = read(CUCM_COLUMNS + CUCM_TYPES + cucm(7, 1, 5, 65), "cisco-cucm")
    assert (record.source, record.record_id, since_noon(record)) == ("cucm", "1-7", 5)


@pytest.mark.parametrize(
    ("address", "attributes"),
    [
        (-1_139_627_840, {"caller_address": "192.168.18.188"}),
        (991_078_592, {"caller_address": "192.168.18.59"}),
        (0, {}),
    ],
)
def test_cucm_addresses_are_signed_integers_with_the_low_byte_first(
    address: int, attributes: dict[str, str]
) -> None:
    (record,), _ = read(CUCM_COLUMNS + CUCM_TYPES + cucm(7, 1, 5, 65, address=address), "cisco-cucm")
    assert dict(record.attributes) == attributes | {"caller_device": "SEP001122334455"}


def test_a_first_record_is_not_taken_for_a_row_of_types() -> None:
    found, reader = read(CUCM_COLUMNS + cucm(7, 1, 5, 65), "cisco-cucm")
    assert (len(found), reader.counts.read) == (1, 1)


# Microsoft Teams

TEAMS_PSTN = (
    "UsageId,Call ID,Conference ID,User Location,AAD ObjectId,UPN,User Display Name,Caller ID,Call Type,"
    "Number Type,Domestic/International,Destination Dialed,Destination Number,Start Time,End Time,"
    "Duration Seconds,Connection Fee,Charge,Currency,Capability\n"
)


def pstn_row(
    kind: str, seconds: int = 60, caller: str = "+442071838750", called: str = "+13051416799"
) -> str:
    return (
        f"u1,c1,,GB,o1,ann@example.org,Ann,{caller},{kind},Subscriber,International,US,{called},"
        f"2026-03-01T12:00:00.1234567+00:00,2026-03-01T12:01:00.1234567+00:00,{seconds},0,0,GBP,MCOPSTN2\n"
    )


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (pstn_row("user_out"), (60, "+442071838750", "outbound", "+13051416799")),
        (pstn_row("user_out_transfer"), (60, "+442071838750", "outbound", "+13051416799")),
        (pstn_row("ucap_in"), (60, "+13051416799", "inbound", "+442071838750")),
        (pstn_row("conf_in"), (60, "+13051416799", "inbound", "+442071838750")),
        (pstn_row("user_out", called="+1305141****"), (60, "+442071838750", "outbound", "+1305141xxxx")),
        (pstn_row("user_out", 0), (0, "+442071838750", "outbound", "+13051416799")),
        (pstn_row("user_out", 62), "contradictory"),
        (pstn_row("user"), "missing_field"),
    ],
)
def test_a_teams_call_of_a_calling_plan(row: str, outcome: Any) -> None:
    found, _ = read(TEAMS_PSTN + row, "teams-pstn-csv")
    assert told(found) == [outcome]


TEAMS_DIRECT = (
    "CorrelationId,SIP Address,Display Name,User country,Invite time,Start time,Failure time,End time,"
    "Duration (seconds),Success,Caller Number,Callee Number,Call type,Azure region for Media,"
    "Azure region for Signaling,Final SIP code,Final Microsoft subcode,Final SIP phrase,SBC FQDN,"
    "Media bypass,Shared correlation ID\n"
)


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("dr_in", (60, "+13051416799", "inbound", "+442071838750")),
        ("Dr_Out_User_Transfer", (60, "+442071838750", "outbound", "+13051416799")),
        ("ByotInUcap", (60, "+13051416799", "inbound", "+442071838750")),
        ("dr_emergency_out", (60, "+442071838750", "outbound", "+13051416799")),
    ],
)
def test_a_teams_call_by_direct_routing_is_the_same_by_file_and_by_graph(kind: str, outcome: Any) -> None:
    row = (
        "k1,ann@example.org,Ann,GB,2026-03-01T11:59:58Z,2026-03-01T12:00:00Z,,2026-03-01T12:01:00Z,60,Yes,"
        f"+442071838750,+13051416799,{kind},EUNO,EUNO,0,540000,OK,sbc.example.org,No,\n"
    )
    page = {
        "value": [
            {
                "id": "i1", "correlationId": "k1", "callType": kind, "duration": 60,
                "inviteDateTime": "2026-03-01T11:59:58Z", "startDateTime": "2026-03-01T12:00:00Z",
                "endDateTime": "2026-03-01T12:01:00Z", "callerNumber": "+442071838750",
                "calleeNumber": "+13051416799", "trunkFullyQualifiedDomainName": "sbc.example.org",
            }
        ]
    }  # fmt: skip
    by_file, _ = read(TEAMS_DIRECT + row, "teams-direct-csv")
    by_graph, _ = read(json.dumps(page), "teams-direct-json")
    assert told(by_file) == [outcome]
    assert by_file == by_graph


NEVER = "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("start", "end", "failure", "seconds", "outcome"),
    [
        ("12:00:00", "12:01:00", "", 60, 60),
        ("12:00:00", "12:01:00", "", 62, 60),
        ("12:00:00", "12:01:00", "", 64, "contradictory"),
        ("11:59:58", "11:59:58", "", 0, 0),
        ("11:59:58", "", "12:00:18", 20, 0),
        ("11:59:58", "", "", 20, "contradictory"),
    ],
)
def test_ringing_is_no_part_of_a_direct_routing_call_and_a_failed_one_has_none(
    start: str, end: str, failure: str, seconds: int, outcome: Any
) -> None:
    def at(clock: str, never: str = "") -> str:
        return f"2026-03-01T{clock}Z" if clock else never

    row = (
        f"k1,ann@example.org,Ann,GB,{at('11:59:58')},{at(start)},{at(failure)},{at(end)},{seconds},Yes,"
        "+442071838750,+13051416799,dr_out,EUNO,EUNO,0,540000,OK,sbc.example.org,No,\n"
    )
    call = {
        "id": "i1", "correlationId": "k1", "callType": "ByotOut", "duration": seconds,
        "inviteDateTime": at("11:59:58"), "startDateTime": at(start), "endDateTime": at(end, NEVER),
        "failureDateTime": at(failure, NEVER), "callerNumber": "+442071838750",
        "calleeNumber": "+13051416799", "trunkFullyQualifiedDomainName": "sbc.example.org",
    }  # fmt: skip
    by_file, _ = read(TEAMS_DIRECT + row, "teams-direct-csv")
    by_graph, _ = read(json.dumps({"value": [call]}), "teams-direct-json")
    for (found,) in (by_file, by_graph):
        assert getattr(found, "reason", None) == (outcome if isinstance(outcome, str) else None)
        assert getattr(found, "quantity", outcome) == outcome


def test_a_page_of_graphs_calls_of_calling_plans() -> None:
    row = {
        "id": "u1", "callId": "c1", "callType": "user_in", "duration": 219, "charge": 0.05,
        "startDateTime": "2026-03-01T12:00:08.2589935Z", "endDateTime": "2026-03-01T12:03:47.2589935Z",
        "callerNumber": "+13051416***", "calleeNumber": "+442071838750", "licenseCapability": "MCOPSTNU",
    }  # fmt: skip
    found, _ = read(json.dumps({"@odata.count": 1, "value": [row]}), "teams-pstn-json")
    assert told(found) == [(219, "+442071838750", "inbound", "+13051416xxx")]


# Kamailio and OpenSIPS

ACC = "id,method,from_tag,to_tag,callid,sip_code,sip_reason,time,src_user,src_domain,dst_ouser,dst_user\n"


def acc(method: str, call: str, second: int, code: int = 200, tags: str = "f,t", user: str = "ann") -> str:
    return (
        f"1,{method},{tags},{call},{code},OK,2026-03-01 12:{second // 60:02}:{second % 60:02},"
        f"{user},example.org,+13051416799,gw\n"
    )


ANN = ("ann", "outbound", "+13051416799")


@pytest.mark.parametrize(
    ("rows", "outcome", "merged", "ignored"),
    [
        (acc("INVITE", "a", 0) + acc("BYE", "a", 60), [(60, *ANN)], 1, 0),
        (acc("INVITE", "a", 0) + acc("BYE", "a", 60, tags="t,f", user="bob"), [(60, *ANN)], 1, 0),
        (acc("BYE", "a", 60) + acc("INVITE", "a", 0), [(60, *ANN)], 1, 0),
        (acc("INVITE", "a", 0) + acc("BYE", "a", 0), [(0, *ANN)], 1, 0),
        (acc("INVITE", "a", 0) + acc("ACK", "a", 0) + acc("BYE", "a", 9), [(9, *ANN)], 1, 1),
        (acc("INVITE", "a", 0) + acc("BYE", "a", 9) + acc("BYE", "a", 9, tags="t,f"), [(9, *ANN)], 2, 0),
        (acc("INVITE", "a", 0, 486), [(0, *ANN)], 0, 0),
        (acc("INVITE", "a", 0), ["unpaired"], 0, 0),
        (acc("BYE", "a", 9), ["unpaired"], 0, 0),
        (acc("INVITE", "a", 10) + acc("BYE", "a", 9), ["contradictory"], 1, 0),
        (acc("INVITE", "a", 0) + acc("INVITE", "b", 5) + acc("BYE", "a", 9) + acc("BYE", "b", 7),
         [(9, *ANN), (2, *ANN)], 2, 0),
        (acc("INVITE", "a", 0) + acc("BYE", "a", 9, tags="x,t"), ["unpaired", "unpaired"], 0, 0),
    ],
)  # fmt: skip
def test_the_invite_and_the_bye_of_a_call_are_one_record(
    rows: str, outcome: Any, merged: int, ignored: int
) -> None:
    found, reader = read(ACC + rows, "kamailio-acc")
    counts = reader.counts
    assert (told(found), counts.merged, counts.ignored) == (outcome, merged, ignored)
    assert counts.read == counts.records + counts.unreadable + counts.merged + counts.ignored


def test_a_row_without_its_other_half_keeps_its_line_and_says_what_is_missing() -> None:
    (lone,), _ = read(ACC + acc("INVITE", "a", 0), "kamailio-acc")
    assert (lone.record_id, lone.position, lone.raw) == ("a;f;t", "f:2", acc("INVITE", "a", 0).strip())
    assert (
        lone.detail
        == "the row has no row that ends it; bring both rows into one file, or correct and recycle"
    )


def test_the_table_cdrs_names_a_call_as_the_table_acc_does() -> None:
    header = "cdr_id,src_username,src_domain,dst_username,dst_domain,dst_ousername,call_start_time,duration,"
    header += "sip_call_id,sip_from_tag,sip_to_tag,src_ip,cost,rated,created\n"
    row = (
        "1,ann,example.org,gw,x,+13051416799,2026-03-01 12:00:00,60,a,f,t,192.0.2.1,0,0,2026-03-01 12:02:00\n"
    )
    by_cdrs, _ = read(header + row, "kamailio-cdrs")
    by_acc, _ = read(ACC + acc("INVITE", "a", 0) + acc("BYE", "a", 60), "kamailio-acc")
    assert by_cdrs == by_acc


def test_opensips_writes_one_row_per_call() -> None:
    header = (
        "id,method,from_tag,to_tag,callid,sip_code,sip_reason,time,duration,ms_duration,setuptime,created,"
    )
    row = "1,INVITE,f,t,a,200,OK,2026-03-01 12:00:05,55,54321,5,2026-03-01 12:00:00,ann,+13051416799\n"
    (record,), _ = read(header + "src_user,dst_user\n" + row, "opensips-acc")
    assert told([record]) == [(55, *ANN)]
    assert since_noon(record) == 5


# Kazoo


def kazoo(call: str, billing: int, duration: int, end: int, interaction: str = "i", **more: Any) -> Any:
    return {
        "call_id": call, "interaction_id": interaction, "timestamp": str(GREGORIAN + NOON + end),
        "billing_seconds": str(billing), "duration_seconds": str(duration), "direction": "inbound",
        "caller_id_number": "+442071838750", "callee_id_number": "+13051416799", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("legs", "outcome"),
    [
        ([kazoo("a", 60, 65, 65)], [(60, *CALLED)]),
        ([kazoo("a", 0, 20, 20)], [(0, *CALLED)]),
        ([kazoo("a", 60, 65, 65), kazoo("b", 58, 60, 65)], [(60, *CALLED)]),
        ([kazoo("a", 60, 65, 65), kazoo("b", 60, 65, 65, "j")], [(60, *CALLED)] * 2),
        ([kazoo("a", 66, 65, 65)], ["contradictory"]),
        ([kazoo("a", 60, 65, 65, callee_id_number="", to="+13051416799@example.org")], [(60, *CALLED)]),
    ],
)
def test_the_legs_of_a_kazoo_interaction_are_one_call(legs: list[Any], outcome: Any) -> None:
    found, _ = read(json.dumps({"data": legs, "page_size": len(legs)}), "kazoo")
    assert told(found) == outcome


def test_a_kazoo_call_begins_its_billable_seconds_before_it_ended() -> None:
    (record,), _ = read(json.dumps({"data": [kazoo("a", 60, 65, 65)]}), "kazoo")
    assert since_noon(record) == 5


# RADIUS


def detail(status: str, session: str = "s1", told_at: int = 3_700, **more: Any) -> str:
    attributes = {
        "Acct-Status-Type": status, "User-Name": '"ann"', "Acct-Unique-Session-Id": f'"{session}"',
        "NAS-IP-Address": "192.0.2.1", "Acct-Session-Time": 3_600, "Acct-Delay-Time": 100,
        "Acct-Input-Octets": 1_000, "Acct-Output-Octets": 2_000, "Timestamp": NOON + told_at,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }  # fmt: skip
    lines = (f"\t{name} = {value}" for name, value in attributes.items() if value is not None)
    return "Sun Mar  1 13:01:40 2026\n" + "\n".join(lines) + "\n\n"


@pytest.mark.parametrize(
    ("blocks", "outcome", "ignored"),
    [
        (detail("Stop"), [3_000], 0),
        (detail("Start") + detail("Interim-Update") + detail("Stop"), [3_000], 2),
        (detail("Stop", Acct_Input_Gigawords=1, Acct_Output_Gigawords=2), [3_000 + 3 * 2**32], 0),
        (detail("Stop", Acct_Input_Octets=0, Acct_Output_Octets=0), [0], 0),
        (detail("Stop", Acct_Input_Octets=None, Acct_Output_Octets=None), ["missing_field"], 0),
        (detail("Stop", Acct_Input_Octets="lots"), ["bad_value"], 0),
        (detail("Stop", Cisco_AVPair='"a=1"'), [3_000], 0),
        (detail("Stop") + "garbage\nmore garbage\n\n" + detail("Stop", "s2"), [3_000, "malformed", 3_000], 0),
        (detail("Stop").rstrip(), [3_000], 0),
        (detail("Stop").replace("\n", "\r\n"), [3_000], 0),
        (detail("Accounting-On", Acct_Unique_Session_Id=None), [], 1),
    ],
)
def test_a_radius_session_is_what_its_stop_says(blocks: str, outcome: Any, ignored: int) -> None:
    found, reader = read(blocks, "radius-detail")
    assert [getattr(each, "quantity", "") or getattr(each, "reason", 0) for each in found] == outcome
    assert reader.counts.ignored == ignored


def test_a_radius_stop_that_was_sent_again_later_is_the_same_record() -> None:
    found, _ = read(detail("Stop") + detail("Stop", told_at=3_760, Acct_Delay_Time=160), "radius-detail")
    assert found[0] == found[1]
    assert since_noon(found[0]) == 0


def test_a_radius_session_without_a_unique_id_has_one_made_of_its_server_user_and_session() -> None:
    (record,), _ = read(
        detail("Stop", Acct_Unique_Session_Id=None, Acct_Session_Id='"0000000C"'), "radius-detail"
    )
    assert len(record.record_id) == 32


# Aggregates are no usage


@needs_shared_data
@pytest.mark.parametrize("file", ["twilio_usage_records.json", "twilio_usage_triggers.json"])
@pytest.mark.parametrize("format", ["twilio-calls", "twilio-messages", "generic-json"])
def test_totals_and_alerts_of_twilio_are_refused_as_usage(file: str, format: str) -> None:
    with pytest.raises(UnreadableFile, match=r"which holds|is not what the format says"):
        read((CDR / file).read_bytes(), format)
