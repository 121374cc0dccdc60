"""`POST /graphql`, by the GraphQL-over-HTTP specification, for bearer tokens only.

A handler of our own rather than the library's controller: that one keeps the answer of a request
in an attribute that all requests share, answers 200 where the specification asks for 400, and
costs a third of the throughput. What a client can do here is parse, execute and be told.
"""

import asyncio
from functools import partial
from typing import Any

import orjson
import structlog
from litestar import Response, get, post
from litestar.response import Stream
from msgspec import Struct
from strawberry.exceptions import MissingQueryError
from strawberry.http.ides import get_graphql_ide_html
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from ...graphql.schema import Schema, schema
from ..engine import Engine
from .bearer import Callers
from .live_door import event_stream, live_route
from .problem_details import AnyRequest, HttpProblem, request_id
from .request_context import RequestContext, Surroundings, Turns

BODY_BYTES_MAX = 8 * 1024 * 1024
"""A rate sheet of a hundred thousand rows fits. Of documents, tokens are bounded besides."""
NESTING_MAX = 32
SECONDS_MAX = 30.0
"""Looking far back replays the log; everything else takes milliseconds."""

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
EVENTS = "text/event-stream"
_OPERATIONS = {OperationType.QUERY, OperationType.MUTATION}

log = structlog.get_logger()


class Operation(Struct, frozen=True):
    query: str
    variables: dict[str, Any] | None
    name: str | None


class BadRequest(Exception):
    """A request that is no GraphQL request."""


def graphql_routes(
    engine: Engine,
    callers: Callers,
    *,
    explorer: bool,
    around: Surroundings | None = None,
    schema: Schema = schema,
) -> list[Any]:
    turns = Turns()

    @post("/graphql", status_code=200, request_max_body_size=BODY_BYTES_MAX)
    async def graphql(request: AnyRequest) -> Response[Any]:
        principal = await callers.principal(request)
        if principal.tenant_id is not None:
            await callers.entry(principal.tenant_id)
        accept = request.headers.get("accept", "")
        media_type = EVENTS if EVENTS in accept.lower() and around is not None else accepted(accept)
        try:
            operation = parsed(request.headers.get("content-type", ""), await request.body())
            context = RequestContext(engine, principal, turns, around)
            if media_type == EVENTS:
                told = (operation.query, operation.variables, operation.name)
                return Stream(event_stream(schema, context, *told), media_type=EVENTS)
            result = await _executed(schema, operation, context)
        except BadRequest as error:
            return _answer(
                {"errors": [{"message": str(error), "extensions": {"code": "bad_request"}}]}, 400, media_type
            )
        except TimeoutError:
            log.warning("query took too long", request_id=request_id(request.scope))
            raise HttpProblem(
                503,
                "too_slow",
                "this took too long: ask for less, or send it again with its key",
                {"Retry-After": "2"},
            ) from None
        return _told(result, media_type)

    routes: list[Any] = [graphql]
    if around is not None:
        make_context = partial(RequestContext, engine, turns=turns, around=around)
        routes.append(live_route(schema, callers, make_context))
    if not explorer:
        return routes

    @get("/graphql", sync_to_thread=False)
    def graphiql(request: AnyRequest) -> Response[str]:
        if "text/html" not in request.headers.get("accept", ""):
            raise HttpProblem(405, "method_not_allowed", "send queries with POST", {"Allow": "POST"})
        return Response(get_graphql_ide_html(graphql_ide="graphiql"), media_type="text/html")

    return [*routes, graphiql]


def accepted(header: str) -> str:
    """The media type to answer in; 406 where the client takes neither."""
    if not header.strip():
        return JSON
    offers: list[tuple[float, int, str]] = []
    for place, part in enumerate(header.split(",")):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        charset = next((p.removeprefix("charset=") for p in parameters if p.startswith("charset=")), "utf-8")
        media_type = GRAPHQL if name == GRAPHQL else JSON if name in (JSON, "*/*", "application/*") else ""
        if media_type and charset.strip('"') in ("utf-8", "utf8"):
            offers.append((-_quality(parameters), place, media_type))
    wanted = [offer for offer in sorted(offers) if offer[0] < 0]
    if not wanted:
        raise HttpProblem(406, "not_acceptable", f"Accept: take {GRAPHQL} or {JSON}, in UTF-8")
    return wanted[0][2]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return 0.0
    return 1.0


def parsed(content_type: str, body: bytes) -> Operation:
    """The operation of a request body; BadRequest says what is wrong with it."""
    name, *parameters = (piece.strip().lower() for piece in content_type.split(";"))
    charset = next((p.removeprefix("charset=") for p in parameters if p.startswith("charset=")), "utf-8")
    if name != JSON or charset.strip('"') not in ("utf-8", "utf8"):
        raise HttpProblem(415, "unsupported_media_type", f"Content-Type: send {JSON}, in UTF-8")
    if b"\\u0000" in body or b"\0" in body:
        raise BadRequest("the body holds U+0000, which no text of ours can")
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON in UTF-8") from None
    if not isinstance(request, dict):
        raise BadRequest("the body must be a JSON object with a query; batches are not taken")
    if _nesting(request) > NESTING_MAX:
        raise BadRequest(f"the body is nested deeper than {NESTING_MAX} levels")
    query = _member(request, "query", str)
    if not query:
        raise BadRequest("query: send a GraphQL document")
    _member(request, "extensions", dict)
    return Operation(query, _member(request, "variables", dict), _member(request, "operationName", str))


def _member(request: dict[str, Any], name: str, kind: type) -> Any:
    value = request.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadRequest(f"{name}: must be {'a string' if kind is str else 'an object'}, or null")
    return value


def _nesting(value: Any) -> int:
    """How deep it is, looked at level by level, so that no depth can exhaust the stack."""
    level, depth = [value], 0
    while level and depth <= NESTING_MAX:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth


async def _executed(schema: Schema, operation: Operation, context: RequestContext) -> ExecutionResult:
    try:
        async with asyncio.timeout(SECONDS_MAX):
            result = await schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.name,
                allowed_operation_types=_OPERATIONS,
            )
    except MissingQueryError:
        raise BadRequest("query: send a GraphQL document") from None
    except CannotGetOperationTypeError:
        raise BadRequest("operationName: name one of the document's operations") from None
    except InvalidOperationTypeError:
        raise BadRequest(
            "queries and mutations are taken here, subscriptions with Accept: text/event-stream"
        ) from None
    assert isinstance(result, ExecutionResult)
    return result


def _told(result: ExecutionResult, media_type: str) -> Response[bytes]:
    """The result, or with the newer media type 400 for what could not be executed at all."""
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [error.formatted for error in result.errors]
        if result.data is None and not any(error.path for error in result.errors):
            # A request error: the specification wants no `data` at all.
            del answer["data"]
            return _answer(answer, 400 if media_type == GRAPHQL else 200, media_type)
    return _answer(answer, 200, media_type)


def _answer(answer: dict[str, Any], status: int, media_type: str) -> Response[bytes]:
    return Response(orjson.dumps(answer), status_code=status, media_type=f"{media_type}; charset=utf-8")
