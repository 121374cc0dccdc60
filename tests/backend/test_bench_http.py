"""The benchmark's sender: it believes no answer but that everything was charged."""

import socket
import threading

import pytest

from allotment.backend.bench.http_client import NotCharged, send

CHARGED = b'{"received":2,"charged":2}'


def sent(status: bytes, body: bytes):
    """What two requests over one connection come to, where each is answered like this."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening, status, body), daemon=True).start()
        return send([socket.create_connection(listening.getsockname())], [b"request\n"] * 2)


def answer(listening, status, body):
    connection, _ = listening.accept()
    with connection:
        while connection.recv(100):
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
            connection.sendall(body)


def test_it_tells_how_long_it_took():
    taken = sent(b"200 OK", CHARGED)
    assert 0 < taken.cpu_seconds < 60
    assert 0 < taken.seconds < 60


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"200 OK", b'{"received":2,"charged":1}'),
        (b"200 OK", b'{"received":0,"charged":0}'),
        (b"429 Too Many Requests", CHARGED),
    ],
)
def test_whatever_was_not_charged_is_told(status, body):
    with pytest.raises(NotCharged):
        sent(status, body)
