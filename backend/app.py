"""The HTTP app: which door leads where, and what every answer carries.

It serves an engine and does not own it: whoever made the engine closes it, in the same event loop.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.types import Message, Scope

from ..tenants.identity import TokenVerifier
from ..tenants.issuer import DevelopmentIssuer
from .engine import Engine
from .feeding import Feeds
from .settings import Settings
from .web.bearer import Callers
from .web.charging_door import charging_routes
from .web.graphql_door import graphql_routes
from .web.oauth import oauth_routes
from .web.operations import operations_routes
from .web.problem_details import handle, request_id
from .web.request_context import Surroundings
from .web.usage_door import usage_route

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


def create_app(
    engine: Engine,
    *,
    verifier: TokenVerifier,
    issuer: DevelopmentIssuer | None,
    settings: Settings,
    lifespan: Sequence[Any] = (),
    feeds: Feeds | None = None,
) -> Litestar:
    """`lifespan`: what else begins and ends with the app, in its event loop; the engine may be.

    `feeds`: where live answers come from, if they are to be told of what is committed elsewhere.
    """
    callers = Callers(engine, verifier)
    around = Surroundings(feeds or Feeds(engine), private_webhooks=settings.private_webhooks)
    return Litestar(
        route_handlers=[
            *graphql_routes(
                engine,
                callers,
                explorer=not settings.production,
                around=around,
            ),
            usage_route(engine, callers),
            *charging_routes(engine, callers),
            *oauth_routes(issuer, settings),
            *operations_routes(engine),
        ],
        exception_handlers={Exception: handle},
        before_send=[_finish],
        lifespan=list(lifespan),
        state=State({"around": around}),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


async def _finish(message: Message, scope: Scope) -> None:
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", ()))
    given = {name.lower(): value for name, value in headers}
    headers += [(name, value) for name, value in SECURITY_HEADERS.items() if name not in given]
    if not given.get(b"content-type", b"").startswith(b"text/html"):
        headers.append((b"content-security-policy", CONTENT_POLICY))
    headers.append((b"x-request-id", request_id(scope).encode()))
    message["headers"] = headers
