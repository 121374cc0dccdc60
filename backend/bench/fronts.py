"""The fronts, end to end: HTTP and GraphQL through granian, over loopback, tokens and all.

Usage comes from a process of its own, with requests made beforehand (`http_client.py`); what asks in
GraphQL runs in this one, one question at a time.
"""

import asyncio
import json
import socket
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import msgspec
from litestar import Litestar
from msgspec import Struct

from ...domain.usage import UsageRecord
from ...graphql.schema import make_schema
from ...tenants.identity import IssuerKeys, TokenVerifier
from ...tenants.issuer import DevelopmentIssuer
from ..app import create_app
from ..engine import Engine, moment
from ..serving import serving
from ..settings import Settings
from ..web.bearer import Callers
from ..web.graphql_door import graphql_routes
from .http_client import Sending, Sent

CONNECTIONS = 20
"""Each with a request on its way: in batches of 500, as many records as are in flight in process."""
_CLIENT = ("-c", "from allotment.backend.bench.http_client import main; main()")
GRAPHQL_REPEATS = 15
QUERIES = {
    "graphql": """
query { hierarchy(depth: 9) {
  nodes { id name kind isNode depth parentId since until __typename label: name } } }
""",
    "graphql_hierarchy": """
query { hierarchy(depth: 9, usageTypes: ["data"]) { seq nodes { id name kind depth parentId
  balances { granted own consumed available subtree { used } } limits { quantity used } } } }
""",
}
"""Ten fields of each node; and balances and limits with each node."""


class Served(Struct, frozen=True):
    port: int
    stock_port: int
    """Where the same GraphQL schema is executed by the library alone."""
    token: Callable[[str], str]


@asynccontextmanager
async def served(engine: Engine, tenant: UUID) -> AsyncIterator[Served]:
    """The API on a free port, its GraphQL by the library's executor on another, and who makes tokens."""
    port, stock_port = _free_ports()
    issuer = DevelopmentIssuer(f"http://127.0.0.1:{port}", environment="development")
    verifier = TokenVerifier(issuer.issuer, issuer.audience, IssuerKeys(issuer.jwks))
    settings = Settings(home=Path("unused"), port=port)
    told = engine.on_commit
    app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings)

    def token(role: str) -> str:
        return issuer.mint("benchmark", tenant, (role,))

    stock = Litestar(
        graphql_routes(engine, Callers(engine, verifier), explorer=False, schema=make_schema(executor=None)),
        openapi_config=None,
        logging_config=None,
    )
    async with serving(app, "127.0.0.1", port), serving(stock, "127.0.0.1", stock_port):
        await _until_open(port)
        await _until_open(stock_port)
        yield Served(port, stock_port, token)
    engine.on_commit = told  # else each app of a run would go on counting for all that follow


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def http_rate(port: int, token: str, given: Sequence[UsageRecord], batch: int) -> tuple[float, float]:
    """Records per second through `POST /v1/usage`, so many a request, until all are answered.

    And microseconds that this process, which serves, took for each.
    """
    bodies = [_ndjson(given[at : at + batch]) for at in range(0, len(given), batch)]
    requests = [_request("/v1/usage", token, "application/x-ndjson", body) for body in bodies]
    client = await asyncio.create_subprocess_exec(sys.executable, *_CLIENT, stdin=PIPE, stdout=PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    frame = msgspec.msgpack.encode(Sending(port, CONNECTIONS, requests))
    client.stdin.write(len(frame).to_bytes(8, "big") + frame)
    await client.stdout.readline()  # it is connected
    began = time.process_time()
    client.stdin.write(b"\n")
    told = await client.stdout.readline()
    taken = time.process_time() - began
    if await client.wait():
        raise AssertionError("not everything was charged: see above")
    seconds = msgspec.json.decode(told, type=Sent).seconds
    return len(given) / seconds, taken / len(given) * 1e6


async def graphql_ms(api: Served) -> dict[str, list[float]]:
    """Milliseconds for the whole hierarchy, ours and the library's by turns: the same bytes."""
    token, measured = api.token("telecoms_manager"), dict[str, list[float]]()
    for name, query in QUERIES.items():
        request = _request("/graphql", token, "application/json", json.dumps({"query": query}).encode())
        asking = [await asyncio.open_connection("127.0.0.1", port) for port in (api.port, api.stock_port)]
        for number in range(GRAPHQL_REPEATS + 1):
            taken, answers = zip(*[await _timed(*one, request) for one in asking], strict=True)
            assert answers[0] == answers[1], "ours and the library's answers differ"
            if number:  # the first one opens connections and compiles
                measured.setdefault(f"{name}_ms", []).append(taken[0])
                measured.setdefault(f"{name}_stock_ms", []).append(taken[1])
        answer = json.loads(answers[0])
        assert "errors" not in answer, answer["errors"]
        measured[f"{name}_nodes"] = [len(answer["data"]["hierarchy"]["nodes"])]
        for _, writer in asking:
            writer.close()
    return measured


async def _timed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[float, bytes]:
    asked = time.perf_counter()
    answer = await _body(reader, writer, request)
    return (time.perf_counter() - asked) * 1e3, answer


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


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
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
    return body


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
