"""Who is told: a real HTTP receiver, a real mail server, and an enterprise whose limits are crossed."""

import email
import email.policy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from aiosmtpd.controller import Controller
from fixtures_database import Enterprise
from patience import PATIENCE_SECONDS, free_port
from standardwebhooks import Webhook

from allotment.backend.notifying import matching
from allotment.backend.notifying.notifying import Notifying
from allotment.backend.settings import MailServer, Settings
from allotment.domain.limit import SetLimit
from allotment.domain.notice import CreateWebhook, Filter, SetRecipient
from allotment.tenants.address_book import AddressBook, open_book
from allotment.tenants.isolation import Isolation
from allotment.tenants.sealing import RootKey, create_tenant_key

ROOT = RootKey(b"r" * 32)


class Receiver:
    """What came over HTTP, in order. `answers` are given in turn, the last one again and again."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.at: list[float] = []
        self.answers: list[int] = [204]
        self.seconds = 0.0
        self.open = threading.Event()
        """While not set, nothing is answered."""
        self.open.set()
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    # Whoever sent it was killed half way: nothing has come.
                    self.close_connection = True
                    return
                receiver.at.append(time.time())
                receiver.came.append(({name.lower(): told for name, told in self.headers.items()}, body))
                time.sleep(receiver.seconds)
                receiver.open.wait(PATIENCE_SECONDS)
                answer = receiver.answers[0] if len(receiver.answers) == 1 else receiver.answers.pop(0)
                self.send_response(answer)
                for name, told in receiver.headers.items():
                    self.send_header(name, told)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Those who were killed reset their connections.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=s3cret"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.came]

    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for _, body in self.came]

    def verified(self, secret: str) -> int:
        """How many there were; raises for one that was not signed with this secret."""
        for headers, body in self.came:
            Webhook(secret).verify(body, headers)
        return len(self.came)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Letters:
    """A mail server that keeps what comes. `refusing` is what it says instead."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.refusing = ""
        port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=port)
        self.controller.start()
        self.server = MailServer("127.0.0.1", port, "none", "bss@carrier.example")

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, _: Any
    ) -> str:
        if self.refusing:
            return self.refusing
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802

        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.came.append((envelope.rcpt_tos, message))
        return "250 OK"

    def close(self) -> None:
        self.controller.stop()


class Told(Enterprise):
    """An enterprise with addresses, whose sales has used this much of a limit of 100 minutes."""

    def furnished(self) -> "Told":
        with self.isolation.transaction(self.tenant) as db:
            create_tenant_key(db, ROOT, self.tenant)
        self.book: AddressBook = open_book(self.isolation, ROOT, self.tenant)
        self.opened()
        self.do(SetLimit("sales", "voice", 6_000, tuple(range(10, 101, 10))))
        self.commit()
        return self

    def webhook(self, url: str, ident: str = "w", node: str = "acme", **wants: Any) -> str:
        """Its secret."""
        with self.isolation.transaction(self.tenant) as db:
            ref = self.book.keep(db, url)
            matching.follow_from_now_on(db)
        name = f"secret of {ident}".encode()
        assert self.do(CreateWebhook(ident, "http://127.0.0.1", ref, name, Filter(node, **wants)))
        self.commit()
        return self.book.secret(name)

    def recipient(self, address: str, ident: str = "r", node: str = "acme", **more: Any) -> None:
        with self.isolation.transaction(self.tenant) as db:
            ref = self.book.keep(db, address)
            matching.follow_from_now_on(db)
        wants = Filter(node, **more.pop("wants", {}))
        assert self.do(SetRecipient(ident, "telecoms manager", ref, wants, **more))
        self.commit()

    def cross(self, times: int = 1) -> int:
        """Use a tenth of the limit of sales, so often; the end of the log."""
        for _ in range(times):
            self.use("r1", "voice", 600)
        return self.commit()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def letters() -> Iterator[Letters]:
    opened = Letters()
    yield opened
    opened.close()


@pytest.fixture
def told(isolation) -> Told:
    return Told(isolation).furnished()


def settings(**changes: Any) -> Settings:
    made = Settings.from_env(
        {"ALLOTMENT_HOME": "/tmp/allotment-unused", "ALLOTMENT_WEBHOOK_PRIVATE": "allowed"}
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def notifying(isolation) -> Callable[..., Any]:
    """Sends notices while the block lasts; `disabled` is what it orders."""

    @asynccontextmanager
    async def opened(*, via: Isolation | None = None, nats: Any = None, **options: Any) -> Any:
        told: list[Any] = []

        async def disable(tenant: Any, command: Any, key: str) -> None:
            told.append(command)

        given = {name: options.pop(name) for name in ("clock", "claim_seconds") if name in options}
        made = Notifying(
            via or isolation, ROOT, settings(**options), disable, nats=nats, look_seconds=0.1, **given
        )
        async with made:
            made.disabled = told  # type: ignore[attr-defined]
            yield made

    return opened
