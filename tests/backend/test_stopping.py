"""Signals come once, twice, and at the worst moment: what is put away is put away whole."""

import asyncio
import os
import signal
import threading

import pytest

from allotment.backend.stopping import SIGNALS, complete, restore_signals, undisturbed


@pytest.fixture(autouse=True)
def signals():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    restore_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_either_signal_ends_the_work_which_is_put_away(number):
    put_away = []

    async def work():
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(60)
        finally:
            put_away.append(number)

    with pytest.raises(KeyboardInterrupt):
        complete(work())
    assert put_away == [number]


def test_signals_are_never_left_to_the_system_while_the_loop_closes(monkeypatch):
    close, found = asyncio.Runner.close, set()

    def watched(runner):
        close(runner)
        found.update(signal.getsignal(number) for number in SIGNALS)

    monkeypatch.setattr(asyncio.Runner, "close", watched)
    complete(asyncio.sleep(0))
    assert found
    assert signal.SIG_DFL not in found


def test_signals_wait_until_the_block_has_ended():
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (what is asked is how far it comes)
        with undisturbed():
            for number in (*SIGNALS, *SIGNALS):
                os.kill(os.getpid(), number)
            done.append("block")
        done.append("after")
    assert done == ["block"]


def test_after_the_block_signals_do_what_they_did_before():
    with undisturbed():
        pass
    assert {signal.getsignal(number) for number in SIGNALS} == {signal.default_int_handler}


def test_what_went_wrong_in_the_block_is_told_when_nobody_stopped_it():
    with pytest.raises(OSError, match="disk"), undisturbed():
        raise OSError("disk")


def test_in_other_threads_which_no_signal_disturbs_the_block_just_runs():
    done = []

    def work():
        with undisturbed():
            done.append("block")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["block"]
