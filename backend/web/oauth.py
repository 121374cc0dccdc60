"""Where tokens come from: what clients may know of the issuer, and the development issuer itself."""

import time
from typing import Any
from urllib.parse import parse_qsl

import orjson
from litestar import Response, get, post

from ...tenants.issuer import (
    KEYS_PATH,
    TOKEN_PATH,
    DevelopmentIssuer,
    protected_resource_metadata,
    token_headers,
)
from ..settings import Settings
from .problem_details import RESOURCE_METADATA_PATH, AnyRequest

FORM_BYTES_MAX = 16 * 1024


def oauth_routes(issuer: DevelopmentIssuer | None, settings: Settings) -> list[Any]:
    @get(RESOURCE_METADATA_PATH, sync_to_thread=False)
    def resource_metadata(request: AnyRequest) -> Response[bytes]:
        trusted = issuer.issuer if issuer is not None else settings.issuer
        resource = str(request.base_url).rstrip("/")
        return _json(protected_resource_metadata(resource, [trusted] if trusted else []))

    if issuer is None:
        return [resource_metadata]

    @get("/.well-known/oauth-authorization-server", sync_to_thread=False)
    def server_metadata() -> Response[bytes]:
        return _json(issuer.metadata())

    @get(KEYS_PATH, sync_to_thread=False)
    def keys() -> Response[bytes]:
        return _json(issuer.jwks())

    @post(TOKEN_PATH, request_max_body_size=FORM_BYTES_MAX)
    async def token(request: AnyRequest) -> Response[bytes]:
        status, answer = issuer.token_response(
            _form(await request.body()), request.headers.get("authorization"), int(time.time())
        )
        return _json(answer, status, token_headers(status))

    return [resource_metadata, server_metadata, keys, token]


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode("utf-8", "strict"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    # A parameter given twice is an error (RFC 6749 §3.2); an empty one counts as left out.
    names = [name for name, _ in pairs]
    return {} if len(set(names)) != len(names) else {name: value for name, value in pairs if value}


def _json(
    answer: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response[bytes]:
    return Response(
        orjson.dumps(answer), status_code=status, media_type="application/json", headers=headers or {}
    )
