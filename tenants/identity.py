"""Identity: who is calling, proved by a signed token.

A bearer token becomes a `Principal` only after its signature, type, issuer, audience, times and
every claim we use have been checked; anything else is refused with a code and a remedy, and the
token itself never stands in an error or a log. The tenant comes from the token and from nowhere
else: a token without one reaches no tenant data.

joserfc checks the signature and refuses other algorithms. What it leaves to us is checked here:
`decode` alone accepts a token that is expired, meant for another audience, of another type, or
without a key id.
"""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import JWKRegistry, Key
from joserfc.util import json_b64decode
from msgspec import Struct

AUDIENCE = "urn:allotment"
"""The `aud` by which a token says that it is meant for us."""

Role = Literal["carrier", "telecoms_manager", "auditor", "mediation"]
ROLES: frozenset[str] = frozenset(get_args(Role))
"""What a token may name in `roles`. What each may do stands in `access.py`."""

ALGORITHMS = {("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("OKP", "Ed25519"): "Ed25519"}
"""The one algorithm each kind of key may be used with. The key decides, the token only agrees:
so no header can turn a public key into a shared secret. "EdDSA" is the deprecated name of
Ed25519 (RFC 9864) and is not accepted."""

TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
"""RFC 9068, section 4. An ID token ("JWT") signed by the same issuer is no access token."""

HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""Nothing else may stand in a header: `jwk`, `jku`, `x5u` and `x5c` let a token bring its own key,
and `crit` or `b64` change what is signed."""

TOKEN_BYTES_MAX = 8 * 1024
"""Longer ones are refused before anything reads them."""

LEEWAY_SECONDS = 30
VERIFIED_MAX = 4096
"""How many tokens are remembered as verified: a check costs 0.1 to 0.2 ms, a memory 5 us."""

VERIFIED_SECONDS_MAX = 300
"""A withdrawn key stops opening doors this long after it was withdrawn, at the latest."""

KEYS_SECONDS_MAX = 3600
"""Keys older than this are fetched again, so that a withdrawn one is noticed at all."""

KEYS_COOL_DOWN_SECONDS = 30
"""Between two fetches: tokens with invented key ids must not become requests to the issuer."""

KEYS_RETRY_SECONDS = 2
"""The same while we hold no key at all, so that an issuer which starts late is found soon."""

KEYS_BYTES_MAX = 256 * 1024
FETCH_TIMEOUT_SECONDS = 2.0

_SUBJECT = re.compile(r"[A-Za-z0-9._~:/|=-]{1,128}")
_CLIENT = re.compile(r"[!-~]{1,255}")
_NODE = re.compile(r"[!-~]{1,128}")
_SEGMENTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_RSA_2048_CHARACTERS = 342
"""The base64url length of a modulus of 2048 bits. Shorter keys are not trusted."""

_TIME_MAX = 253_402_300_799
"""The last second of the year 9999: later ones do not fit a timestamp."""

_NEVER = -(2**62)

_log = structlog.get_logger(__name__)


class Principal(Struct, frozen=True):
    """Who is calling, for which tenant, and how far they may reach."""

    subject: str
    """The issuer's opaque id of the person or machine. Never a name, number or address."""
    client_id: str
    tenant_id: UUID | None
    roles: frozenset[str]
    nodes: tuple[str, ...]
    """The roots of the subtrees they are bound to, whatever the role; empty means the whole tenant."""
    expires_at: int
    """Seconds since the epoch. A subscription or socket is closed then."""
    acted_by: str | None = None
    """Who really acts, when somebody acts for the subject (the `act` claim of RFC 8693)."""

    @property
    def actor(self) -> str:
        """The name events record: "telecoms_manager:8f3a", or with both parties "...;act=c41d"."""
        who = f"{'+'.join(sorted(self.roles)) or 'none'}:{self.subject}"
        return f"{who};act={self.acted_by}" if self.acted_by else who

    @property
    def acting_for(self) -> str | None:
        """Whom somebody else acts for; None when the subject acts alone."""
        return self.subject if self.acted_by else None


class InvalidToken(Exception):
    """Why a bearer token proves nothing. Answered with 401; `code` is part of the API."""

    def __init__(self, code: str, remedy: str) -> None:
        super().__init__(f"{code}: {remedy}")
        self.code = code
        self.remedy = remedy


class KeysUnavailable(Exception):
    """The issuer's keys have never been readable, so no token can be judged: try again later."""


class UnusableKeys(ValueError):
    """What was fetched is not a set of public keys that we could verify with."""


class IssuerKeys:
    """The issuer's public keys by key id, fetched when one is unknown or all are old.

    A fetch that fails leaves the keys we hold in force. Threads may share it.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], source: str = "the issuer") -> None:
        self._fetch = fetch
        self._source = source
        self._by_kid: dict[str, tuple[str, Key]] = {}
        self._fetched_at = self._tried_at = _NEVER
        self._lock = threading.Lock()

    def find(self, kid: str, now: int) -> tuple[str, Key]:
        """The algorithm and key of that id; may fetch, and then blocks for it."""
        if self.due(kid, now):
            with self._lock:
                # Somebody else may have fetched while we waited.
                if self.due(kid, now):
                    self._refetch(now)
        found = self._by_kid.get(kid)
        if found is not None:
            return found
        if not self._by_kid:
            raise KeysUnavailable(f"no signing keys could be read from {self._source}; try again")
        raise InvalidToken("unknown_key", "get a new token: the issuer does not publish this token's key")

    def due(self, kid: str, now: int) -> bool:
        """Whether `find` would fetch."""
        wanted = kid not in self._by_kid or now - self._fetched_at >= KEYS_SECONDS_MAX
        pause = KEYS_COOL_DOWN_SECONDS if self._by_kid else KEYS_RETRY_SECONDS
        return wanted and now - self._tried_at >= pause

    def _refetch(self, now: int) -> None:
        try:
            self._by_kid = usable_keys(self._fetch())
            self._fetched_at = now
        except (OSError, ValueError) as error:
            _log.warning("issuer_keys_not_fetched", source=self._source, error=str(error))
        finally:
            self._tried_at = now


def keys_from_file(path: Path) -> IssuerKeys:
    """Keys from a JWKS file. A file that cannot be used is refused at once: it is a setting."""

    def fetch() -> Mapping[str, Any]:
        return _key_set(path.read_bytes())

    try:
        usable_keys(fetch())
    except (OSError, ValueError) as error:
        raise UnusableKeys(f"{path}: {error}; give a JSON Web Key Set file") from error
    return IssuerKeys(fetch, str(path))


def keys_from_url(url: str, *, allow_http: bool = False) -> IssuerKeys:
    """Keys from the issuer's `jwks_uri`. Over plain HTTP anybody on the way could sign tokens, so
    that is for this machine, or for a closed network that says so."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and (local or allow_http)):
        raise ValueError(f"the key address {url} must begin with https://")
    return IssuerKeys(lambda: _downloaded(url), url)


def usable_keys(key_set: Mapping[str, Any]) -> dict[str, tuple[str, Key]]:
    """Algorithm and key by key id. Keys we cannot or must not verify with are left out: one odd
    key (a newer kind, one for encryption) does not make the others worthless."""
    listed = key_set.get("keys")
    if not isinstance(listed, list):
        raise UnusableKeys("there is no list named `keys`")
    found: dict[str, tuple[str, Key]] = {}
    for entry in listed:
        usable = _usable_key(entry)
        if usable is not None:
            found.setdefault(entry["kid"], usable)
    if not found:
        raise UnusableKeys("none of the keys has a `kid` and is for ES256, RS256 (2048 bits) or Ed25519")
    return found


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """The principal that verified claims describe, or `InvalidToken` for a claim we cannot use."""
    if not claims["exp"] <= _TIME_MAX:
        raise _bad_claim("exp", "a time in seconds before the year 10000")
    return Principal(
        subject=_subject("sub", claims["sub"]),
        client_id=_text("client_id", claims["client_id"], _CLIENT),
        tenant_id=_tenant(claims.get("tenant")),
        roles=_roles(claims.get("roles", [])),
        nodes=tuple(_text("nodes", node, _NODE) for node in _list("nodes", claims.get("nodes", []))),
        expires_at=int(claims["exp"]),
        acted_by=_acted_by(claims.get("act")),
    )


class TokenVerifier:
    """Turns bearer tokens of one issuer, meant for one audience, into principals."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: IssuerKeys,
        *,
        leeway_seconds: int = LEEWAY_SECONDS,
        now: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._keys = keys
        self._now = now
        self._claims = jwt.JWTClaimsRegistry(
            now=now,
            leeway=leeway_seconds,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            client_id={"essential": True},
        )
        self._verified = _Verified()

    def verify(self, token: str) -> Principal:
        """The principal a token proves, or `InvalidToken`. May block to fetch keys: see `verified`."""
        now = self._now()
        known = self._known(token, now)
        if known is not None:
            return known
        principal = self._check(token, now)
        self._verified.put(_digest(token), principal, now)
        return principal

    async def verified(self, token: str) -> Principal:
        """`verify` for an event loop: only a token for which keys must be fetched leaves its thread."""
        now = self._now()
        known = self._known(token, now)
        if known is not None:
            return known
        if self._keys.due(_header(token)["kid"], now):
            return await asyncio.to_thread(self.verify, token)
        return self.verify(token)

    def _known(self, token: str, now: int) -> Principal | None:
        _check_form(token)
        return self._verified.get(_digest(token), now)

    def _check(self, token: str, now: int) -> Principal:
        header = _header(token)
        algorithm, key = self._keys.find(header["kid"], now)
        if header["alg"] != algorithm:
            raise InvalidToken("wrong_algorithm", f"sign with {algorithm}, which is what this key is for")
        claims = _signed_claims(token, key, algorithm)
        self._check_claims(claims)
        return principal_of(claims)

    def _check_claims(self, claims: dict[str, Any]) -> None:
        try:
            self._claims.validate(claims)
        except MissingClaimError as error:
            raise InvalidToken("missing_claim", f"the token lacks {error.claim}") from None
        except ExpiredTokenError:
            raise InvalidToken("expired", "get a new token") from None
        except InvalidClaimError as error:
            raise _invalid_claim(error.claim, claims.get(error.claim)) from None


class _Verified:
    """The principals of tokens already checked, by the token's hash: least recently used go first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[int, Principal]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: bytes, now: int) -> Principal | None:
        with self._lock:
            entry = self._entries.get(digest)
            if entry is None:
                return None
            if now >= entry[0]:
                del self._entries[digest]
                return None
            self._entries.move_to_end(digest)
            return entry[1]

    def put(self, digest: bytes, principal: Principal, now: int) -> None:
        until = min(principal.expires_at, now + VERIFIED_SECONDS_MAX)
        with self._lock:
            self._entries[digest] = (until, principal)
            if len(self._entries) > VERIFIED_MAX:
                self._entries.popitem(last=False)


def _check_form(token: str) -> None:
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidToken("too_large", f"send a token of at most {TOKEN_BYTES_MAX} bytes")
    if not _SEGMENTS.fullmatch(token):
        raise InvalidToken("malformed", "send `Authorization: Bearer` and a signed JWT access token")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def _header(token: str) -> dict[str, str]:
    try:
        header = json_b64decode(token.partition(".")[0].encode("ascii"))
    except (ValueError, RecursionError):
        raise InvalidToken("malformed", "the token's header is not base64url JSON") from None
    if not isinstance(header, dict) or not all(isinstance(value, str) for value in header.values()):
        raise _header_refused(header)
    if not header.keys() <= HEADERS:
        raise _header_refused(header)
    if header.get("typ", "").lower() not in TOKEN_TYPES:
        raise InvalidToken("wrong_type", "send an access token of type at+jwt (RFC 9068), not an ID token")
    if header.get("alg") not in ALGORITHMS.values():
        raise InvalidToken("wrong_algorithm", "have tokens signed with ES256, RS256 or Ed25519")
    if not header.get("kid"):
        raise InvalidToken("missing_key_id", "have the issuer name the signing key in the header's kid")
    return header


def _header_refused(header: object) -> InvalidToken:
    extra = header.keys() - HEADERS if isinstance(header, dict) else set()
    # Only names we know are repeated: the others are the caller's text.
    named = ", ".join(sorted(extra & {"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "cty"}))
    return InvalidToken(
        "refused_header", f"the header may hold only alg, kid and typ{named and ', not '}{named}"
    )


def _signed_claims(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    try:
        return jwt.decode(token, key, algorithms=[algorithm]).claims
    except JoseError as error:
        if error.error == "bad_signature":
            raise InvalidToken("bad_signature", "get a new token: its signature does not match") from None
        raise InvalidToken("malformed", "the token is not a signed JWT with a JSON object inside") from None
    except (ValueError, TypeError, RecursionError):
        raise InvalidToken("malformed", "the token is not a signed JWT with a JSON object inside") from None


def _invalid_claim(claim: str, value: object) -> InvalidToken:
    if claim == "iss":
        return InvalidToken("wrong_issuer", "get a token from the issuer this service trusts")
    if claim == "aud":
        return InvalidToken("wrong_audience", "ask the issuer for a token for this service")
    if claim in ("nbf", "iat") and isinstance(value, int | float):
        return InvalidToken("not_yet_valid", f"wait, or set the issuer's clock: {claim} is in the future")
    return _bad_claim(claim, "of its registered type")


def _subject(claim: str, value: object) -> str:
    # It is written into events for ever. An e-mail address or a number in there could never be
    # erased, and a space or a semicolon could pass for part of our own notation.
    return _text(claim, value, _SUBJECT, "an opaque id without personal data: letters, digits and ._~:/|=-")


def _tenant(value: object) -> UUID | None:
    if value is None:
        return None
    try:
        tenant_id = UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise _bad_claim("tenant", "a UUID") from None
    if str(tenant_id) != value:
        raise _bad_claim("tenant", "a UUID in lower case with hyphens")
    return tenant_id


def _roles(value: object) -> frozenset[str]:
    roles = [_text("roles", role, _NODE) for role in _list("roles", value)]
    if not ROLES.issuperset(roles):
        # Guessing what an unknown role allows is worse than refusing the token.
        raise InvalidToken("unknown_role", f"name only roles among {', '.join(sorted(ROLES))}")
    return frozenset(roles)


def _acted_by(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad_claim("act", "an object with a sub (RFC 8693)")
    # Actors nested further in are history, says RFC 8693, section 4.1: the outermost one acts now.
    return _subject("act", value.get("sub"))


def _list(claim: str, value: object) -> list[object]:
    # Not even null passes for "empty": an empty `nodes` means the whole tenant.
    if not isinstance(value, list):
        raise _bad_claim(claim, "a list of strings")
    return value


def _text(claim: str, value: object, form: re.Pattern[str], expected: str = "printable ASCII text") -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _bad_claim(claim, expected)
    return value


def _bad_claim(claim: str, expected: str) -> InvalidToken:
    return InvalidToken("bad_claim", f"have the issuer make {claim} {expected}")


def _usable_key(entry: object) -> tuple[str, Key] | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return None
    curve = None if entry.get("kty") == "RSA" else entry.get("crv")
    algorithm = ALGORITHMS.get((str(entry.get("kty")), curve if curve is None else str(curve)))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    # Whoever publishes a private key has lost it.
    if "d" in entry or (algorithm == "RS256" and len(str(entry.get("n"))) < _RSA_2048_CHARACTERS):
        return None
    try:
        key = JWKRegistry.import_key(entry)
        key.check_key_op("verify")
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    return algorithm, key


def _key_set(content: bytes) -> Mapping[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise UnusableKeys("it is not a JSON object")
    return found


def _downloaded(url: str) -> Mapping[str, Any]:
    # Here, not above: only processes that ask an issuer over the network pay for the import.
    import httpx2  # noqa: PLC0415

    content = b""
    try:
        with httpx2.stream("GET", url, timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False) as answer:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > KEYS_BYTES_MAX:
                    raise UnusableKeys(f"the answer is longer than {KEYS_BYTES_MAX} bytes")
    except httpx2.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return _key_set(content)
