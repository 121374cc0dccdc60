"""Windows under usage, sessions, limits and raises in any order, beside a naive model.

The model remembers every use and adds up windows by asking the calendar for the day, week or hour
of each; it knows nothing of bins that are kept, marks or ceilings. The stored events alone, and a
snapshot taken anywhere, lead to the same bytes.
"""

import random
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from allotment.domain import canonical, snapshot
from allotment.domain.charging import ChargeUsage, UsageCharged, UsageRejected
from allotment.domain.contract import OpenPeriod
from allotment.domain.events import decode, encode
from allotment.domain.limit import SetAnyLimit, ThresholdCrossed
from allotment.domain.raising import RaiseLimit
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3_600_000_000
NAMES = ("acme", "emea", "sales", "apac", "r-1", "r-2")
PATHS = {"r-1": ("r-1", "sales", "emea", "acme"), "r-2": ("r-2", "apac", "acme")}
WINDOWS = ("period", "day", "week", "last_2_days", "last_5_days", "last_3_hours", "last_30_hours")


def named(window, at):
    """The windows of this kind that a moment is in, by what they begin and end with."""
    local = datetime.fromtimestamp(at // 1_000_000, BERLIN)
    if window == "period":
        return [local.strftime("%Y-%m")]
    if window == "day":
        return [local.date()]
    if window == "week":
        return [local.date() - timedelta(days=local.weekday())]
    number, unit = int(window.split("_")[1]), window.split("_")[2]
    last = local.date() if unit == "days" else at // HOUR
    step = timedelta(days=1) if unit == "days" else 1
    return [last + step * ahead for ahead in range(number)]


class Model:
    def __init__(self):
        self.limits = {}  # (node, type, window) -> [quantity, thresholds, kind, raises, set at which use]
        self.months = {}  # (node, type, "period") -> [(from which month, limit or None)]
        self.uses = []  # (path, type, at, quantity)
        self.fired = set()

    def count(self, node, usage_type, window, name, since):
        first = 0 if window == "period" else since
        return sum(
            quantity
            for path, kind, at, quantity in self.uses[first:]
            if kind == usage_type and node in path and name in named(window, at)
        )

    def fullest(self, node, usage_type, window, at):
        since = self.limit((node, usage_type, window), at)[4]
        return max(self.count(node, usage_type, window, name, since) for name in named(window, at))

    def limit(self, key, at):
        """Limits per period hold from a month on; the others from when they are set."""
        if key[2] != "period":
            return self.limits.get(key)
        (month,) = named("period", at)
        begun = [limit for since, limit in self.months.get(key, ()) if since <= month]
        return begun[-1] if begun else None

    def quantity(self, key, at):
        quantity, _, _, raises, _ = self.limit(key, at)
        return max([quantity, *(to for to, since, until in raises if since <= at < until)])

    def on(self, path, usage_type, at):
        keys = (key for key in (*self.limits, *self.months) if key[0] in path and key[1] == usage_type)
        return [key for key in keys if self.limit(key, at) is not None]

    def stops(self, path, usage_type, at, quantity):
        return [
            (self.quantity(key, at) - self.fullest(*key, at), key)
            for key in self.on(path, usage_type, at)
            if self.limit(key, at)[2] == "hard" and quantity + self.fullest(*key, at) > self.quantity(key, at)
        ]


class Chance:
    def __init__(self, company, seed, now):
        self.company, self.chance, self.now = company, random.Random(seed), now
        self.model, self.records, self.kinds = Model(), 0, {}
        company.do(OpenPeriod("2026-10"), now)

    def moment(self):
        """Mostly now; at times late, up to a few weeks, over the change of the clocks and the month."""
        late = self.chance.choice([0, 0, 1, 5, 30, 24, 48, 24 * 7, 24 * 20, 24 * 24])
        return self.now - late * HOUR + self.chance.randrange(HOUR)

    def step(self):
        self.now += self.chance.choice([0, 1, 3, 30]) * HOUR
        act = self.chance.choices((self.use, self.limit, self.raise_, self.session), (12, 3, 1, 2))[0]
        act()
        self.company.tenant.check_whole()
        self.check_counts()

    def limit(self):
        node, window = self.chance.choice(NAMES), self.chance.choice(WINDOWS)
        kind = self.chance.choice(["hard", "hard", "soft"])
        thresholds = self.chance.choice([(), (50,), (80, 100)])
        quantity = self.chance.choice([None, 0, 50, 200, 1000])
        command = SetAnyLimit(node, "voice", quantity, thresholds, "", window, kind)
        events = self.company.do(command, self.now)
        key, model = (node, "voice", window), self.model
        if window == "period":
            limit = None if quantity is None else [quantity, thresholds, kind, [], 0]
            model.months.setdefault(key, []).append((*named(window, self.now), limit))
            return
        before = model.limits.pop(key, None)
        if quantity is None:
            return
        since = before[4] if before is not None else len(model.uses)
        model.limits[key] = [quantity, thresholds, kind, [], since]
        assert [event.percent for event in events[1:]] == sorted(event.percent for event in events[1:])

    def raise_(self):
        keys = [*self.model.limits, *self.model.months]
        if not keys:
            return
        node, usage_type, window = key = self.chance.choice(keys)
        command = RaiseLimit(node, usage_type, self.now + 40 * HOUR, None, 70, window)
        if self.model.limit(key, self.now) is None:
            assert self.company.ask(command, self.now) == "no_limit"
            return
        events = self.company.do(command, self.now)
        raised = events[0]
        self.model.limit(key, self.now)[3].append((raised.quantity, raised.since, raised.until))

    def use(self):
        line, quantity, at = (
            self.chance.choice(["r-1", "r-2"]),
            self.chance.choice([1, 10, 49, 120]),
            self.moment(),
        )
        stops = self.model.stops(PATHS[line], "voice", at, quantity)
        room = [limit[0] - limit_used for limit, limit_used in self.rooms(line, at)]
        if room and self.chance.random() < 0.4:
            quantity = max(1, self.chance.choice(room) + self.chance.choice([-1, 0, 0, 1]))
            stops = self.model.stops(PATHS[line], "voice", at, quantity)
        self.records += 1
        record = UsageRecord("s", str(self.records), line, "voice", quantity, at, "outbound", "+12125550100")
        told, *crossings = self.company.do(ChargeUsage(record, line.encode(), b""), self.now)
        if stops:
            assert isinstance(told, UsageRejected)
            ids = [member.id for member in self.company.tenant.hierarchy.members]
            assert told.limit - told.used == min(stops)[0]
            assert (ids[told.stopped_by], "voice", told.window) in {key for _, key in stops}
            return
        assert isinstance(told, UsageCharged)
        self.expect_crossings(PATHS[line], at, quantity, crossings)
        self.model.uses.append((PATHS[line], "voice", at, quantity))

    def rooms(self, line, at):
        for key in self.model.on(PATHS[line], "voice", at):
            yield self.model.limit(key, at), self.model.fullest(*key, at)

    def expect_crossings(self, path, at, quantity, crossings):
        """Each threshold that is told was reached by this use, and was not told in any window of it."""
        seen = set()
        for crossing in crossings:
            key = (crossing.node, "voice", crossing.window)
            before = self.model.fullest(*key, at)
            reached = max(1, -(-crossing.limit * crossing.percent // 100))
            assert crossing.used == before + quantity >= reached
            assert crossing.limit == self.model.quantity(key, at)
            told = (
                *key,
                self.generation(key),
                crossing.limit,
                crossing.percent,
                crossing.of or crossing.period,
            )
            assert told not in self.model.fired | seen
            seen.add(told)
        self.model.fired |= seen
        for key in self.model.on(path, "voice", at):
            before, limit = self.model.fullest(*key, at), self.model.quantity(key, at)
            for percent in self.model.limit(key, at)[1]:
                reached = max(1, -(-limit * percent // 100))
                if before < reached <= before + quantity:
                    names = {str(name) for name in self.labels(key[2], at)}
                    assert any(
                        one[:3] == key and one[4:6] == (limit, percent) and one[6] in names
                        for one in self.model.fired
                    )

    def generation(self, key):
        """How often the limit was set to something else."""
        sets = [
            e
            for e in self.company.history
            if e.topic == "limit.set" and (e.node, e.usage_type, e.window) == key
        ]
        changes = [(e.quantity, e.thresholds, e.quantities) for e in sets]
        return sum(one != other for one, other in zip(changes, [None, *changes], strict=False))

    def labels(self, window, at):
        calendar = self.company.tenant.limits.calendar
        if window == "period":
            return [datetime.fromtimestamp(at // 1_000_000, BERLIN).strftime("%Y-%m")]
        unit = {"day": "day", "week": "week"}.get(window) or window.rsplit("_", 1)[1].removesuffix("s")
        number = calendar.bin_of(unit, at)
        count = int(window.split("_")[1]) if window.startswith("last_") else 1
        return [calendar.label(unit, number + ahead) for ahead in range(count)]

    def session(self):
        """A call, authorised in slices and ended: it never uses more than its limits leave it."""
        line, at = self.chance.choice(["r-1", "r-2"]), self.now
        self.records += 1
        name = str(self.records)
        record = UsageRecord(
            "s", name, line, "voice", self.chance.choice([0, 60]), at, "outbound", "+12125550100"
        )
        told = self.company.do(ReserveUnits(record, 1, line.encode(), b""), self.now)[0]
        if told.topic == "session.denied":
            assert self.model.stops(PATHS[line], "voice", at, 1)
            return
        assert not self.model.stops(PATHS[line], "voice", at, told.granted)
        used = told.granted
        told = self.company.do(UpdateSession("s", name, 2, Report(used), 30), self.now)[0]
        used += told.granted if told.topic == "session.updated" else 0
        # What was held may have reached thresholds; they are told once, by whichever event.
        charged = self.company.do(ReleaseSession("s", name, 3, Report(total=used)), self.now)
        billed = next(event.billed for event in charged if isinstance(event, UsageCharged))
        assert billed == used
        self.model.uses.append((PATHS[line], "voice", at, billed))
        for event in self.company.history:
            if isinstance(event, ThresholdCrossed):
                key = (event.node, "voice", event.window)
                about = (event.limit, event.percent, event.of or event.period)
                self.model.fired.add((*key, self.generation(key), *about))

    def check_counts(self):
        tenant, model = self.company.tenant, self.model
        by_id = tenant.hierarchy.by_id
        for (node, usage_type, window), limit in model.limits.items():
            gauge = tenant.limits.gauges[usage_type][by_id[node].ordinal][window]
            used = sum(quantity for path, _, _, quantity in model.uses[limit[4] :] if node in path)
            assert sum(gauge.bins.values()) == used
            assert gauge.fullest(tenant.limits.calendar.bin_of(gauge.window.unit, self.now))[
                0
            ] == model.fullest(node, usage_type, window, self.now)


def by_replay(history):
    folded = Tenant()
    for event in history:
        folded.apply(decode(event.topic, encode(event, "a", b"12345678")).event)
    return folded


def by_snapshot(tenant):
    counters = snapshot.encode_counters(snapshot.copy_counters(tenant))
    return snapshot.restore(counters, snapshot.encode_structure(tenant))


@pytest.mark.parametrize("seed", range(5))
def test_windows_count_stop_and_tell_as_the_naive_model_says(company, seed, at):
    chance = Chance(company(), seed, at("2026-11-02 00:00"))
    for _ in range(60):
        chance.step()
    tenant, history = chance.company.tenant, chance.company.history
    expected = [*canonical.lines(tenant)]
    assert [*canonical.lines(by_replay(history))] == expected
    restored = by_snapshot(tenant)
    assert [*canonical.lines(restored)] == expected
    for key, family in tenant.families.items():
        for other in (restored, by_replay(history)):
            assert (other.families[key].mark, other.families[key].ceiling) == (family.mark, family.ceiling)
    for usage_type, by_ordinal in tenant.limits.gauges.items():
        for ordinal, gauges in by_ordinal.items():
            for window, gauge in gauges.items():
                for other in (restored, by_replay(history)):
                    twin = other.limits.gauges[usage_type][ordinal][window]
                    assert all(getattr(twin, name) == getattr(gauge, name) for name in gauge.__slots__)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 300))
def test_so_they_do_for_longer(company, seed, at):
    test_windows_count_stop_and_tell_as_the_naive_model_says(company, seed, at)
