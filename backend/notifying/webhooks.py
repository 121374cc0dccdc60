"""Webhooks: one signed request to a program, by Standard Webhooks, and what came of it.

The connection goes to the address that was checked; redirects are not followed, answers are hardly read,
and nothing may take long.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import httpx2
from msgspec import Struct
from standardwebhooks import Webhook as Signer

from .guarding import Target, Unreachable, resolved, target_of
from .telling import CLOUD_EVENT

CONNECT_SECONDS_MAX = 3.0
ATTEMPT_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 16 * 1024
CONNECTIONS_MAX = 256
GONE = 410
RETRY_AFTER_SECONDS_MAX = 86_400


class Tried(Struct, frozen=True):
    """What came of an attempt."""

    ok: bool
    detail: str
    took_ms: int
    gone: bool = False
    wait_seconds: int = 0
    """How long the receiver asks us to wait."""


class WebhookClient:
    """Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        *,
        private: bool = False,
        seconds: float = ATTEMPT_SECONDS_MAX,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._private = private
        self._seconds = seconds
        self._client = httpx2.AsyncClient(
            # What the environment says of proxies is not for addresses that others chose.
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS_MAX),
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=64),
            verify=trust or ssl.create_default_context(),
        )

    async def __aenter__(self) -> "WebhookClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def post(self, url: str, secrets: Sequence[str], ident: str, body: bytes) -> Tried:
        """Raises nothing: whatever happens is told."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                target = target_of(url, private=self._private)
                address = await resolved(target, private=self._private)
                return await self._send(target, address, signed(secrets, ident, body), body, began)
        except TimeoutError:
            return Tried(False, f"no answer in {self._seconds:g} s", _ms(began))
        except Unreachable as error:
            return Tried(False, f"{error.code}: {error}", _ms(began))
        except (httpx2.HTTPError, OSError, ssl.SSLError) as error:
            return Tried(False, _told(error), _ms(began))

    async def _send(
        self, target: Target, address: str, headers: dict[str, str], body: bytes, began: float
    ) -> Tried:
        request = self._client.build_request(
            "POST",
            _at(target, address),
            content=body,
            headers={**headers, "Host": target.origin.partition("://")[2]},
            extensions={"sni_hostname": target.host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            await _skip(answer)
        finally:
            await answer.aclose()
        return Tried(
            answer.is_success,
            str(answer.status_code),
            _ms(began),
            gone=answer.status_code == GONE,
            wait_seconds=_wait(answer.headers.get("retry-after", "")),
        )


def signed(secrets: Sequence[str], ident: str, body: bytes, now: datetime | None = None) -> dict[str, str]:
    """The headers of a delivery: signed with every secret that is valid now."""
    at = (now or datetime.now(UTC)).replace(microsecond=0)
    signatures = [Signer(secret).sign(ident, at, body.decode()) for secret in secrets]
    return {
        "content-type": f"{CLOUD_EVENT}; charset=utf-8",
        "user-agent": "allotment-webhooks",
        "webhook-id": ident,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _at(target: Target, address: str) -> str:
    """The same address, by number."""
    parts = urlsplit(target.url)
    host = f"[{address}]" if ":" in address else address
    return urlunsplit((parts.scheme, f"{host}:{target.port}", parts.path or "/", parts.query, ""))


async def _skip(answer: httpx2.Response) -> None:
    """So that the connection can be used again; of a long answer nobody wants the rest."""
    read = 0
    async for part in answer.aiter_raw():
        read += len(part)
        if read > ANSWER_BYTES_MAX:
            return


def _wait(text: str) -> int:
    return min(int(text), RETRY_AFTER_SECONDS_MAX) if text.isascii() and text.isdigit() else 0


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _ms(began: float) -> int:
    return int((time.monotonic() - began) * 1_000)
