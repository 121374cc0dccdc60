"""Sealing: opened by the right keys in the right place only, and erased for good."""

import asyncio
from uuid import uuid4

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from fixtures_writer import ROOT, Store, Through, call, charge, furnish, statuses, tenant_with_key, unreadable
from patience import until_there

from allotment.backend.keys import usage_key
from allotment.backend.log import Fenced, Group, recorded
from allotment.domain.charging import UsageCharged
from allotment.tenants.sealing import (
    CIPHERS_MAX,
    RootKey,
    Sealer,
    WrongRootKey,
    create_tenant_key,
    erase,
    load_sealer,
)

TENANT = uuid4()
KEY = b"k" * 32


def sealer(tenant=TENANT, key=KEY, wrapped=None):
    return Sealer(tenant, key, wrapped)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_root_key_has_its_length(length):
    with pytest.raises(ValueError, match=f"{length} bytes, it needs 32"):
        RootKey(b"x" * length)


def test_the_wrong_root_key_says_what_to_do(isolation):
    tenant = tenant_with_key(isolation)
    with pytest.raises(WrongRootKey, match="ALLOTMENT_ROOT_KEY"):
        load_sealer(isolation, RootKey(b"w" * 32), tenant)


def test_a_tenants_key_opens_for_no_other_tenant():
    wrapped = ROOT.wrap(KEY, TENANT)
    assert ROOT.unwrap(wrapped, TENANT) == KEY
    with pytest.raises(WrongRootKey):
        ROOT.unwrap(wrapped, uuid4())


def test_a_tenant_without_a_key_was_not_onboarded(isolation):
    with pytest.raises(LookupError, match="not onboarded"):
        load_sealer(isolation, ROOT, uuid4())


def test_a_tenants_key_is_made_once(isolation):
    tenant = tenant_with_key(isolation)
    before = load_sealer(isolation, ROOT, tenant).token("+441")
    with isolation.transaction(tenant) as connection:
        create_tenant_key(connection, ROOT, tenant)
    assert load_sealer(isolation, ROOT, tenant).token("+441") == before


def test_what_was_sealed_opens_again():
    one = sealer()
    sealed = one.seal(b"alice", b"+44 20 7183 8750", b"context")
    assert b"7183" not in sealed
    assert one.open(b"alice", sealed, b"context") == b"+44 20 7183 8750"
    assert sealer(wrapped=one.take_unsaved()).open(b"alice", sealed, b"context") == b"+44 20 7183 8750"


def test_sealed_text_opens_nowhere_else():
    one = sealer()
    sealed = one.seal(b"alice", b"+441", b"context")
    keys = one.take_unsaved()
    one.seal(b"bob", b"+442", b"context")
    assert one.open(b"alice", sealed, b"another context") is None
    assert one.open(b"bob", sealed, b"context") is None
    elsewhere = sealer(tenant=uuid4(), wrapped=dict(keys))
    with pytest.raises(InvalidTag):
        elsewhere.open(b"alice", sealed, b"context")


@pytest.mark.parametrize("place", [0, 11, 12, -1])
def test_sealed_text_that_was_changed_does_not_open(place):
    one = sealer()
    sealed = bytearray(one.seal(b"alice", b"+441", b"context"))
    sealed[place] ^= 1
    assert one.open(b"alice", bytes(sealed), b"context") is None


def test_a_subject_without_a_key_opens_to_nothing():
    assert sealer().open(b"nobody", bytes(40), b"context") is None


def test_tokens_are_the_same_for_a_line_and_differ_between_tenants_and_lines():
    assert sealer().token("+441") == sealer().token("+441")
    tokens = {sealer(key=bytes([number]) * 32).token("+441") for number in range(20)}
    assert len(tokens | {sealer().token("+441"), sealer().token("+442")}) == 22
    assert all(len(token) == 16 for token in tokens)


