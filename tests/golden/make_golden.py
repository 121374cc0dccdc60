"""Makes golden files for what is new. Run by hand, never in CI; what exists is never written again.

    python tests/golden/make_golden.py

A new event type gets a line in SAMPLES; one that gained fields gets another version there. The
new files' checksums are added to CHECKSUMS. Only `logs/<name>.state`, the digest of the canonical
state, is written anew each time: see README.md.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from story import DECIDED_AT, play

from allotment.backend.log import Group, MemoryLog
from allotment.domain import proof
from allotment.domain.approval import (
    ApprovalRuleSet,
    Approver,
    TransferApproved,
    TransferDeclined,
    TransferProposed,
)
from allotment.domain.bucket import Granted, Transferred
from allotment.domain.calendar import Calendar
from allotment.domain.canonical import lines
from allotment.domain.cap import CapReached, CapSet
from allotment.domain.channels import ChannelsSet
from allotment.domain.charging import UsageCharged, UsageRejected, UsageSuspended
from allotment.domain.contract import (
    ContractEnded,
    ContractRenewed,
    ContractSigned,
    Grant,
    PeriodOpened,
)
from allotment.domain.events import decode, encode
from allotment.domain.freeze import NodeThawed
from allotment.domain.granting import GrantChanged, ToppedUp
from allotment.domain.hierarchy import (
    Identity,
    NodeAdded,
    NodeFrozen,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from allotment.domain.hold import NO_HOLD, Hold
from allotment.domain.lateness import LateRuleSet
from allotment.domain.life import (
    IdentityAdded,
    IdentityRemoved,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    ResourceJoinedEarlier,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
)
from allotment.domain.limit import LimitSet, ThresholdCrossed
from allotment.domain.notice import (
    Filter,
    RecipientRemoved,
    RecipientSet,
    WebhookCreated,
    WebhookDisabled,
    WebhookEnabled,
    WebhookReplayed,
    WebhookSecretRotated,
)
from allotment.domain.offer import NOTHING_ASKED, Ask, OfferAccepted, OfferClosed, OfferMade
from allotment.domain.one_off import FeeCharged, FeeCredited
from allotment.domain.planned import Counting
from allotment.domain.policy import Group as PrefixGroup
from allotment.domain.policy import (
    PolicySet,
    PolicyWithdrawn,
    Ruling,
    Selector,
    Step,
    UsageApproved,
)
from allotment.domain.quiet import QuietHours
from allotment.domain.raising import LimitRaised, MayRaise
from allotment.domain.rating.amending import Amendment, TariffAmended, TariffWithdrawn
from allotment.domain.rating.basis import Basis, Switch
from allotment.domain.rating.fees import Fee
from allotment.domain.rating.language import Band, Span, Window, Zone
from allotment.domain.rating.overriding import Discount, Overrides, RatesOverridden
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating.standing import Counted
from allotment.domain.rating_job import RatingFinished, RatingStarted, Scope
from allotment.domain.receiving import (
    DuplicatesCounted,
    ImportBegun,
    ImportFinished,
    ImportRefused,
    SourceCounts,
)
from allotment.domain.recounting import WindowCorrected
from allotment.domain.rerated import (
    CapCorrected,
    TakenBack,
    UsageCorrected,
    UsageRerated,
    UsageTakenBack,
    Was,
)
from allotment.domain.reservation import Leg, Reservation
from allotment.domain.resettled import PlanCorrected
from allotment.domain.rollover import RolledBucket, RolledOver
from allotment.domain.running import Line
from allotment.domain.schedule import (
    AllocationScheduled,
    ScheduleCancelled,
    ScheduleCarriedOut,
    ScheduleSkipped,
)
from allotment.domain.session import (
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from allotment.domain.session_conditions import Conditions
from allotment.domain.session_terms import SessionTerms, SessionTermsSet
from allotment.domain.splitting import TransferCounted
from allotment.domain.suspense import UsageAmended, UsageRecycled
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.template import Rule, TemplateDefined
from allotment.domain.tenant import Event, Tenant, TenantOpened
from allotment.domain.terms import OveragePrice, RollOverRule, Terms
from allotment.domain.trade_rules import TradeRulesSet
from allotment.domain.trading import TransferUndone
from allotment.domain.usage_type import UsageTypeDefined
from allotment.domain.writing_off import (
    DismissalRuleSet,
    UsageDismissalAsked,
    UsageDismissed,
    UsageKept,
)

HERE = Path(__file__).parent
CHECKSUMS = HERE / "CHECKSUMS"
ACTOR, DIGEST = "telecoms_manager:u-17", bytes(range(8))
TENANT = UUID("11111111-2222-3333-4444-555555555555")
BIG, NOON = 2**62, 1_795_000_000_000_000

KEPT = (Reservation("emea", "data", "2026-11", 500), Reservation("apac", "money", "2026-11", 15_000))
HELD = Hold(total=181, billed=240, drawn=((4, 30), (1, 180)), overage=30, amount=33_333)
SAMPLES: dict[str, list[Event]] = {
    "tenant.opened/v1": [TenantOpened("Zürich 東京", "Europe/Zurich", "CHF", "carrier")],
    "hierarchy.node_added/v1": [
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
        NodeAdded("sales", 4_000_000, "acme", "Sales", "cost_centre"),
    ],
    "hierarchy.resource_added/v1": [
        ResourceAdded(
            "r-1", 5, "sales", "msisdn", -1, (Identity(b"\x00token", b"\xffsealed"), Identity(b"t", b""))
        )
    ],
    "hierarchy.resource_moved/v1": [ResourceMoved("r-1", "apac", NOON)],
    "hierarchy.resource_ended/v1": [ResourceEnded("r-1", NOON)],
    "hierarchy.node_renamed/v1": [NodeRenamed("sales", "Sales & more", "a note")],
    "hierarchy.node_renamed/v2": [NodeRenamed("sales", "Sales & more", "a note", NOON)],
    "hierarchy.node_added/v2": [
        NodeAdded("acme", 0, "", "Acme", "enterprise"),
        NodeAdded("sales", 4_000_000, "acme", "Sales", "cost_centre", NOON),
    ],
    "hierarchy.node_moved/v1": [NodeMoved("sales", "apac", NOON, "a note")],
    "hierarchy.node_closed/v1": [
        NodeClosed("sales", "apac", NOON, "merged"),
        NodeClosed("team", "", NOON),
    ],
    "hierarchy.node_change_planned/v1": [
        NodeChangePlanned("sales", "rename", "Zürich 東京", NOON, "a note"),
        NodeChangePlanned("sales", "move", "apac", NOON),
        NodeChangePlanned("sales", "close", "", NOON),
    ],
    "hierarchy.node_plan_cancelled/v1": [
        NodePlanCancelled("sales", "", "a note"),
        NodePlanCancelled("sales", "node_not_empty"),
    ],
    "hierarchy.resource_suspended/v1": [ResourceSuspended("r-1", NOON, "stolen")],
    "hierarchy.resource_joined_earlier/v1": [
        ResourceJoinedEarlier("r-1", "sales", NOON, NOON + 1, "came on Monday"),
        ResourceJoinedEarlier("r-1", "sales", NOON, NOON + 1, stayed=False),
    ],
    "hierarchy.resource_resumed/v1": [ResourceResumed("r-1", NOON, "found")],
    "hierarchy.identity_added/v1": [
        IdentityAdded("r-1", Identity(b"\x00token", b"\xffsealed"), NOON, "a note")
    ],
    "hierarchy.identity_removed/v1": [IdentityRemoved("r-1", b"\x00token", NOON, "a note")],
    "hierarchy.resource_labelled/v1": [
        ResourceLabelled("r-1", b"\x00token", b"\xffsealed"),
        ResourceLabelled("r-1", b"", b""),
    ],
    "contract.signed/v1": [
        ContractSigned("frame", 2, "2026-01-01", (Grant("voice", BIG), Grant("money", 0)), overage=False),
        ContractSigned("empty", 1, "2026-01-01", (), overage=True),
    ],
    "contract.period_opened/v1": [
        PeriodOpened("2026-11", 1_793_487_600_000_000, 1_796_079_600_000_000, "frame", 2, overage=True)
    ],
    "bucket.granted/v1": [Granted("acme", "data", "2026-11", BIG)],
    "bucket.transferred/v1": [
        Transferred("acme", "emea", "voice", "2026-11", 1, "allocate", "a note"),
        Transferred("emea", "acme", "voice", "2026-11", 2, "return", ""),
        Transferred("emea", "apac", "voice", "2026-11", BIG, "trade", ""),
    ],
    "limit.set/v1": [
        LimitSet("sales", "money", 5_000_000, (50, 80, 100), "2026-11"),
        LimitSet("sales", "voice", None, (), "2026-12"),
        LimitSet("sales", "data", 0, (100,), "2026-12"),
    ],
    "limit.threshold_crossed/v1": [ThresholdCrossed("sales", "voice", "2026-11", 80, 410, 500)],
    "offer.made/v1": [
        OfferMade(
            *("o-1", "emea", "acme", True, "data", "2026-11", BIG, Ask("voice", 3, 100), False, NOON, ""),
            "for whoever needs it",
        ),
        OfferMade("o-2", "apac", "emea", False, "money", "2026-11", 1, NOTHING_ASKED, True, NOON, "o-1", ""),
    ],
    "offer.accepted/v1": [
        OfferAccepted("o-1", "emea", "apac", "data", "2026-11", 500, "voice", 15, BIG, "", "a note"),
        OfferAccepted("o-2", "apac", "emea", "money", "2026-11", 1, "", 0, 0, "p-7", ""),
    ],
    "offer.closed/v1": [
        OfferClosed("o-1", "emea", "acme", "data", "2026-11", BIG, "withdrawn", "needed here"),
        OfferClosed("o-1", "emea", "acme", "data", "2026-11", 0, "countered", ""),
        OfferClosed("o-1", "emea", "acme", "data", "2026-11", 1, "expired", ""),
    ],
    "approval.rule_set/v2": [
        ApprovalRuleSet("acme", "data", BIG, Approver("emea"), False, "in pieces", "day"),
    ],
    "transfer.proposed/v2": [
        TransferProposed(
            *("p-8", "trade", "emea", "apac", "data", "2026-11", 500, "", "", 0, (Approver("acme"),)),
            *(False, ACTOR, NOON, "the last piece", BIG),
        )
    ],
    "transfer.counted/v1": [
        TransferCounted("u-1", "emea", "apac", "data", "2026-11", "2026-11-22", BIG),
    ],
    "approval.rule_set/v1": [
        ApprovalRuleSet("acme", "data", BIG, Approver("emea", "telecoms_manager"), True, "policy 7"),
        ApprovalRuleSet("acme", "money", None, Approver("acme"), False, ""),
    ],
    "transfer.proposed/v1": [
        TransferProposed(
            *("p-7", "trade", "emea", "apac", "data", "2026-11", 500, "o-1", "money", 15_000),
            (Approver("acme"), Approver("emea", "carrier")),
            *(True, ACTOR, NOON, "a note"),
        )
    ],
    "transfer.approved/v1": [TransferApproved("p-7", "emea", "apac", KEPT, "o-1", 500, "fine")],
    "transfer.declined/v1": [
        TransferDeclined("p-7", "emea", "apac", KEPT[1:], "o-1", 500, "declined", "too much"),
        TransferDeclined("p-8", "emea", "apac", KEPT[:1], "", 500, "withdrawn", ""),
        TransferDeclined("p-9", "emea", "apac", (), "", 500, "expired", ""),
    ],
    "transfer.undone/v1": [
        TransferUndone(BIG, "emea", "apac", (Leg("emea", "apac", "data", "2026-11", 500),), "a mistake")
    ],
    "trade.rules_set/v1": [TradeRulesSet(4, "no ping-pong"), TradeRulesSet(None, "")],
    "tariff.published/v1": [
        TariffPublished(
            "standard",
            3,
            NOON,
            "EUR",
            "half_even",
            2,
            (
                Rate("voice", "UK", "0.123456789", 60, "+44", "outbound", 6, 30, "0.10", included=False),
                Rate("data", "any", "0.01"),
            ),
        )
    ],
    "usage.charged/v1": [
        UsageCharged(
            source="pbx-1",
            record_id="c-7",
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            quantity=61,
            billed=120,
            tariff=1,
            rate=3,
            prefix="+49",
            zone="Germany",
            payer="corporate",
            steering="default",
            drawn=((4, 30), (1, 60)),
            overage=30,
            amount=33_333,
            exact=(100_000, 3),
            sealed=b"\x00sealed\xff",
        )
    ],
    "usage.rejected/v1": [
        UsageRejected(
            source="pbx-1",
            record_id="c-8",
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="inbound",
            quantity=100,
            billed=120,
            reason="limit_exceeded",
            stopped_by=2,
            counted="money",
            used=410,
            limit=500,
            sealed=b"sealed",
        )
    ],
    "session.reserved/v1": [
        SessionReserved(
            source="pbx-1",
            session="c-7",
            rating_group=1,
            number=0,
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            tariff=1,
            rate=3,
            requested=0,
            granted=181,
            final=True,
            held=HELD,
            expires_at=NOON + 600_000_000,
            subject=bytes(range(16)),
            sealed=b"\x00sealed\xff",
        )
    ],
    "session.updated/v1": [
        SessionUpdated(
            source="pbx-1",
            session="c-7",
            rating_group=1,
            number=number,
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            used=61,
            requested=requested,
            granted=granted,
            final=False,
            before=HELD,
            held=Hold(61 + granted, 120, ((4, 30), (1, 90)), 0, 0),
            expires_at=NOON + 700_000_000,
        )
        for number, requested, granted in ((1, 59, 59), (2, None, 0))
    ],
    "session.denied/v1": [
        SessionDenied(
            source="pbx-1",
            session="c-8",
            rating_group=1,
            number=2**40,
            path=(4, 2, 1, 0),
            usage_type="data",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            used=0,
            requested=BIG,
            reason="limit_exceeded",
            stopped_by=2,
            counted="money",
            counted_used=410,
            limit=410,
            before=NO_HOLD,
            held=NO_HOLD,
            expires_at=0,
            subject=bytes(range(16)),
            sealed=b"sealed",
        )
    ],
    "session.released/v1": [
        SessionReleased(
            source="pbx-1",
            session="c-7",
            rating_group=1,
            number=3,
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            used=300,
            overrun=60,
            late=False,
            before=HELD,
        )
    ],
    "session.expired/v1": [
        SessionExpired(
            source="pbx-1",
            session="c-7",
            rating_group=1,
            number=2,
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            used=61,
            overrun=0,
            before=HELD,
        )
    ],
    "notice.recipient_set/v1": [
        RecipientSet(
            "r-1",
            "sales",
            "cost centre manager",
            bytes(range(16)),
            Filter("sales", ("limit.threshold_crossed", "usage.rejected"), ("voice",), 80, below=False),
            QuietHours(1320, 420),
            "day",
            urgent_at_once=True,
            note="a note",
        ),
        RecipientSet(
            "Zürich", "acme", "auditor", b"", Filter("acme"), None, "", urgent_at_once=False, note=""
        ),
    ],
    "notice.recipient_removed/v1": [RecipientRemoved("r-1", "sales", "")],
    "notice.webhook_created/v1": [
        WebhookCreated("wh-1", "acme", "https://hooks.example.com", b"address", b"secret", Filter("acme"), "")
    ],
    "notice.webhook_secret_rotated/v1": [WebhookSecretRotated("wh-1", "acme", b"secret 2", NOON, "leaked")],
    "notice.webhook_disabled/v1": [WebhookDisabled("wh-1", "acme", "failing", "404")],
    "notice.webhook_enabled/v1": [WebhookEnabled("wh-1", "acme", "")],
    "notice.webhook_replayed/v1": [WebhookReplayed("wh-1", "acme", 1_000, "it was down")],
    "contract.signed/v3": [
        ContractSigned(
            *("frame", 4, "2026-01-01", (Grant("voice", BIG),), True),
            Terms(over_commitment_percent=150),
            "promised by half more",
        ),
        ContractSigned("frame", 5, "2026-01-01", (), overage=False),
    ],
    "session.reserved/v2": [
        SessionReserved(
            source="pbx-1",
            session="c-8",
            rating_group=1,
            number=0,
            path=(4, 2, 1, 0),
            usage_type="voice",
            period="2026-11",
            started_at=NOON,
            direction="outbound",
            tariff=1,
            rate=3,
            requested=0,
            granted=181,
            final=True,
            held=HELD,
            expires_at=NOON + 600_000_000,
            subject=bytes(range(16)),
            sealed=b"\x00sealed\xff",
            emergency=True,
        )
    ],
    "allocation.cap_set/v1": [
        CapSet("sales", "voice", BIG, "2026-11", "for the trade fair", (("2026-11", 61), ("2026-12", 1))),
        CapSet("sales", "data", None, "2026-12"),
        CapSet("r-1", "data", 0, "2026-12"),
    ],
    "allocation.cap_reached/v1": [CapReached("sales", "voice", "2026-11", 500, 490)],
    "allocation.node_frozen/v1": [NodeFrozen("sales", "a theft"), NodeFrozen("r-1")],
    "allocation.node_thawed/v1": [NodeThawed("sales", "found")],
    "allocation.template_defined/v1": [
        TemplateDefined("Zürich", "data", Rule("per_device", 2_000_000_000, "cost_centre"), "2 GB each"),
        TemplateDefined("five", "voice", Rule("percent", 500)),
    ],
    "allocation.scheduled/v1": [
        AllocationScheduled(
            "weekly",
            (
                Line("allocate", "acme", "emea", "voice", BIG, "", "a note"),
                Line("template", "acme", "five", ""),
                Line("cap", "", "sales", "data"),
            ),
            "week",
            NOON,
            NOON + 1,
            "each Monday",
        )
    ],
    "allocation.schedule_cancelled/v1": [ScheduleCancelled("weekly", "over")],
    "allocation.schedule_carried_out/v1": [ScheduleCarriedOut("weekly", NOON, "2026-11", 3, NOON + 1)],
    "allocation.schedule_skipped/v1": [
        ScheduleSkipped("weekly", NOON, "2026-11", "insufficient_allowance", 2, 0)
    ],
    "usage.suspended/v1": [
        UsageSuspended(
            source="pbx-1",
            record_id="c-9",
            reason="unknown_line",
            field="line",
            detail="nobody has this line: add the resource",
            position="calls.csv:12",
            usage_type="data",
            quantity=2**44,
            started_at=NOON,
            direction="outbound",
            attributes=(("network", "fixed"), ("place", "Köln")),
            sealed=b"sealed",
            subject=bytes(range(16)),
            readable=True,
        )
    ],
    "usage.suspended/v2": [
        UsageSuspended(
            *("pbx-1", "c-9", "unknown_line", "line", "nobody has this line: add the resource"),
            *("calls.csv:12", "data", 2**44, NOON, "outbound", (("network", "fixed"), ("place", "Köln"))),
            *(b"sealed", bytes(range(16)), True, BIG),
        ),
        UsageSuspended(
            *("pbx-1", "raw:1", "malformed", "row", "is no CSV", "", "", 0, 0, "", ()),
            *(b"", b"", False, None),
        ),
    ],
    "usage.recycled/v1": [
        UsageRecycled(bytes(range(12)), "pbx-1", "c-9", "charged", "", "", "", 1, "voice", 5, "line added"),
        UsageRecycled(bytes(12), "pbx-1", "c-9", "rejected", "limit_exceeded", "", "", BIG, ""),
        UsageRecycled(
            bytes(12), "pbx-1", "c-9", "suspended", "no_rate", "counterpart", "publish one", 3, "data", 0, "K"
        ),
    ],
    "usage.amended/v1": [
        UsageAmended(
            *(bytes(range(12)), "pbx-1", "c-9", ("line", "quantity"), "voice", BIG, NOON, "inbound"),
            *((("network", "fixed"), ("place", "Köln")), b"sealed", bytes(range(16)), BIG, "a note"),
        ),
        UsageAmended(b"", "s", "i", ("line",), "data", 0, 0, "outbound", (), b"", b"", None, "x"),
    ],
    "usage.dismissed/v1": [UsageDismissed(bytes(range(12)), "pbx-1", "c-9", "a test call, 東京")],
    "import.begun/v1": [ImportBegun("i-1", "calls.csv", "asterisk-csv", "ab" * 32)],
    "import.finished/v1": [
        ImportFinished(
            *("i-1", "calls.csv", "asterisk-csv", "ab" * 32, 14, 3, 1),
            *((SourceCounts("pbx-1", 10, 4, 3, 2, 1, 1, 5, BIG, 7),), True),
        ),
        ImportFinished("i-2", "stdin", "allotment", "", 0, 0, 0, ()),
    ],
    "usage.duplicates_counted/v1": [DuplicatesCounted("nats", (("pbx-1", 3), ("pbx-2", BIG)), 2, 1)],
    "contract.signed/v4": [
        ContractSigned("frame", 5, "2026-01-01", (Grant("voice", BIG),), True, Terms(expires=True), ""),
    ],
    "contract.signed/v2": [
        ContractSigned(
            "frame",
            3,
            "2026-11-15",
            (Grant("voice", BIG), Grant("money", 5_000_000)),
            overage=True,
            terms=Terms(
                calendar=Calendar("dates", 0, ("2026-11-15", "2026-12-15")),
                ends_on="2026-12-31",
                renews_months=12,
                prorate=True,
                rollover=(RollOverRule("voice", 3, 500), RollOverRule("money", 1, None, 50)),
                rolls_to_enterprise=True,
                settle_after_hours=6,
                commitment=100_000_000,
                overage_prices=(OveragePrice("voice", "0.05", 60),),
            ),
            note="a note",
        ),
        ContractSigned("plain", 1, "2026-01-01", (), overage=False),
    ],
    "contract.period_opened/v2": [
        PeriodOpened(
            *("2026-11-20", 1_795_129_200_000_000, 1_797_289_200_000_000, "frame", 2, True),
            share=(5, 6),
            commitment=83_333_333,
        )
    ],
    "contract.ended/v1": [ContractEnded("frame", "2026-12-31", "a note")],
    "contract.renewed/v1": [ContractRenewed("frame", "", "for good"), ContractRenewed("frame", "2027-12-31")],
    "bucket.granted/v2": [
        Granted("acme", "voice", "2026-11-20", 833, 1000, (5, 6)),
        Granted("acme", "data", "2026-11", BIG),
    ],
    "bucket.topped_up/v1": [ToppedUp("acme", "data", "2026-11", BIG, "for the fair")],
    "bucket.grant_changed/v1": [
        GrantChanged("acme", "voice", "2026-11", "frame", 2, 1000, 2001, (31, 60), 517, "more people"),
        GrantChanged("acme", "data", "2026-11", "frame", 2, BIG, 0, (1, 1), -BIG, ""),
    ],
    "bucket.rolled_over/v1": [
        RolledOver(
            "voice",
            "2026-11",
            "2026-12",
            (RolledBucket(0, 0, ((0, 60), (2, 5)), 10), RolledBucket(4_000_000, 0, ((0, BIG),), 0)),
        ),
        RolledOver("data", "2026-11", "", (RolledBucket(3, 3, (), 7),)),
    ],
    "usage_type.defined/v1": [UsageTypeDefined("iot_event", "message", "sensors")],
    "usage.charged/v2": [
        UsageCharged(
            source="pbx-1",
            record_id="c-7",
            path=(4, 2, 1, 0),
            usage_type="iot_event",
            period="2026-11-15",
            started_at=NOON,
            direction="outbound",
            quantity=61,
            billed=120,
            tariff=1,
            rate=3,
            prefix="",
            zone="any",
            payer="corporate",
            steering="default",
            drawn=((4, 30), (1, 60)),
            overage=30,
            amount=33_333,
            exact=(100_000, 3),
            sealed=b"\x00sealed\xff",
            credit=((2, 30_000), (0, 333)),
        )
    ],
}

REMADE = UsageCharged(
    source="pbx-1",
    record_id="c-7",
    path=(4, 2, 1, 0),
    usage_type="voice",
    period="2026-11",
    started_at=NOON,
    direction="outbound",
    quantity=61,
    billed=120,
    tariff=2,
    rate=3,
    prefix="+49",
    zone="Germany",
    payer="corporate",
    steering="default",
    drawn=((4, 30), (1, 60)),
    overage=30,
    amount=33_333,
    exact=(100_000, 3),
    sealed=b"",
    credit=((2, 30_000),),
)
SCOPE = Scope("pbx-1", "c-7", "emea", "voice", "2026-11", 2, NOON, NOON + 1, in_order=True, guided=True)
WAS = Was(120, 30, 30_000, 1, 2)
SAMPLES |= {
    "rating.started/v1": [
        RatingStarted("fix-4711", SCOPE, "tariff_corrected", "ticket 4711", "ab12"),
        RatingStarted("all", Scope(), "requested", ""),
    ],
    "rating.started/v2": [
        RatingStarted(
            "joined",
            Scope(starts_at=NOON, ends_at=NOON + 1, guided=True, resources=("r-1", "r-2"), anew=True),
            "hierarchy_corrected",
            "came on Monday",
        )
    ],
    "rating.finished/v1": [RatingFinished("fix-4711", BIG, 7, 1, -33_333, 5, stopped=True)],
    "usage.taken_back/v1": [
        UsageTakenBack(
            "fix-4711",
            (TakenBack(812, 77, REMADE),),
            (CapCorrected("voice", "2026-11", 2, -60),),
            (WindowCorrected("money", 2, "last_7_days", NOON, -33_333),),
        ),
        UsageTakenBack("all", ()),
    ],
    "usage.taken_back/v2": [
        UsageTakenBack(
            "fix-4711",
            (TakenBack(812, 77, REMADE),),
            counting=(Counting("minutes", "2026-11", 2), Counting("minutes", "2026-11", 4)),
        ),
    ],
    "usage.rerated/v1": [
        UsageRerated(812, 77, "fix-4711", "tariff_corrected", WAS, REMADE),
        UsageRerated(BIG, 77, "all", "requested", WAS, REMADE, by_zone=True),
    ],
    "plan.corrected/v1": [
        PlanCorrected(
            *("fix-4711", "tariff_corrected", "2026-12", "2026-11", "us volume", 0, 0),
            *(BIG, 1, 3_300_000, 2, 2_200_000),
        ),
        PlanCorrected("all", "requested", "2026-12", "2026-11", "minimum", 7, 2, 0, 0, 0, 2, BIG),
    ],
    "usage.corrected/v1": [
        UsageCorrected(812, 77, "fix-4711", "tariff_corrected", "2026-12", -5, WAS, REMADE, by_zone=True)
    ],
}

RULING = Ruling("night", 3, "overage", 2, "voice", "last_7_days", 80, 400, 64, 30, "0.05", 60)
SAMPLES |= {
    "limit.set/v2": [
        LimitSet(
            "sales",
            "voice",
            BIG,
            (80, 150),
            "2026-11",
            "last_7_days",
            "soft",
            (1, BIG),
            (MayRaise("telecoms_manager", 150), MayRaise("carrier"), MayRaise("owner", 0, 7)),
            "a note",
        ),
        LimitSet("sales", "voice", None, (), "2026-12"),
    ],
    "limit.threshold_crossed/v2": [
        ThresholdCrossed("sales", "voice", "2026-11", 80, 410, 500, "day", "2026-11-15", 0, "night", 3),
        ThresholdCrossed("sales", "voice", "2026-11", 0, 410, 500, "last_24_hours", "2026-11-15T13Z", 400),
    ],
    "limit.raised/v1": [LimitRaised("sales", "voice", "period", BIG, NOON, NOON + 1, "a note")],
    "policy.set/v1": [
        PolicySet(
            "night",
            3,
            NOON,
            "sales",
            "voice",
            "period",
            (
                Step("throttle", 80, kbps=64),
                Step("overage", 0, 90, price="0.05", per=60),
                Step("approval", 100, approvers=("owner",)),
            ),
            Selector(("voice",), ("outbound",), ("sip",), ("guest",), ("EU",), (5, 6), 1200, 360),
            (PrefixGroup("EU", ("+41", "+49")),),
            "a note",
        )
    ],
    "policy.withdrawn/v1": [PolicyWithdrawn("night", 3, NOON, "sales", "a note")],
    "policy.usage_approved/v1": [UsageApproved("night", "sales", NOON, NOON + 1, "a note")],
}
for topic, more in {
    "usage.charged": {"payer": "personal", "ruling": RULING},
    "usage.rejected": {"window": "day", "ruling": RULING},
    "session.reserved": {"payer": "personal", "place": "+49", "ruling": RULING},
    "session.updated": {"ruling": RULING},
    "session.denied": {"window": "week", "ruling": RULING},
}.items():
    version = 3 if topic in ("usage.charged", "session.reserved") else 2
    SAMPLES[f"{topic}/v{version}"] = [
        *SAMPLES[f"{topic}/v1"],
        msgspec.structs.replace(SAMPLES[f"{topic}/v1"][0], **more),
    ]
BASIS = Basis("eu", "night", 5, "12.50")
SAMPLES |= {
    "usage.charged/v4": [
        *SAMPLES["usage.charged/v3"],
        msgspec.structs.replace(SAMPLES["usage.charged/v1"][0], basis=BASIS),
    ],
    "session.reserved/v4": [
        *SAMPLES["session.reserved/v3"],
        msgspec.structs.replace(SAMPLES["session.reserved/v1"][0], prefix="+49", basis=BASIS),
    ],
    "tariff.published/v2": [
        *SAMPLES["tariff.published/v1"],
        TariffPublished(
            "by time and place",
            4,
            NOON,
            "EUR",
            "up",
            3,
            (
                Rate(
                    *("voice", "eu", "0.1", 60, "", "outbound", 60, 60, "0.05", True, "home", "night", True),
                    bands=(Band(180, "0.05", 60, 1, 30),),
                    minimum_charge="0.01",
                    maximum_charge="3",
                    ends=True,
                    percent="2.5",
                    times="participants",
                ),
                Rate("data", "any", "0.01"),
            ),
            (Zone("eu", ("+33", "+39"), ("208", "222-01")), Zone("home", ("+49",))),
            (Window("night", (Span(("mon", "holiday"), 1_320, 360), Span())),),
            ("12-25", "2026-05-14"),
            "Europe/Berlin",
        ),
    ],
}

SAMPLES |= {
    "tariff.published/v3": [
        *SAMPLES["tariff.published/v2"],
        TariffPublished(
            *("standard", 5, NOON, "EUR", "half_up", 4),
            (
                Rate("voice", "satellite", "0", prefix="+882", direction="outbound", blocked=True),
                Rate("voice", "world", "1", prefix="+"),
            ),
        ),
    ],
    "tariff.amended/v1": [
        TariffAmended(
            *("standard", 4, "EUR"),
            Amendment(
                *(3, NOON, (0, 7)),
                (Rate("voice", "Peru", "0.1", 60, direction="outbound", increment=6, minimum=30),),
                ("Chile",),
                (Zone("Peru", ("+51", "+519")),),
            ),
            "the December sheet",
            "5891b5b522d5df08",
        ),
        TariffAmended("standard", 5, "EUR", Amendment(4, NOON)),
    ],
    "tariff.rates_overridden/v1": [
        RatesOverridden(
            *("standard", 6, 5, NOON, "EUR", NOON - 1),
            Overrides(
                (Rate("voice", "UK", "0.01", 60, "+44"),),
                (Discount("voice", 1250, "Peru", "outbound", fees=True), Discount("data", 500)),
                (Zone("friends", ("+4930",)),),
            ),
            "as agreed",
        ),
        RatesOverridden("standard", 7, 5, NOON, "EUR", NOON, Overrides()),
    ],
    "tariff.withdrawn/v1": [TariffWithdrawn(6, "a wrong sheet"), TariffWithdrawn(7)],
}
CONDITIONS = Conditions(60, 1000, 30, "REDIRECT", "https://top-up.example", "12", NOON, (25, 3))
RESERVED = msgspec.structs.replace(
    SAMPLES["session.reserved/v1"][0], session="c-7+2", rating_group=2, of="c-7", conditions=CONDITIONS
)
SAMPLES |= {
    "session.reserved/v5": [*SAMPLES["session.reserved/v4"], RESERVED],
    **{
        f"session.{name}/v3": [
            *SAMPLES[f"session.{name}/v1"],
            msgspec.structs.replace(SAMPLES[f"session.{name}/v1"][0], conditions=CONDITIONS),
        ]
        for name in ("updated", "denied")
    },
}
SAMPLES["session.terms_set/v1"] = [
    SessionTermsSet(
        "sales",
        "data",
        SessionTerms("REDIRECT", "https://top-up.example", "", 10**7, 10**5, 300, 20, 60, True),
        "a note",
    ),
    SessionTermsSet("sales", "", SessionTerms("RESTRICT_ACCESS", "", "portal only")),
    SessionTermsSet("sales", "voice", None),
]
COUNTED = Counted("minutes", 2, 590, 590_000, 30, 33_333)
SAMPLES |= {
    "usage.charged/v5": [
        *SAMPLES["usage.charged/v4"],
        msgspec.structs.replace(SAMPLES["usage.charged/v1"][0], basis=Basis("", "", 1, "", COUNTED)),
    ],
    "session.reserved/v6": [
        *SAMPLES["session.reserved/v5"],
        msgspec.structs.replace(RESERVED, basis=Basis("", "", 1, "", COUNTED)),
    ],
    "tariff.published/v4": [
        *SAMPLES["tariff.published/v3"],
        TariffPublished(
            *("plans", 3, NOON, "EUR", "up", 2),
            rates=(Rate("voice", "any", "0", plan="minutes"), Rate("data", "any", "1", plan="cap")),
            plans=(
                PricePlan("minutes", "volume", (Tier(600, "0.06", 60), Tier(0, "0.03", 60, "1"))),
                PricePlan("pack", "package", (), BIG, 300, "2.50", "node", "cost_centre"),
                PricePlan("cap", "spend", scope="resource", of_kind="sip", cap="9", minimum="1", share="day"),
            ),
            fees=(Fee("Platform", "30.00"), Fee("Channel", "4.90", "channel", "sip", "exact")),
        ),
    ],
    "fee.charged/v1": [FeeCharged("f-1", "Installation", "sales", "2026-11", BIG, "two trunks")],
    "fee.credited/v1": [FeeCredited("f-1", "Installation", "sales", "2026-12", BIG, "a mistake")],
    "resource.channels_set/v1": [ChannelsSet("trunk", 30, NOON, "fair"), ChannelsSet("trunk", 0, NOON + 1)],
}

SAMPLES |= {
    "tariff.amended/v2": [
        *SAMPLES["tariff.amended/v1"],
        TariffAmended(
            *("plans", 6, "EUR"), Amendment(5, NOON, (0,), (Rate("voice", "any", "0", plan="minutes"),))
        ),
    ],
    "tariff.rates_overridden/v2": [
        *SAMPLES["tariff.rates_overridden/v1"],
        RatesOverridden(
            *("plans", 8, 7, NOON, "EUR", NOON),
            Overrides((Rate("voice", "UK", "0", prefix="+44", plan="minutes"),)),
        ),
    ],
}

SAMPLES |= {
    "usage.rejected/v3": [
        *SAMPLES["usage.rejected/v2"],
        msgspec.structs.replace(
            SAMPLES["usage.rejected/v1"][0], attributes=(("network", "fixed"), ("place", "Köln"))
        ),
    ],
    "usage.recycled/v2": [
        *SAMPLES["usage.recycled/v1"],
        msgspec.structs.replace(SAMPLES["usage.recycled/v1"][0], late=True),
    ],
    "usage.dismissed/v2": [
        *SAMPLES["usage.dismissed/v1"],
        UsageDismissed(bytes(12), "pbx-1", "c-9", "x", BIG, "carrier:u-1"),
        UsageDismissed(bytes(12), "pbx-1", "c-9", "x", 0, "", "carrier:u-1", NOON),
    ],
    "usage.dismissal_asked/v1": [
        UsageDismissalAsked(bytes(range(12)), "pbx-1", "c-9", BIG, "carrier:u-1", "a test call, 東京"),
        UsageDismissalAsked(bytes(12), "pbx-1", "c-9", None, "carrier:u-1", "x"),
    ],
    "usage.kept/v1": [
        UsageKept(bytes(range(12)), "pbx-1", "c-9", "the customer pays"),
        UsageKept(b"", "s", "i", ""),
    ],
    "suspense.late_rule_set/v1": [LateRuleSet("", 720, "section 4"), LateRuleSet("pbx-1", None, "")],
    "suspense.dismissal_rule_set/v1": [DismissalRuleSet(BIG, "section 5"), DismissalRuleSet(None, "")],
    "import.refused/v1": [
        ImportRefused(
            *("i-3", "calls.csv", "asterisk-csv", "ab" * 32, "the compressed data is damaged after row 9"),
            (SourceCounts("pbx-1", 10, 4, 3, 2, 1, 1, 5, BIG, 7),),
        ),
        ImportRefused("i-4", "stdin", "allotment", "", "is not JSON", ()),
    ],
}

SWITCHES = (Switch(7 * 10**6, NOON, 2, 1), Switch(BIG, NOON + 10**9, 1, 4))
BY_REPORTS = Rate("data", "any", "0.01", per=10**6, window="night", by_reports=True)
SAMPLES |= {
    "usage.charged/v6": [
        *SAMPLES["usage.charged/v5"],
        msgspec.structs.replace(SAMPLES["usage.charged/v1"][0], basis=Basis(switches=SWITCHES)),
    ],
    "session.reserved/v7": [
        *SAMPLES["session.reserved/v6"],
        msgspec.structs.replace(RESERVED, basis=Basis(window="night")),
    ],
    **{
        f"session.{name}/v4": [
            *SAMPLES[f"session.{name}/v3"],
            msgspec.structs.replace(SAMPLES[f"session.{name}/v1"][0], switches=SWITCHES),
            msgspec.structs.replace(SAMPLES[f"session.{name}/v1"][0], switches=()),
        ]
        for name in ("updated", "denied")
    },
    "tariff.published/v5": [
        *SAMPLES["tariff.published/v4"],
        TariffPublished(
            *("by reports", 5, NOON, "EUR", "half_up", 4),
            rates=(Rate("data", "any", "0.02", per=10**6, by_reports=True), BY_REPORTS),
            windows=(Window("night", (Span((), 1_320, 360),)),),
            time_zone="Europe/Berlin",
        ),
    ],
    "tariff.amended/v3": [
        *SAMPLES["tariff.amended/v2"],
        TariffAmended(*("by reports", 7, "EUR"), Amendment(5, NOON, (0,), (BY_REPORTS,))),
    ],
    "tariff.rates_overridden/v3": [
        *SAMPLES["tariff.rates_overridden/v2"],
        RatesOverridden(*("by reports", 9, 5, NOON, "EUR", NOON), Overrides((BY_REPORTS,))),
    ],
}

FIGURES = {
    "amount": 850_000,
    "counts": {"charged": 5, "rejected": 1, "suspended": 2},
    "voice 2026-11": {
        "granted": 600,
        "remaining": {},
        "consumed": {"r-1": 30, "emea": 150, "acme": 405, "apac": 15},
        "used": {"acme": 660, "emea": 410, "sales": 410, "apac": 250, "r-1": 410, "r-2": 250},
    },
    "voice 2026-10": {
        "granted": 600,
        "remaining": {"acme": 540},
        "consumed": {"acme": 60},
        "used": {"acme": 60, "emea": 60, "sales": 60, "r-1": 60},
    },
    "messaging 2026-11": {
        "granted": 0,
        "remaining": {},
        "consumed": {},
        "used": {"acme": 3, "apac": 3, "r-2": 3},
    },
    "money 2026-11": {
        "granted": 0,
        "remaining": {},
        "consumed": {},
        "used": {"acme": 850_000, "apac": 850_000, "r-2": 850_000},
    },
}
"""Worked out by hand, not by the rules: see README.md."""


def plain(value: Any) -> Any:
    """As JSON has it; bytes in hex, structs by their fields' names."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, msgspec.Struct):
        return {name: plain(told) for name, told in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple | list):
        return [plain(told) for told in value]
    return value


