"""A proxy between a client and PostgreSQL that can swallow the answer to a COMMIT.

What the server did is done; the client never hears of it, and its connection is cut.
"""

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The server's CommandComplete message for a COMMIT."""


class Proxy:
    """Use it as a context manager; `url` leads through it. In front of a server on a socket in a folder."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        options = parse_qs(parts.query)
        self._server = str(Path(options["host"][0], f".s.PGSQL.{options['port'][0]}"))
        self._database = parts.path.removeprefix("/")
        self._user = parts.username
        self._to_swallow = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.swallowed = 0
        self.refusing = False
        """While set, new connections are closed at once."""

    def __enter__(self) -> "Proxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = (
            f"postgresql://{self._user}@127.0.0.1:{port}/{self._database}?sslmode=disable&gssencmode=disable"
        )
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        _cut(self._listener)
        accepting, *carrying = self._threads
        accepting.join(5)
        self.cut()
        for thread in (*carrying, *self._threads):
            thread.join(5)

    def swallow(self, answers: int = 1) -> None:
        """Swallow the answers to the next so many COMMITs, and cut their connections."""
        with self._lock:
            self._to_swallow += answers

    def cut(self) -> None:
        """Cut every connection there is."""
        for end in list(self._sockets):
            _cut(end)

    def _start(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                _cut(client)
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._sockets += [client, server]
            self._start(self._carry, client, server, False)
            self._start(self._carry, server, client, True)

    def _carry(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                if answers and COMMITTED in piece and self._is_to_be_swallowed():
                    break
                target.sendall(piece)
        _cut(source)
        _cut(target)

    def _is_to_be_swallowed(self) -> bool:
        with self._lock:
            if not self._to_swallow:
                return False
            self._to_swallow -= 1
            self.swallowed += 1
            return True


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
