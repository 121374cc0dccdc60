"""Deciding: from what callers ask to the events of a group, against one tenant's state in memory.

A slice is worked off in stages, each a short loop over all of it: know it (is it a duplicate),
seal it, decide and apply it, encode and hash it. Nothing here waits, and nothing here is
answered: answers are given by the writer, after the commit.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec
import structlog

from ..domain.bucket import Allocate, Return, Trade
from ..domain.charging import (
    CONFLICTING,
    ChargeUsage,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
)
from ..domain.contract import OpenPeriod, PeriodNotOpen
from ..domain.events import encode
from ..domain.receiving import ReceivingCommand
from ..domain.refusals import InvariantBroken, Refused
from ..domain.rerated import RatingCommand, RerateCharges, UsageCorrected, UsageRerated
from ..domain.session import ExpireSession, ReleaseSession, ReserveUnits, SessionCommand, UpdateSession
from ..domain.snapshot import COUNTED
from ..domain.suspense import RecycleUsage
from ..domain.tenant import Command, Event, Tenant
from ..domain.trading import TradingCommand
from ..domain.usage import UnreadableRecord, Usage, UsageRecord, pack_personal
from ..domain.writing_off import DismissUsage, KeepUsage
from ..tenants.lines import Unsealed
from ..tenants.sealing import DIGEST_BYTES, Sealer
from .asking import Answer, Order, Outcome, Repeated, Slice, UsageOutcome, content_of
from .authorising import (
    AskUnits,
    StartSession,
    charged_later,
    key_sealed_for,
    record_of,
    records_of,
    resealed,
    session_of,
)
from .correcting import AmendRecord, InClear, RecycleRecord
from .intake.gate import checked
from .keys import (
    NO_DAY,
    TIME_BYTES,
    conflict_key,
    period_key,
    recycled_identity,
    recycled_key,
    replacing_identity,
    replacing_key,
    time_of,
    undated_usage_key,
    usage_identity,
    usage_key,
    usage_keys,
)
from .log import Group, Head, Log, reachable, recorded
from .native import using
from .plain_run import Fresh, PlainRun, half_applied
from .seen import SeenKeys, status_of
from .snapshots import Snapshots, load, snapshots_of
from .stops import stop_told
from .suspending import conflicting, suspend, unexpected

log = structlog.get_logger()

OF_ALL = ("charged_already", "session_exists")
"""What is wrong with a whole request, when its first group is refused for it."""

DUPLICATE = UsageOutcome("duplicate")
CONTRADICTED_BEFORE = UsageOutcome("duplicate", CONFLICTING[0], 0, CONFLICTING[2])
"""Came before, contradicted another already then, and waits in suspense."""
COUNTING = (
    *(Allocate, Return, Trade, StartSession, AskUnits, UpdateSession, ReleaseSession, ExpireSession),
    *get_args(TradingCommand),
    *get_args(RatingCommand),
    *(*get_args(InClear), DismissUsage, KeepUsage, *get_args(ReceivingCommand)),
)
"""Commands that change counters, and never the structure that a snapshot keeps apart."""


class Decider:
    """A tenant's state, which keys it has seen, and its keys: what the writer holds in memory."""

    def __init__(self, state: Tenant, seen: SeenKeys, sealer: Sealer, head: Head, recorded_at: int) -> None:
        self.state = state
        self.seen = seen
        self.sealer = sealer
        self.head = head
        self.recorded_at = recorded_at
        self.snapshots: Snapshots | None = None
        self.restructured = 0
        """Grows before the members, contracts, tariffs or limits may change."""
        self.at_rest = True
        """Whether the state is the fold of the log up to `standing`: not where deciding has failed."""
        self._group: Group | None = None
        self._fresh = Fresh()
        self._first_seq = 0
        """Of the slice being decided."""
        self._sealing: Any = None
        """What native code keeps of the sealer."""

    @classmethod
    def load(cls, store: Log, load_sealer: Callable[[], Sealer]) -> "Decider":
        """Take the log over and fold it. Blocks."""
        head = store.claim()
        with reachable():
            sealer = load_sealer()
        folded = load(store, head, SeenKeys)
        decider = cls(folded.state, folded.seen, sealer, head, folded.recorded_at)
        decider.snapshots = snapshots_of(store)
        if decider.snapshots is not None:
            decider.snapshots.serve(decider, folded.snapshot)
        return decider

    @property
    def standing(self) -> Head:
        """The end of the log as decided: what the state is the fold of."""
        group = self._group
        return Head(group.last, group.epoch, group.peaks) if group is not None else self.head

    def decide(self, slice: Slice, group: Group, now: int) -> list[Outcome]:
        """Decide in order, add the events to the group; an outcome for each."""
        self.at_rest = False
        self._group = group
        self._first_seq = group.last + 1
        slice.charge_also(self._charged_silently(slice))
        outcomes = self._decide_all(slice, self._prepare(slice), now)
        self._write(group)
        self.seen.settle()
        self.at_rest = True
        return outcomes

    def _decide_all(self, slice: Slice, prepared: "using.Ready", now: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        run = PlainRun(self.state.plain, prepared, slice.actors, now, self._fresh, self._first_seq)
        while True:
            run.charge(outcomes)
            if len(outcomes) == len(slice.items):
                break
            outcomes.append(self._decide_unusual(slice, len(outcomes), now))
        self.seen.add_all(run.keys, run.digests, _CHARGED)
        return outcomes

    # --- what may have been seen long ago ---------------------------------------------------

    def to_look_up(self, slice: Slice) -> list[bytes]:
        """The keys the log must be asked for before these can be decided.

        Also something to ask for when a snapshot is due: while `look_up` runs the state stands still.
        """
        keys: list[bytes] = []
        if self.seen.forgotten:
            slice.charge_also(self._charged_silently(slice))
            held, doubtful = self.seen.sort_out(slice.hashes + slice.charged_by_commands)
            slice.are_new = not (held or doubtful)
            for dated in doubtful:
                keys += self.seen.candidates(dated)
            keys += self._conflicts_to_look_up(slice, held)
        return keys or ([_NO_KEY] if self._snapshot_is_due() else [])

    def _charged_silently(self, slice: Slice) -> list[bytes]:
        """The identities of records that requests may charge without naming them."""
        if not slice.charged_by_commands:
            return []
        asked = [item.command for item in slice.items if isinstance(item, Order)]
        return [usage_identity(*one) for command in asked for one in charged_later(command, self.state)]

    def _conflicts_to_look_up(self, slice: Slice, held: Sequence[int]) -> list[bytes]:
        """The keys under which records are kept that contradict one which is known."""
        conflicts: list[bytes] = []
        for place in held:
            if place >= len(slice.items):
                break
            item, ident = slice.items[place], slice.hashes[place]
            if not isinstance(item, Order):
                known, digest = self.seen.recall(ident), self.sealer.digest(content_of(item))
                if known is not None and _digest(known) != digest:
                    conflicts.append(conflict_key(item.source, item.record_id, digest)[TIME_BYTES:])
        return [NO_DAY + dated for dated in self.seen.sort_out(conflicts)[1]]

    def look_up(self, store: Log, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, bytes]]:
        """Key, digest and status of those the log has. Blocks."""
        if self.snapshots is not None and self._snapshot_is_due():
            self.snapshots.take()
        if keys == [_NO_KEY]:
            return []
        found = [recorded(row) for row in store.find(keys)]
        return [(told.command_key or b"", told.digest, status_of(told.topic)) for told in found]

    def _snapshot_is_due(self) -> bool:
        return self.snapshots is not None and self.at_rest and self.snapshots.is_due(self.standing.seq)

    # --- the stages -------------------------------------------------------------------------

    def _prepare(self, slice: Slice) -> "using.Ready":
        """What every record that may be plain is charged with; None for the rest."""
        native, items, repeated = using.native(), slice.items, slice.repeated
        if native is not None:
            newest, sealer = ({}, {}) if slice.are_new else self.seen.newest, self.sealer
            if self._sealing is None:
                self._sealing = native.sealing(*sealer.parts)
            nonces = sealer.nonces(len(items))
            ready = native.prepare(items, slice.hashes, repeated, *newest, self._sealing, nonces)
            if ready is not None:
                return ready
        return self._prepare_all(slice, repeated)

    def _prepare_all(self, slice: Slice, repeated: set[bytes]) -> "list[using.Prepared | None]":
        hashes, items, sealer, recall = slice.hashes, slice.items, self.sealer, self.seen.recall
        # For a duplicate, mostly, nothing is sealed, so no key is made for who was erased.
        places = [
            place
            for place, (item, ident) in enumerate(zip(items, hashes, strict=True))
            if type(item) is UsageRecord and ident not in repeated and recall(ident) is None
        ]
        records = [items[place] for place in places]
        digests = [sealer.digest(content_of(record)) for record in records]
        keys = [
            time_of(record.started_at) + hashes[place] for place, record in zip(places, records, strict=True)
        ]
        plains = [pack_personal(record) for record in records]
        tokens, sealed = sealer.seal_lines([record.line for record in records], plains, keys)
        ready = zip(records, keys, digests, tokens, sealed, strict=True)
        prepared: list[using.Prepared | None] = [None] * len(items)
        for place, one in zip(places, ready, strict=True):
            prepared[place] = one
        return prepared

    def _decide_unusual(self, slice: Slice, place: int, now: int) -> Outcome:
        """A command; a record seen before, that mediation refused, or that is not plainly charged."""
        item, actor, before = slice.items[place], slice.actors[place], slice.before[place]
        if isinstance(item, Order):
            return self._decide_order(item, actor, now, before)
        asked = self._asked_of(item, slice.hashes[place], slice.position(place))
        if isinstance(asked, UsageOutcome):
            return _answered_before(before) or asked
        events = self._charge(item, *asked, actor, now)
        told, seq = events[0], self._first_seq + len(self._fresh) - len(events)
        if type(told) is UsageRejected:
            return UsageOutcome("rejected", told.reason, seq, stop_told(told, self.state))
        if type(told) is UsageSuspended:
            return UsageOutcome("suspended", told.reason, seq, told.detail, told.value or 0, told.field)
        return UsageOutcome("charged", "", seq, "", told.amount if type(told) is UsageCharged else 0)

    def _asked_of(
        self, item: Usage, ident: bytes, position: str = ""
    ) -> tuple[Command, bytes, bytes] | UsageOutcome:
        """What the rules are asked about a record, with its key and digest; or that it came before."""
        sealer = self.sealer
        digest, known = sealer.digest(content_of(item)), self.seen.recall(ident)
        if known is not None:
            if _digest(known) == digest:
                return DUPLICATE
            key = conflict_key(item.source, item.record_id, digest)
            if self.seen.recall(key[TIME_BYTES:]) is not None:
                return CONTRADICTED_BEFORE
            return conflicting(item, key, sealer), key, digest
        if type(item) is UsageRecord:
            key = time_of(item.started_at) + ident
            token = sealer.token(item.line)
            sealed = sealer.seal(token, pack_personal(item), key)
            return ChargeUsage(item, token, sealed, position), key, digest
        assert isinstance(item, UnreadableRecord)
        key = undated_usage_key(item.source, item.record_id)
        return suspend(item, key, sealer), key, digest

    def _charge(
        self, item: Usage, command: Command, key: bytes, digest: bytes, actor: str, now: int
    ) -> Sequence[Event]:
        try:
            events = self._events_of(command, now, actor)
            self._take(_under(key, events), digest, actor)
        except InvariantBroken:
            raise
        except Exception:
            # Deciding changes nothing, so one record we have no rule for stops nobody else.
            log.exception("a record could not be decided")
            events = self.state.decide(unexpected(item, key, self.sealer), now)
            self._take(_under(key, events), digest, actor)
        return events

    def _decide_order(self, order: Order, actor: str, now: int, before: Any) -> Answer | Repeated | Refused:
        self.state.tariffs.prepared = order.ready.versions if order.ready is not None else None
        try:
            return self._carried_out(order, actor, now, before)
        except InvariantBroken:
            raise
        except Exception:
            # As of a record: a command we have no rule for stops nobody else.
            log.exception("a command could not be decided")
            return Refused("internal_error", remedy="it is in the server's log; nothing has changed")
        finally:
            self.state.tariffs.prepared = None

    def _carried_out(self, order: Order, actor: str, now: int, before: Any) -> Answer | Repeated | Refused:
        if order.dry:
            return self._try(order, actor, now)
        known = self.seen.recall(order.key[TIME_BYTES:])
        digest = self.sealer.digest(content_of(order))
        if known is not None:
            if _digest(known) != digest:
                return Refused("idempotency_mismatch", remedy="use a new key for another command")
            if isinstance(before, Answer):
                return before
            # Stored under the time of then.
            return Repeated(known[:TIME_BYTES] + order.key[TIME_BYTES:])
        if not _is_counting(type(order.command)):
            self.restructured += 1
        if isinstance(order.command, AskUnits):
            return self._decide_request(order.command, order.key, digest, actor, now)
        try:
            command = self._sealed(order.command)
            keyed = self._keyed(command, self._events_of(command, now, actor), order.key, digest)
        except Refused as refusal:
            return refusal
        following = digest
        if isinstance(order.command, RecycleRecord):
            following = self.sealer.digest(content_of(order.command.record))
        first = self._take(keyed, digest, actor, following)
        return Answer(tuple(event for event, _ in keyed), first, first + len(keyed) - 1)

    def _decide_request(
        self, asked: AskUnits, key: bytes, digest: bytes, actor: str, now: int
    ) -> Answer | Refused:
        """Step by step; the first event of the first step that is not refused has the request's key."""
        first, events, refusals = 0, list[Event](), list[Refused]()
        try:
            steps = asked.steps(self.state, self.sealer, usage_keys, now)
        except Refused as refusal:
            return refusal
        ungranted = [
            (record, self._asked_of(record, usage_identity(record.source, record.record_id)))
            for record in asked.ungranted(self.state, self.sealer, usage_keys, now)
        ]
        for step in steps:
            try:
                command = self._sealed(step)
                under = None if events else key
                keyed = self._keyed(command, self._events_of(command, now, actor), under, digest)
                seq = self._take(keyed, digest, actor)
            except Refused as refusal:
                if not events and refusal.code in OF_ALL:
                    return refusal
                refusals.append(refusal)
                continue
            except InvariantBroken:
                raise
            except Exception:
                log.exception("a step of a request could not be decided")
                refusals.append(Refused("internal_error", remedy="it is in the server's log"))
                continue
            first = first or seq
            events += [event for event, _ in keyed]
        begun = bool(events)
        for record, found in ungranted:
            if not isinstance(found, UsageOutcome):
                events += self._charge(record, *found, actor, now)
        if not begun:
            return refusals[0]
        return Answer(tuple(events), first, self._first_seq + len(self._fresh) - 1)

    def _try(self, order: Order, actor: str, now: int) -> Answer | Refused:
        """What a command would lead to. Deciding changes nothing, so nothing has to be taken back."""
        assert not isinstance(order.command, AskUnits), "nobody tries what is asked of a session"
        try:
            with self.sealer.for_nothing():
                events = self.state.decide(self._sealed(order.command), now, actor)
                return Answer(tuple(events), 0, 0, dry=True)
        except Refused as refusal:
            return refusal
        except PeriodNotOpen as needed:
            return Refused(
                "period_not_open", period=needed.period, remedy="it opens with the first use, or on its day"
            )
        except InvariantBroken:
            raise
        except Exception:
            log.exception("a command could not be tried")
            return Refused("internal_error", remedy="it is in the server's log; nothing has changed")

    def _sealed(self, command: Command | Unsealed | StartSession | InClear) -> Command:
        """With its personal part sealed; refuses a session whose record was charged before."""
        if isinstance(command, Unsealed):
            return command.sealed_by(self.sealer)
        if isinstance(command, RerateCharges):
            return self._still_held(command)
        if isinstance(command, AmendRecord):
            _check_gate(command.record)
            return command.sealed_by(self.sealer)
        if isinstance(command, RecycleRecord):
            record = command.record
            _check_gate(record)
            key = self._recycled_key(record.source, record.record_id, record.started_at)
            taken = self._is_taken(record.source, record.record_id)
            return command.sealed_by(self.sealer, key, taken=taken)
        if not isinstance(command, StartSession | UpdateSession | ReleaseSession):
            return command
        if isinstance(command, StartSession):
            record = command.record
            key = usage_key(record.source, record.record_id, record.started_at)
            if self.seen.recall(key[TIME_BYTES:]) is not None:
                raise Refused("charged_already", session=record.record_id)
            return command.sealed_by(self.sealer, key)
        session = session_of(command, self.state)
        if session is None:
            return command
        own, late = (usage_keys(*record, session.started_at) for record in records_of(command))
        return resealed(command, self.state, self.sealer, own, late[0])

    def _still_held(self, command: RerateCharges) -> RerateCharges:
        """Without the charges that others were made in place of: each is replaced once, whoever asks."""
        held = [one for one in command.charges if self.seen.recall(replacing_identity(one.seq)) is None]
        return msgspec.structs.replace(command, charges=tuple(held))

    def _is_taken(self, source: str, record_id: str) -> bool:
        """Whether a record of this identity was charged or rejected, at once or out of suspense."""
        known = self.seen.recall(usage_identity(source, record_id))
        if known is not None and known[TIME_BYTES + DIGEST_BYTES :] != _SUSPENDED:
            return True
        return self.seen.recall(recycled_identity(source, record_id)) is not None

    def _recycled_key(self, source: str, record_id: str, started_at: int) -> bytes:
        """The record's own, where it was given its id only since: so it is known when it comes again."""
        if self.seen.recall(usage_identity(source, record_id)) is None:
            return usage_key(source, record_id, started_at)
        return recycled_key(source, record_id, started_at)

    def _recycled_key_of(self, event: Event) -> bytes | None:
        """The charge or rejection of a record that waited has a key of its own: it is found, and is one."""
        if isinstance(event, UsageCharged | UsageRejected):
            return self._recycled_key(event.source, event.record_id, event.started_at)
        return None

    def _keyed(
        self, command: Command, events: Sequence[Event], key: bytes | None, digest: bytes
    ) -> list[tuple[Event, bytes | None]]:
        """Each event with its key: a session's charge has that of its record, and is charged once."""
        keyed: list[tuple[Event, bytes | None]] = [(events[0], key)]
        if isinstance(command, RecycleUsage):
            return [*keyed, *((event, self._recycled_key_of(event)) for event in events[1:])]
        for event in events[1:]:
            if isinstance(event, UsageRerated | UsageCorrected):
                keyed.append((event, replacing_key(event.seq, event.charge.started_at)))
                continue
            if not isinstance(event, UsageCharged):
                keyed.append((event, None))
                continue
            own = self._key_of_session(command, event)
            if self.seen.recall(own[TIME_BYTES:]) is not None:
                return [*keyed, self._charged_before(command, event, own, digest)]
            keyed.append((event, own))
        return keyed

    def _key_of_session(self, command: Command, charge: UsageCharged) -> bytes:
        """Under which its charge is stored: the one that its personal part was sealed for when it began."""
        keys = usage_keys(charge.source, charge.record_id, charge.started_at)
        session = session_of(command, self.state) if isinstance(command, SessionCommand) else None
        return (
            keys[0] if session is None else key_sealed_for(self.sealer, session.subject, charge.sealed, keys)
        )

    def _charged_before(
        self, command: Command, charge: UsageCharged, own: bytes, digest: bytes
    ) -> tuple[Event, bytes]:
        """A session's charge, to be looked at by a person: its record came by another door as well."""
        assert isinstance(command, ReserveUnits | UpdateSession | ReleaseSession | ExpireSession)
        session = session_of(command, self.state)
        assert session is not None
        key = conflict_key(charge.source, charge.record_id, digest)
        conflict = conflicting(record_of(charge, session, self.sealer, own), key, self.sealer)
        return self.state.decide(conflict, 0)[0], key

    def _events_of(self, command: Command, now: int, actor: str) -> Sequence[Event]:
        """What follows from a command; the periods that it needs are opened before, each once."""
        while True:
            try:
                return self.state.decide(command, now, actor)
            except PeriodNotOpen as needed:
                opening = self.state.decide(OpenPeriod(needed.period), now)
                if any(event.topic not in COUNTED for event in opening):
                    self.restructured += 1
                self._take(_under(period_key(needed.period), opening), bytes(DIGEST_BYTES), actor)

    def _take(
        self,
        keyed: Sequence[tuple[Event, bytes | None]],
        digest: bytes,
        actor: str,
        following: bytes | None = None,
    ) -> int:
        """Apply events, and take them into the group being written, each with its key; the first one's seq.

        The digest is of what the first rests on; `following` of what the others do, where that differs. What
        cannot be written changes nothing; what cannot be applied leaves no state to go on with.
        """
        first = self._first_seq + len(self._fresh)
        digests = [digest] + [following or digest] * (len(keyed) - 1)
        states = [encode(event, actor, one) for (event, _), one in zip(keyed, digests, strict=True)]
        try:
            for event, _ in keyed:
                self.state.apply(event)
        except InvariantBroken:
            raise
        except Exception as error:
            raise half_applied(error) from error
        for (event, key), one, state in zip(keyed, digests, states, strict=True):
            if key is not None:
                self.seen.add(key, one, status_of(event.topic))
            self._fresh.add(event.topic, state, key)
        return first

    def _write(self, group: Group) -> None:
        """Hash what was decided."""
        fresh, self._fresh = self._fresh, Fresh()
        group.add_all(fresh.topics, fresh.states, fresh.keys)


@functools.cache
def _is_counting(kind: type) -> bool:
    """Known once for each type: there are many, and to go through them takes longer than to set a limit."""
    return issubclass(kind, COUNTING)


def _under(key: bytes, events: Sequence[Event]) -> list[tuple[Event, bytes | None]]:
    """The first event under its command's key, those that follow from it under none."""
    return [(events[0], key), *((event, None) for event in events[1:])]


def _answered_before(before: Any) -> UsageOutcome | None:
    """What was decided before its commit went unheard, if that was stored after all."""
    return before if before is not None and before.status != "duplicate" else None


def _check_gate(record: UsageRecord) -> None:
    """Refuses what could not have come in as it is."""
    found = checked(record)
    if isinstance(found, UnreadableRecord):
        raise Refused("bad_record", field=found.field, record=record.record_id, remedy=found.detail)


_NO_KEY = b""
_CHARGED = status_of(UsageCharged.topic)
_SUSPENDED = status_of(UsageSuspended.topic)


def _digest(known: bytes) -> bytes:
    return known[TIME_BYTES : TIME_BYTES + DIGEST_BYTES]


using.set_up(UsageOutcome)
charged_by = using.told
"""Whether in native code, in a sentence: known once it is set up."""