def sample(event: Event) -> dict[str, Any]:
    return {"state": encode(event, ACTOR, DIGEST).hex(), "event": plain(event)}


def golden_log() -> dict[str, Any]:
    log = MemoryLog()
    for number, events in enumerate(play()):
        group = Group(TENANT, log.claim(), DECIDED_AT + number)
        for place, event in enumerate(events):
            key = None if place else sha256(f"command {number}".encode()).digest()[:16]
            group.add(event.topic, encode(event, ACTOR, DIGEST), key)
        log.append(group)
    rows = [
        {name: told.hex() if isinstance(told, bytes) else told for name, told in row._asdict().items()}
        for row in log.read()
    ]
    root = proof.root_of(log.head().peaks).hex()
    return {"tenant": str(TENANT), "root": root, "figures": FIGURES, "rows": rows}


def state_of(path: Path) -> str:
    tenant = Tenant()
    for row in msgspec.json.decode(path.read_bytes())["rows"]:
        tenant.apply(decode(row["topic"], bytes.fromhex(row["state"])).event)
    return sha256(b"".join(lines(tenant))).hexdigest()


def write_new(path: Path, content: dict[str, Any]) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    with CHECKSUMS.open("a", encoding="utf-8") as checksums:
        digest = sha256(path.read_bytes()).hexdigest()
        checksums.write(f"{digest}  {path.relative_to(HERE).as_posix()}\n")


def main() -> None:
    for name, events in SAMPLES.items():
        content: dict[str, Any] = {"topic": events[0].topic, "actor": ACTOR, "digest": DIGEST.hex()}
        content["samples"] = [sample(event) for event in events]
        write_new(HERE / "events" / f"{name}.json", content)
    if not (HERE / "logs" / "month.json").exists():
        write_new(HERE / "logs" / "month.json", golden_log())
    for path in (HERE / "logs").glob("*.json"):
        path.with_suffix(".state").write_text(state_of(path) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
