"""The built-in issuer: access tokens for development and demonstrations, with no second service.

It signs what any issuer would send us (RFC 9068), so nothing behind the verifier knows the
difference. Its clients authenticate with a secret, its key lies in a file: it is not an identity
provider, and where the environment is production it refuses to exist.

joserfc only: authlib's server classes want a request object, a client class, an environment
variable for plain HTTP and their own clock, which is longer than the one grant offered here.
"""

import base64
import fcntl
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from msgspec import Struct

from .access import oauth_scope
from .identity import AUDIENCE, ROLES, InvalidToken, principal_of

TOKEN_PATH = "/oauth/token"  # noqa: S105 - an address, not a secret
KEYS_PATH = "/oauth/jwks.json"
LIFETIME_SECONDS = 3600
LIFETIME_SECONDS_MAX = 7 * 24 * 3600
FILE_NAME = "issuer.json"
ENVIRONMENT_SETTING = "ALLOTMENT_ENV"

TokenResponse = tuple[int, dict[str, Any]]


class NotForProduction(Exception):
    """Somebody asked for the development issuer in production."""


class DevelopmentClient(Struct, frozen=True):
    """A machine, or a person of the demonstration, that may ask for tokens."""

    client_id: str
    secret: str
    tenant_id: UUID | None
    roles: tuple[str, ...]
    nodes: tuple[str, ...] = ()


class DevelopmentIssuer:
    """Signs access tokens with ES256. With a folder, every process that names it is one issuer."""

    def __init__(
        self,
        issuer: str,
        *,
        environment: str,
        audience: str = AUDIENCE,
        folder: Path | None = None,
        now: Callable[[], int] = lambda: int(time.time()),
        new_id: Callable[[], str] = lambda: str(uuid4()),
        new_key: Callable[[], ECKey] = lambda: ECKey.generate_key("P-256"),
    ) -> None:
        _refuse_production(environment)
        _check_issuer(issuer)
        self.issuer = issuer
        self.audience = audience
        self._now = now
        self._new_id = new_id
        self._register = _Register(folder)
        self._key = self._register.key(new_key)

    def mint(
        self,
        subject: str,
        tenant_id: UUID | None,
        roles: Sequence[str],
        nodes: Sequence[str] = (),
        *,
        lifetime_seconds: int = LIFETIME_SECONDS,
        client_id: str = "development",
        act: str | None = None,
        now: int | None = None,
    ) -> str:
        """An access token. `act` is who really acts, when it is not the subject."""
        issued_at = self._now() if now is None else now
        if not 0 < lifetime_seconds <= LIFETIME_SECONDS_MAX:
            raise ValueError(f"lifetime_seconds must be 1 to {LIFETIME_SECONDS_MAX}")
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": issued_at,
            "exp": issued_at + lifetime_seconds,
            "jti": self._new_id(),
            "roles": list(roles),
            "nodes": list(nodes),
            "scope": oauth_scope(roles),
        }
        if tenant_id is not None:
            claims["tenant"] = str(tenant_id)
        if act is not None:
            claims["act"] = {"sub": act}
        return self._signed(claims)

    def register(self, client: DevelopmentClient) -> None:
        """Let a client ask for tokens; one with the same id is replaced."""
        _check_client(client)
        self._register.put(client)

    def token_response(self, form: Mapping[str, str], authorization: str | None, now: int) -> TokenResponse:
        """The answer of the token endpoint: status and JSON body (RFC 6749, sections 4.4 and 5).

        Send it with `token_headers(status)`.
        """
        try:
            client_id, secret = _credentials(form, authorization)
            client = self._authenticated(client_id, secret)
            self._check_request(form, client)
        except _Denied as denied:
            return denied.status, {"error": denied.error, "error_description": denied.description}
        who = client.client_id
        token = self.mint(who, client.tenant_id, client.roles, client.nodes, client_id=who, now=now)
        return 200, {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": LIFETIME_SECONDS,
            "scope": oauth_scope(client.roles),
        }

    def jwks(self) -> dict[str, Any]:
        """The public keys, for `KEYS_PATH` and for `IssuerKeys(issuer.jwks)`."""
        return {"keys": [self._key.as_dict(private=False)]}

    def metadata(self) -> dict[str, Any]:
        """For `/.well-known/oauth-authorization-server` (RFC 8414)."""
        return {
            "issuer": self.issuer,
            "token_endpoint": self.issuer + TOKEN_PATH,
            "jwks_uri": self.issuer + KEYS_PATH,
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": oauth_scope(ROLES).split(),
        }

    def resource_metadata(self) -> dict[str, Any]:
        """`protected_resource_metadata` of a product that is served beside this issuer."""
        return protected_resource_metadata(self.issuer, [self.issuer])

    def _signed(self, claims: dict[str, Any]) -> str:
        try:
            # What our own verifier would not accept must not be signed.
            principal_of(claims)
        except InvalidToken as invalid:
            raise ValueError(str(invalid)) from None
        header = {"typ": "at+jwt", "alg": "ES256", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=["ES256"])

    def _authenticated(self, client_id: str, secret: str) -> "_Registered":
        client = self._register.get(client_id)
        # An unknown client costs the same comparison, so that ids cannot be told by time.
        expected = client.secret_sha256 if client else _sha256("")
        if not hmac.compare_digest(expected, _sha256(secret)) or client is None:
            raise _Denied(401, "invalid_client", "unknown client, or wrong secret")
        return client

    def _check_request(self, form: Mapping[str, str], client: "_Registered") -> None:
        grant = form.get("grant_type")
        if not grant:
            raise _Denied(400, "invalid_request", "grant_type is missing; send client_credentials")
        if grant != "client_credentials":
            raise _Denied(400, "unsupported_grant_type", "only client_credentials is offered")
        # Rights follow from the roles, so a token cannot be narrowed: it says what it has.
        if not set(form.get("scope", "").split()) <= set(oauth_scope(client.roles).split()):
            raise _Denied(400, "invalid_scope", f"this client may ask for: {oauth_scope(client.roles)}")
        if form.get("resource", self.audience) not in (self.audience, self.issuer):
            raise _Denied(400, "invalid_target", f"tokens are issued for {self.audience}")


