"""The HTTP app: which door leads where, and what every answer carries.

It serves an engine and does not own it: whoever made the engine closes it, in the same event loop.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar
from litestar.datastructures import State

from ..tenants.identity import TokenVerifier
from ..tenants.issuer import DevelopmentIssuer
from .engine import Engine
from .feeding import Feeds
from .settings import Settings
from .web.answer_headers import finish
from .web.bearer import Callers
from .web.charging_door import charging_routes
from .web.graphql_door import graphql_routes
from .web.oauth import oauth_routes
from .web.operations import operations_routes
from .web.problem_details import handle
from .web.request_context import Surroundings
from .web.usage_door import ShortWay, UsageDoor, usage_route


class App(Litestar):
    """The framework, and past it a short way for the one request of which there are many."""

    short_way: ShortWay | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.short_way is not None and self.short_way.is_for(scope):
            await self.short_way(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    engine: Engine,
    *,
    verifier: TokenVerifier,
    issuer: DevelopmentIssuer | None,
    settings: Settings,
    lifespan: Sequence[Any] = (),
    feeds: Feeds | None = None,
) -> App:
    """`lifespan`: what else begins and ends with the app, in its event loop; the engine may be.

    `feeds`: where live answers come from, if they are to be told of what is committed elsewhere.
    """
    callers = Callers(engine, verifier)
    around = Surroundings(feeds or Feeds(engine), private_webhooks=settings.private_webhooks)
    usage = UsageDoor(engine, callers)
    app = App(
        route_handlers=[
            *graphql_routes(
                engine,
                callers,
                explorer=not settings.production,
                around=around,
            ),
            usage_route(usage),
            *charging_routes(engine, callers),
            *oauth_routes(issuer, settings),
            *operations_routes(engine),
        ],
        exception_handlers={Exception: handle},
        before_send=[finish],
        lifespan=list(lifespan),
        state=State({"around": around}),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.short_way = ShortWay(app, usage)
    return app
