"""Stopping: Ctrl-C and SIGTERM end the work, and everything open is closed on the way out."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

R = TypeVar("R")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASK_AGAIN_SECONDS = 1.0


def complete(work: Coroutine[Any, Any, R]) -> R:
    """Run to the end. SIGTERM does what Ctrl-C does: everything open is closed on the way out."""

    async def interruptible() -> R:
        task = asyncio.current_task()
        assert task is not None
        told = []

        def stop() -> None:
            told.append(True)
            task.cancel()

        _on_signals(stop)
        try:
            return await work
        except asyncio.CancelledError:
            if told:
                raise KeyboardInterrupt from None
            raise

    try:
        return asyncio.run(interruptible())
    finally:
        restore_signals()


async def until_told() -> signal.Signals:
    """Wait for Ctrl-C or SIGTERM; which of them came first."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()

    def tell(number: signal.Signals) -> None:
        if not told.done():
            told.set_result(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, tell, number)
    return await told


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended, whatever with.

    Asked again until they do: on Python 3.11 `wait_for` may swallow a cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=ASK_AGAIN_SECONDS)
        await asyncio.gather(*done, return_exceptions=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Both signals wait until the block has ended: for putting away what must not be left behind.

    They often come twice: from `timeout`, which tells the process and then its group, and from whoever
    presses Ctrl-C again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals disturb the main thread alone
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda told, _: waiting.append(told))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def restore_signals() -> None:
    """Outside an event loop both signals raise KeyboardInterrupt, so that `with` blocks end well."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


def _on_signals(act: Callable[[], object]) -> None:
    """SIGTERM comes as Ctrl-C: as its own, the loop would leave it to the system when it closes.

    That ends the process on the spot, and what surrounds the loop is not put away.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, act)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
