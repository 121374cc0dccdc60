"""The fronts, end to end: HTTP and GraphQL through granian, over loopback, tokens and all.

The client runs in the same process on raw sockets with requests made beforehand, so that what is
measured is the product; it still costs some of the machine, so these are floors.
"""

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from ...domain.usage import UsageRecord
from ...tenants.identity import IssuerKeys, TokenVerifier
from ...tenants.issuer import DevelopmentIssuer
from ..app import create_app
from ..engine import Engine, moment
from ..serving import serving
from ..settings import Settings

CONNECTIONS = 8
GRAPHQL_REPEATS = 15
QUERY = """
query { hierarchy(depth: 9, usageTypes: ["data"]) { seq nodes { id name kind depth parentId
  balances { granted own consumed available subtree { used } } limits { quantity used } } } }
"""


@asynccontextmanager
async def served(engine: Engine, tenant: UUID) -> Any:
    """The API on a free port; its port, and a function that makes tokens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    issuer = DevelopmentIssuer(f"http://127.0.0.1:{port}", environment="development")
    verifier = TokenVerifier(issuer.issuer, issuer.audience, IssuerKeys(issuer.jwks))
    settings = Settings(home=Path("unused"), port=port)
    app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings)

    def token(role: str) -> str:
        return issuer.mint("benchmark", tenant, (role,))

    async with serving(app, "127.0.0.1", port):
        await _until_open(port)
        yield port, token


async def http_rate(port: int, token: str, given: Sequence[UsageRecord], batch: int) -> float:
    """Records per second through `POST /v1/usage`, so many a request, until all are answered."""
    bodies = [_ndjson(given[at : at + batch]) for at in range(0, len(given), batch)]
    todo = deque(_request("/v1/usage", token, "application/x-ndjson", body) for body in bodies)

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while todo:
            answer = await _exchange(reader, writer, todo.popleft())
            assert answer["charged"] == answer["received"], answer
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return len(given) / (time.perf_counter() - started)


async def graphql_ms(port: int, token: str) -> tuple[list[float], int]:
    """Milliseconds for the whole hierarchy with balances and limits, each time; and its nodes."""
    request = _request("/graphql", token, "application/json", json.dumps({"query": QUERY}).encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken, nodes = [], 0
    for _ in range(GRAPHQL_REPEATS):
        asked = time.perf_counter()
        answer = await _exchange(reader, writer, request)
        taken.append((time.perf_counter() - asked) * 1e3)
        assert "errors" not in answer, answer["errors"]
        nodes = len(answer["data"]["hierarchy"]["nodes"])
    writer.close()
    return taken, nodes


def _ndjson(given: Sequence[UsageRecord]) -> bytes:
    return b"\n".join(
        msgspec.json.encode(
            {
                "source": record.source,
                "id": record.record_id,
                "line": record.line,
                "type": record.usage_type,
                "quantity": record.quantity,
                "start": moment(record.started_at).isoformat(),
                "counterpart": record.counterpart,
            }
        )
        for record in given
    )


def _request(path: str, token: str, kind: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nAccept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Any:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if "content-length:" in head:
        body = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
    else:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    if " 200" not in head.split("\r\n", 1)[0]:
        raise AssertionError(f"{head.splitlines()[0]}: {body[:300]!r}")
    return json.loads(body)


async def _until_open(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError("the API did not open its port")
