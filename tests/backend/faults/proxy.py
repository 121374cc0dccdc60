"""A proxy between a client and PostgreSQL that can swallow the answer to a COMMIT, or fall silent.

What the server did is done; the client never hears of it, and its connection is cut. Where it falls
silent the connection is not cut: what either end says is taken, and the other never hears it.
"""

import contextlib
import socket
import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The server's CommandComplete message for a COMMIT."""


class Silence(NamedTuple):
    """Where a connection falls silent: at what a client says, of which so much still gets through."""

    at: bytes
    share: float = 0.0


class Carried:
    """A client's connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.silent = False


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
        self._carried: list[Carried] = []
        self._threads: list[threading.Thread] = []
        self._silences: list[Silence] = []
        self.swallowed = 0
        self.silenced = 0
        """How many connections fell silent at what was said."""
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
        for pair in list(self._carried):
            _cut(pair.client)
            _cut(pair.server)

    def silence_at(self, at: bytes, share: float = 0.0, times: int = 1) -> None:
        """Let the next connections on which a client says this fall silent, for as long as they last."""
        with self._lock:
            self._silences += [Silence(at, share)] * times

    def silence_all(self) -> None:
        """Let every connection there is fall silent; new ones are carried as before."""
        for pair in list(self._carried):
            pair.silent = True

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
            pair = Carried(client, server)
            self._carried.append(pair)
            self._start(self._carry_questions, pair)
            self._start(self._carry_answers, pair)

    def _carry_questions(self, pair: Carried) -> None:
        with contextlib.suppress(OSError):
            while piece := pair.client.recv(65_536):
                if not pair.silent:
                    pair.server.sendall(self._let_through(pair, piece))
        self._end(pair)

    def _carry_answers(self, pair: Carried) -> None:
        with contextlib.suppress(OSError):
            while piece := pair.server.recv(65_536):
                if COMMITTED in piece and self._is_to_be_swallowed():
                    break
                if not pair.silent:
                    pair.client.sendall(piece)
        self._end(pair)

    def _end(self, pair: Carried) -> None:
        """An end has gone. The other hears of it, unless the connection is silent."""
        if not pair.silent:
            _cut(pair.client)
            _cut(pair.server)

    def _let_through(self, pair: Carried, piece: bytes) -> bytes:
        """Of what a client says: all of it, unless the connection falls silent with it."""
        with self._lock:
            for silence in self._silences:
                if silence.at in piece:
                    self._silences.remove(silence)
                    pair.silent = True
                    self.silenced += 1
                    return piece[: int(len(piece) * silence.share)]
        return piece

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
