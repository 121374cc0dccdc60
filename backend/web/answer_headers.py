"""What the head of every answer says: not to keep, frame or guess at it; and the id of its request."""

from typing import Any

from litestar.types import Message, Scope, Send

from .problem_details import request_id

SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"strict-transport-security": b"max-age=63072000",
    b"cache-control": b"no-store",
}
"""On every answer that does not say otherwise itself."""
CONTENT_POLICY = b"default-src 'none'; frame-ancestors 'none'"


async def finish(message: Message, scope: Scope) -> None:
    """Add them to the head of an answer."""
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", ()))
    given = {name.lower(): value for name, value in headers}
    headers += [(name, value) for name, value in SECURITY_HEADERS.items() if name not in given]
    if not given.get(b"content-type", b"").startswith(b"text/html"):
        headers.append((b"content-security-policy", CONTENT_POLICY))
    headers.append((b"x-request-id", request_id(scope).encode()))
    message["headers"] = headers


async def answer(
    scope: Scope, send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Send a whole answer, past the framework."""
    length = (b"content-length", str(len(body)).encode())
    head: Any = {"type": "http.response.start", "status": status, "headers": [*headers, length]}
    await finish(head, scope)
    await send(head)
    await send({"type": "http.response.body", "body": body, "more_body": False})