def test_no_nonce_is_used_twice():
    one, many = sealer(), 1_500
    sealed = {one.seal(b"alice", b"the same", b"context")[:12] for _ in range(many)}
    _, at_once = one.seal_lines(["alice"] * many, [b"the same"] * many, [b"context"] * many)
    assert len(sealed | {each[:12] for each in at_once}) == 2 * many


def test_what_is_sealed_at_once_opens_one_by_one():
    one, lines, contexts = sealer(), ["+441", "alice", "+441"], [b"1", b"2", b"3"]
    tokens, sealed = one.seal_lines(lines, [b"a", b"b", b"c"], contexts)
    assert tokens == [one.token(line) for line in lines]
    opened = [one.open(*each) for each in zip(tokens, sealed, contexts, strict=True)]
    assert opened == [b"a", b"b", b"c"]


def test_sealing_remembers_no_more_than_it_may(monkeypatch):
    monkeypatch.setattr("allotment.tenants.sealing.CIPHERS_MAX", 10)
    one = sealer()
    sealed = [one.seal(one.token(f"+44{i}"), b"x", b"c") for i in range(35)]
    for i in range(35):
        one.seal_lines([f"+44{i}"], [b"x"], [b"c"])
    assert len(one._ciphers) <= 10
    assert len(one._tokens) <= 10
    assert [one.open(one.token(f"+44{i}"), sealed[i], b"c") for i in range(35)] == [b"x"] * 35
    assert CIPHERS_MAX > 10


def test_new_keys_are_handed_over_once():
    one = sealer()
    one.seal(b"alice", b"x", b"c")
    one.seal(b"alice", b"y", b"c")
    assert list(one.take_unsaved()) == [b"alice"]
    assert one.take_unsaved() == {}


# --- with a log ----------------------------------------------------------------------------------


def opened_call(store, charged, keys=None):
    """Line and other party of a charge, as a reader with the keys stored now sees them."""
    keys = keys or store.load_sealer()
    key = usage_key(charged.source, charged.record_id, charged.started_at)
    for number in range(40):
        plain = keys.open(keys.token(f"+44{number}"), charged.sealed, key)
        if plain is not None:
            return msgspec.msgpack.decode(plain)
    return None


def test_every_stored_record_can_be_opened_with_the_keys_that_are_stored(postgres):
    async def work():
        log = Through(postgres.log)
        async with postgres.opened(log) as writer:
            await furnish(writer)
            log.fates += ["lost", "unheard", "kept", "fenced", "lost"]
            for batch in range(8):
                await charge(writer, *(call(f"{batch}-{i}", i) for i in range(10)))

    asyncio.run(work())
    charges = postgres.charges()
    assert len(charges) == 80
    assert all(opened_call(postgres, charged) for charged in charges)


def test_neither_lines_nor_raw_records_stand_in_the_log(postgres):
    async def work():
        async with postgres.opened() as writer:
            await furnish(writer)
            await charge(writer, call(1), call(2, 77), unreadable(3, raw="+442071838750 garbled"))
            await charge(writer, call(1, seconds=99))

    asyncio.run(work())
    for row in postgres.rows():
        for secret in (b"+440", b"+4477", b"+442071838750", b"garbled"):
            assert secret not in row.state


def test_who_was_erased_can_never_be_read_again_and_owes_the_same(postgres):
    async def work():
        async with postgres.opened() as writer:
            await furnish(writer)
            await charge(writer, call(1, 0), call(2, 1))

    asyncio.run(work())
    before = postgres.charges()
    token = postgres.load_sealer().token("+440")
    assert erase(postgres.isolation, postgres.tenant, [token]) == 1
    assert erase(postgres.isolation, postgres.tenant, [token]) == 0
    assert postgres.charges() == before
    first, second = (opened_call(postgres, charged) for charged in before)
    assert first is None
    assert second == ["+441", "+442071838750"]


