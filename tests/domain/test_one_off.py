"""One-off fees and channels: charged, taken back once, dated."""

import pytest

from allotment.domain.channels import CHANNELS_MAX, ChannelsSet, SetChannels
from allotment.domain.hierarchy import EndResource, MoveResource
from allotment.domain.one_off import AMOUNT_MAX, ChargeFee, FeeCharged, FeeCredited, UndoFee
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore

MONTH = "2026-11"
INSTALL = ChargeFee("f-1", "Installation", "sales", 99_000_000, "", "two trunks")


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (INSTALL, [FeeCharged("f-1", "Installation", "sales", MONTH, 99_000_000, "two trunks")]),
        (ChargeFee("f", "Fee", "acme", 1, MONTH, "why"), [FeeCharged("f", "Fee", "acme", MONTH, 1, "why")]),
        (ChargeFee("f", "Fee", "acme", 0, "", "why"), "amount_out_of_range"),
        (ChargeFee("f", "Fee", "acme", -1, "", "why"), "amount_out_of_range"),
        (ChargeFee("f", "Fee", "acme", AMOUNT_MAX + 1, "", "why"), "amount_out_of_range"),
        (ChargeFee("f", "Fee", "nobody", 1, "", "why"), "unknown_node"),
        (ChargeFee("f", "Fee", "r-1", 1, "", "why"), "unknown_node"),
        (ChargeFee("f", "Fee", "acme", 1), "bad_text"),
        (ChargeFee("f", "", "acme", 1, "", "why"), "bad_text"),
        (ChargeFee("", "Fee", "acme", 1, "", "why"), "bad_text"),
        (ChargeFee("f", "Fee", "acme", 1, "soon", "why"), "not_a_period"),
        (ChargeFee("f", "Fee", "acme", 1, "2025-12", "why"), "no_contract"),
        (UndoFee("f-1", "why"), "unknown_fee"),
    ],
)
def test_charging_once(acme, command, outcome):
    assert acme.ask(command) == outcome


def test_a_fee_is_charged_under_its_id_once(acme):
    acme.do(INSTALL)
    assert acme.refusal(INSTALL) == ("fee_known", {"fee": "f-1"})


def test_a_fee_is_taken_back_whole_and_once_in_the_period_that_runs(acme, at):
    acme.do(INSTALL)
    later = at("2026-12-03 10:00")
    (credited,) = acme.do(UndoFee("f-1", "charged by mistake"), later)
    about = ("f-1", "Installation", "sales", "2026-12", 99_000_000)
    assert credited == FeeCredited(*about, "charged by mistake")
    assert acme.ask(UndoFee("f-1", "again"), later) == "fee_undone"
    assert [acme.tenant.fees.total(period) for period in (MONTH, "2026-12")] == [99_000_000, -99_000_000]


def test_a_fee_is_no_usage(acme):
    acme.do(INSTALL)
    assert (acme.tenant.charging.amount_total, acme.tenant.families["money", MONTH].used[0]) == (0, 0)


def test_channels_are_dated_one_after_the_other(acme, at):
    since, now = at("2026-11-10 00:00"), at("2026-11-15 12:00")
    assert acme.do(SetChannels("r-1", 10, since)) == [ChannelsSet("r-1", 10, since)]
    assert acme.ask(SetChannels("r-1", 20, since)) == "channels_set_later"
    assert acme.do(SetChannels("r-1", 20, note="fair")) == [ChannelsSet("r-1", 20, now, "fair")]
    acme.do(MoveResource("r-1", "apac", at("2026-11-20 00:00")))
    assert acme.ask(SetChannels("r-1", 5, at("2026-11-19 00:00"))) == "channels_set_later"
    acme.do(EndResource("r-1", at("2026-11-25 00:00")))
    assert acme.ask(SetChannels("r-1", 5, at("2026-11-26 00:00"))) == "resource_ended"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SetChannels("nobody", 1), "unknown_resource"),
        (SetChannels("sales", 1), "unknown_resource"),
        (SetChannels("r-1", -1), "channels_out_of_range"),
        (SetChannels("r-1", CHANNELS_MAX + 1), "channels_out_of_range"),
        (SetChannels("r-1", 1, 0, "\n"), "bad_text"),
    ],
)
def test_channels_that_cannot_be(acme, command, code):
    assert acme.ask(command) == code


def test_a_snapshot_keeps_fees_and_channels(acme):
    for command in (INSTALL, UndoFee("f-1", "why"), SetChannels("r-1", 4)):
        acme.do(command)
    restored = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert restored.fees.charged == acme.tenant.fees.charged
    assert restored.fees.credited == acme.tenant.fees.credited
    assert restored.channels.last == acme.tenant.channels.last
