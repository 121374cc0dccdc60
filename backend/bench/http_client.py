"""Who sends usage over HTTP in the benchmark: a process of its own, as whoever sends usage has one.

Its requests are made beforehand, and it does as little as a sender can: a thread for each connection that
writes a request, waits for the answer, and sees that every record was charged. So it takes next to
nothing of the machine that it shares with what is measured.
"""

import socket
import sys
import threading
import time
from collections import deque

import msgspec
from msgspec import Struct

_HEAD_BYTES_MAX = 65_536
_END = b"\r\n\r\n"


class Sending(Struct):
    """What is sent, over so many connections at once."""

    port: int
    connections: int
    requests: list[bytes]


class Sent(Struct):
    """How long it took until all were answered; and of the sender's own processor time."""

    seconds: float
    cpu_seconds: float


class Answer(Struct):
    """What of an answer is looked at."""

    received: int
    charged: int


class NotCharged(Exception):
    """An answer that says something else than that every record was charged."""


_answer = msgspec.json.Decoder(Answer).decode


def main() -> None:
    """The requests from stdin; "ready" once connected; at a line of any kind all are sent."""
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    sending = msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=Sending)
    connections = [socket.create_connection(("127.0.0.1", sending.port)) for _ in range(sending.connections)]
    _say(b"ready")
    sys.stdin.buffer.readline()
    sent = send(connections, sending.requests)
    _say(msgspec.json.encode(sent))


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def send(connections: list[socket.socket], requests: list[bytes]) -> Sent:
    todo, problems = deque(requests), list[Exception]()
    threads = [threading.Thread(target=_caller, args=(one, todo, problems)) for one in connections]
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = Sent(time.perf_counter() - began, time.process_time() - cpu)
    if problems:
        raise problems[0]
    return taken


def _caller(connection: socket.socket, todo: deque[bytes], problems: list[Exception]) -> None:
    try:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                connection.sendall(todo.popleft())
                _check(_answered(connection))
    except IndexError:
        """All is sent."""
    except Exception as error:  # noqa: BLE001  (told by whoever waits for the threads)
        problems.append(error)


def _answered(connection: socket.socket) -> bytes:
    """The next answer; the product tells how long it is."""
    told = b""
    while _END not in told:
        piece = connection.recv(_HEAD_BYTES_MAX)
        if not piece:
            raise NotCharged(f"the connection was closed after {told[:200]!r}")
        told += piece
    head, _, body = told.partition(_END)
    size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < size:
        body += connection.recv(_HEAD_BYTES_MAX)
    if b" 200" not in head.split(b"\r\n", 1)[0]:
        raise NotCharged(f"{head.splitlines()[0]!r}: {body[:300]!r}")
    return body


def _check(body: bytes) -> None:
    answer = _answer(body)
    if answer.charged != answer.received or not answer.received:
        raise NotCharged(body[:300].decode())