def protected_resource_metadata(resource: str, issuers: Sequence[str]) -> dict[str, Any]:
    """For `/.well-known/oauth-protected-resource` (RFC 9728), whoever issues the tokens.

    `resource` is the address clients call us by.
    """
    return {
        "resource": resource,
        "resource_name": "Allotment",
        "authorization_servers": list(issuers),
        "bearer_methods_supported": ["header"],
        "scopes_supported": oauth_scope(ROLES).split(),
    }


def token_headers(status: int) -> dict[str, str]:
    """The headers a token response must carry (RFC 6749, sections 5.1 and 5.2)."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="allotment", charset="UTF-8"'
    return headers


class _Registered(Struct, frozen=True):
    client_id: str
    secret_sha256: str
    tenant_id: UUID | None
    roles: tuple[str, ...]
    nodes: tuple[str, ...]


class _Denied(Exception):
    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.description = description


class _Register:
    """The signing key and the clients: in memory, or in a file that several processes share.

    The file is read at each request for a token: these are few, and a client registered by another
    process is known at once. Secrets stand in it as hashes, the signing key in clear.
    """

    def __init__(self, folder: Path | None) -> None:
        self._document: dict[str, Any] = {"key": None, "clients": {}}
        self._path = None
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = folder / FILE_NAME

    def key(self, new_key: Callable[[], ECKey]) -> ECKey:
        with self._changing() as document:
            if not document["key"]:
                document["key"] = _private_jwk(new_key())
        try:
            return ECKey.import_key(document["key"])
        except (JoseError, ValueError, KeyError, TypeError):
            raise self._unreadable() from None

    def put(self, client: DevelopmentClient) -> None:
        with self._changing() as document:
            document["clients"][client.client_id] = {
                "secret_sha256": _sha256(client.secret),
                "tenant_id": client.tenant_id and str(client.tenant_id),
                "roles": client.roles,
                "nodes": client.nodes,
            }

    def get(self, client_id: str) -> _Registered | None:
        found = self._read()["clients"].get(client_id)
        if found is None:
            return None
        return _Registered(
            client_id=client_id,
            secret_sha256=found["secret_sha256"],
            tenant_id=UUID(found["tenant_id"]) if found["tenant_id"] else None,
            roles=tuple(found["roles"]),
            nodes=tuple(found["nodes"]),
        )

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        if self._path is None:
            yield self._document
            return
        # The lock lies beside the file, which is replaced as a whole: readers need no lock.
        with _opened_private(self._path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = self._read()
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before:
                self._write(document)

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return self._document
        if not self._path.exists():
            return {"key": None, "clients": {}}
        if self._path.stat().st_mode & 0o077:
            raise ValueError(f"{self._path} holds a signing key and others may read it; run chmod 600 on it")
        try:
            document = json.loads(self._path.read_bytes())
        except ValueError:
            raise self._unreadable() from None
        if not isinstance(document, dict) or not isinstance(document.get("clients"), dict):
            raise self._unreadable()
        return {"key": document.get("key"), "clients": document["clients"]}

    def _write(self, document: dict[str, Any]) -> None:
        assert self._path is not None
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with _opened_private(new) as file:
            file.write(json.dumps(document, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def _unreadable(self) -> ValueError:
        return ValueError(f"{self._path} is not a file of the development issuer; remove it to get a new one")


def _refuse_production(environment: str) -> None:
    # The setting is asked as well: a wrong argument must not open production.
    for named in (environment, os.environ.get(ENVIRONMENT_SETTING, "")):
        if named.strip().lower() in ("production", "prod"):
            raise NotForProduction(
                "the development issuer does not run in production; "
                "name your identity provider's issuer and its key address instead"
            )


def _check_issuer(issuer: str) -> None:
    parts = urlsplit(issuer)
    # Clients compare it letter by letter, and append the well-known paths to it.
    if parts.scheme not in ("http", "https") or issuer != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"issuer must be an address without path or final slash, not {issuer!r}")


def _check_client(client: DevelopmentClient) -> None:
    if not client.secret:
        raise ValueError(f"client {client.client_id}: the secret must not be empty")
    claims = {
        "sub": client.client_id,
        "client_id": client.client_id,
        "exp": 0,
        "roles": list(client.roles),
        "nodes": list(client.nodes),
    }
    try:
        principal_of(claims)
    except InvalidToken as invalid:
        raise ValueError(f"client {client.client_id}: {invalid}") from None


def _credentials(form: Mapping[str, str], authorization: str | None) -> tuple[str, str]:
    posted = form.get("client_id"), form.get("client_secret")
    if authorization is None:
        if posted[0] and posted[1]:
            return posted[0], posted[1]
        raise _Denied(401, "invalid_client", "send client id and secret, by Basic or in the form")
    if posted[1]:
        raise _Denied(400, "invalid_request", "authenticate in one way: by Basic or in the form")
    client_id, secret = _basic(authorization)
    if posted[0] not in (None, client_id):
        raise _Denied(400, "invalid_request", "client_id differs from the one that authenticated")
    return client_id, secret


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
    except ValueError:
        raise _Denied(401, "invalid_client", "send `Authorization: Basic` and base64 of id:secret") from None
    # Both parts are form-encoded before they are joined (RFC 6749, section 2.3.1).
    return unquote_plus(client_id), unquote_plus(secret)


def _private_jwk(key: ECKey) -> dict[str, Any]:
    return {**key.as_dict(private=True), "kid": key.thumbprint(), "use": "sig", "alg": "ES256"}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _opened_private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