def test_erasing_reaches_no_other_tenant(isolation):
    one, other = Store(isolation), Store(isolation)
    for store in (one, other):
        group = Group(store.tenant, store.log.claim(), 1)
        group.add("a.topic", b"", None)
        group.subject_keys = {b"alice": b"wrapped"}
        store.log.append(group)
    assert erase(isolation, one.tenant, [b"alice"]) == 1
    with isolation.transaction(other.tenant) as connection:
        assert connection.execute("SELECT count(*) FROM subject_keys").fetchone() == (1,)


def test_who_comes_back_after_a_restart_gets_a_new_key_that_opens_nothing_old(postgres):
    async def work(number):
        async with postgres.opened() as writer:
            if number == 1:
                await furnish(writer)
            await charge(writer, call(number, 0))

    asyncio.run(work(1))
    erase(postgres.isolation, postgres.tenant, [postgres.load_sealer().token("+440")])
    asyncio.run(work(2))
    first, second = (opened_call(postgres, charged) for charged in postgres.charges())
    assert first is None
    assert second == ["+440", "+442071838750"]


def test_who_comes_back_while_the_writer_runs_gets_a_new_key_too(postgres):
    async def work():
        async with postgres.opened() as writer:
            await furnish(writer)
            await charge(writer, call(1, 0))
            erase(postgres.isolation, postgres.tenant, [postgres.load_sealer().token("+440")])
            await charge(writer, call(2, 0))

    asyncio.run(work())
    assert opened_call(postgres, postgres.charges()[1]) == ["+440", "+442071838750"]


def test_two_writers_that_make_keys_for_the_same_line_store_one_and_use_it(postgres):
    """The second takes over while the first has a group with a new key on its way."""

    async def work():
        slow = Through(postgres.log)
        async with postgres.opened(slow) as first:
            await furnish(first)
            slow.open.clear()
            held = asyncio.ensure_future(charge(first, call(1, 30)))
            await until_there(lambda: first._flying)
            async with postgres.opened() as second:
                assert statuses(await charge(second, call(2, 30))) == ["suspended"]
                slow.open.set()
                assert statuses(await held) == ["suspended"]

    asyncio.run(work())
    events = [(row, recorded(row).event) for row in postgres.rows() if row.topic == "usage.suspended"]
    keys = postgres.load_sealer()
    opened = [
        msgspec.msgpack.decode(keys.open(keys.token("+4430"), event.sealed, row.command_key))
        for row, event in events
    ]
    assert [line for line, _ in opened] == ["+4430", "+4430"]


@pytest.mark.parametrize("copying", [True, False])
def test_a_record_is_never_stored_without_the_key_it_was_sealed_with(postgres, copying):
    postgres.isolation._may_copy = copying
    one, other = postgres.load_sealer(), postgres.load_sealer()
    head = postgres.log.claim()
    groups = []
    for made_by in (one, other):
        group = Group(postgres.tenant, head, 1)
        sealed = made_by.seal(b"alice".ljust(16), b"+4430", b"context")
        group.add("usage.suspended", sealed, None)
        group.subject_keys = made_by.take_unsaved()
        groups.append(group)
    postgres.log.append(groups[0])
    # Even if nothing else told the two apart: the key is another one, so nothing is stored.
    groups[1].seen = 1
    with pytest.raises(Fenced):
        postgres.log.append(groups[1])
    [row] = postgres.rows()
    assert postgres.load_sealer().open(b"alice".ljust(16), row.state, b"context") == b"+4430"


def test_what_is_charged_does_not_depend_on_what_is_sealed():
    personal = {"sealed"}
    in_clear = set(UsageCharged.__struct_fields__) - personal
    assert {"amount", "billed", "exact", "prefix", "zone", "drawn", "tariff", "rate"} <= in_clear


def test_what_is_sealed_for_nothing_leaves_no_key():
    one = sealer()
    one.seal(b"alice", b"kept", b"context")
    with one.for_nothing():
        tried = one.seal(b"bob", b"tried", b"context")
        one.seal(b"alice", b"tried", b"context")
    assert list(one.take_unsaved()) == [b"alice"]
    assert one.open(b"bob", tried, b"context") is None
