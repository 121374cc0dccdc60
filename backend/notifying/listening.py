"""Listening: a small receiver of webhooks on this machine, for who tries them out and for the demonstration.

Whatever is not signed with one of its secrets is answered with 401 and given to nobody.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Signer
from standardwebhooks import WebhookVerificationError

BODY_BYTES_MAX = 256 * 1024
POLL_SECONDS = 0.05

Came = Callable[[bool, Mapping[str, str], bytes], None]
"""Called for each request, in its own thread: whether it was signed, its headers in lower case, its body."""


@contextmanager
def receiving(secrets: Sequence[str], came: Came, port: int = 0) -> Iterator[str]:
    """The address where requests are received, while the block lasts. Secrets may be added meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _receiver(secrets, came))
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, daemon=True, name="receiver"
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_signed(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        Signer(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError, UnicodeDecodeError):
        return False
    return True


def _receiver(secrets: Sequence[str], came: Came) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > BODY_BYTES_MAX:
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): told for name, told in self.headers.items()}
            verified = any(is_signed(secret, body, headers) for secret in secrets)
            came(verified, headers, body)
            self._answer(204 if verified else 401)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Whoever listens says what came; nothing else is said."""

    return Receiver
