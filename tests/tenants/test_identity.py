import asyncio
import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import UUID

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from allotment.tenants import identity
from allotment.tenants.identity import (
    InvalidToken,
    IssuerKeys,
    KeysUnavailable,
    TokenVerifier,
    UnusableKeys,
    keys_from_file,
    keys_from_url,
    usable_keys,
)

NOW = 1_800_000_000
ISSUER = "https://login.carrier.example"
AUDIENCE = "urn:allotment"
TENANT = "0b7c9a52-6c1e-4f0e-9d5c-1f2e3d4c5b6a"
MISSING = object()

EC = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
P384 = ECKey.generate_key("P-384", {"kid": "p384"})
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})

CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "8f3a",
    "client_id": "portal",
    "iat": NOW,
    "exp": NOW + 600,
    "jti": "1",
    "tenant": TENANT,
    "roles": ["telecoms_manager"],
    "nodes": ["emea"],
}
PUBLIC = {"keys": [key.as_dict(private=False) for key in (EC, RSA, ED, P384)]}


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def verifier(clock):
    return TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(lambda: PUBLIC), now=clock)


def signed(key=EC, alg="ES256", header=(), **claims):
    header = {"typ": "at+jwt", "alg": alg, "kid": key.kid, **dict(header)}
    header = {name: value for name, value in header.items() if value is not MISSING}
    claims = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not MISSING}
    return jwt.encode(header, claims, key, algorithms=[alg], default_type=None)


def b64(content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def forged(header, claims=CLAIMS, signature=b"x" * 64):
    return f"{b64(header)}.{b64(claims)}.{b64(signature)}"


def signed_with_public_key_as_secret():
    """The classic confusion: HS256, keyed with the PEM everybody can have."""
    signing_input = f"{b64({'typ': 'at+jwt', 'alg': 'HS256', 'kid': 'ec'})}.{b64(CLAIMS)}"
    secret = EC.as_pem(private=False)
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def tampered():
    header, _, signature = signed().split(".")
    return f"{header}.{b64({**CLAIMS, 'roles': ['carrier']})}.{signature}"


def refusal(verifier, token):
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    assert refused.value.remedy
    return refused.value.code


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES256"), (RSA, "RS256"), (ED, "Ed25519")])
def test_a_token_becomes_the_principal_it_describes(verifier, key, alg):
    principal = verifier.verify(signed(key, alg))
    assert principal.subject == "8f3a"
    assert principal.client_id == "portal"
    assert principal.tenant_id == UUID(TENANT)
    assert principal.roles == {"telecoms_manager"}
    assert principal.nodes == ("emea",)
    assert principal.expires_at == NOW + 600
    assert principal.actor == "telecoms_manager:8f3a"
    assert principal.acting_for is None


ATTACKS = {
    "empty": ("", "malformed"),
    "no_segments": ("secret", "malformed"),
    "two_segments": ("a.b", "malformed"),
    "four_segments": (signed() + ".x", "malformed"),
    "encrypted": ("a.b.c.d.e", "malformed"),
    "trailing_newline": (signed() + "\n", "malformed"),
    "leading_space": (" " + signed(), "malformed"),
    "non_ascii": (signed() + "é", "malformed"),
    "fullwidth_digits": ("\uff11.\uff12.\uff13", "malformed"),
    "padding": (signed() + "=", "malformed"),
    "nul": (signed() + "\0", "malformed"),
    "header_is_not_json": (f"{b64(b'{')}.{b64(CLAIMS)}.x", "malformed"),
    "header_is_deep": (f"{b64(b'[' * 5000)}.{b64(CLAIMS)}.x", "malformed"),
    "header_is_a_list": (forged(["alg"]), "refused_header"),
    "header_is_a_number": (forged(1), "refused_header"),
    "algorithm_is_a_list": (forged({"typ": "at+jwt", "alg": ["ES256"], "kid": "ec"}), "refused_header"),
    "oversize": (signed(sub="s" * 8192), "too_large"),
    "oversize_before_parsing": ("é" * 8193, "too_large"),
    "none_unsigned": (forged({"typ": "at+jwt", "alg": "none", "kid": "ec"}, signature=b""), "malformed"),
    "none": (forged({"typ": "at+jwt", "alg": "none", "kid": "ec"}), "wrong_algorithm"),
    "none_in_capitals": (forged({"typ": "at+jwt", "alg": "NONE", "kid": "ec"}), "wrong_algorithm"),
    "no_algorithm": (forged({"typ": "at+jwt", "kid": "ec"}), "wrong_algorithm"),
    "public_key_as_secret": (signed_with_public_key_as_secret(), "wrong_algorithm"),
    "shared_secret": (signed(OctKey.generate_key(256, {"kid": "ec"}), "HS256"), "wrong_algorithm"),
    "deprecated_name": (forged({"typ": "at+jwt", "alg": "EdDSA", "kid": "ed"}), "wrong_algorithm"),
    "key_of_another_algorithm": (signed(EC, header={"kid": "rsa"}), "wrong_algorithm"),
    "curve_we_do_not_use": (forged({"typ": "at+jwt", "alg": "ES256", "kid": "p384"}), "unknown_key"),
    "embedded_key": (signed(STRANGER, header={"jwk": STRANGER.as_dict(private=False)}), "refused_header"),
    "key_address": (signed(STRANGER, header={"jku": "https://evil.example/jwks"}), "refused_header"),
    "certificate_address": (signed(STRANGER, header={"x5u": "https://evil.example/c"}), "refused_header"),
    "critical_extension": (
        forged({"typ": "at+jwt", "alg": "ES256", "kid": "ec", "crit": ["exp"]}),
        "refused_header",
    ),
    "unencoded_payload": (
        forged({"typ": "at+jwt", "alg": "ES256", "kid": "ec", "b64": False, "crit": ["b64"]}),
        "refused_header",
    ),
    "missing_key_id": (signed(header={"kid": MISSING}), "missing_key_id"),
    "empty_key_id": (signed(header={"kid": ""}), "missing_key_id"),
    "unknown_key_id": (signed(header={"kid": "other"}), "unknown_key"),
    "path_as_key_id": (signed(header={"kid": "../../dev/null"}), "unknown_key"),
    "stranger_with_our_key_id": (signed(STRANGER), "bad_signature"),
    "tampered_payload": (tampered(), "bad_signature"),
    "signature_removed": (forged({"typ": "at+jwt", "alg": "ES256", "kid": "ec"}), "bad_signature"),
    "zero_signature": (
        forged({"typ": "at+jwt", "alg": "ES256", "kid": "ec"}, signature=bytes(64)),
        "bad_signature",
    ),
    "short_signature": (
        forged({"typ": "at+jwt", "alg": "ES256", "kid": "ec"}, signature=b"x"),
        "bad_signature",
    ),
    "id_token": (signed(header={"typ": "JWT"}), "wrong_type"),
    "no_type": (signed(header={"typ": MISSING}), "wrong_type"),
    "logout_token": (signed(header={"typ": "logout+jwt"}), "wrong_type"),
}


@pytest.mark.parametrize(("token", "code"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_refused_by_name(verifier, token, code):
    assert refusal(verifier, token) == code
    # Nor is it remembered as good.
    assert refusal(verifier, token) == code


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW - 30}, "expired"),
        ({"exp": MISSING}, "missing_claim"),
        ({"exp": str(NOW + 600)}, "bad_claim"),
        ({"exp": float("nan")}, "bad_claim"),
        ({"exp": float("inf")}, "bad_claim"),
        ({"exp": True}, "bad_claim"),
        ({"exp": 10**400}, "bad_claim"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"nbf": "now"}, "bad_claim"),
        ({"iat": NOW + 31}, "not_yet_valid"),
        ({"iat": MISSING}, "missing_claim"),
        ({"iss": MISSING}, "missing_claim"),
        ({"iss": ISSUER + "/"}, "wrong_issuer"),
        ({"iss": [ISSUER]}, "wrong_issuer"),
        ({"aud": MISSING}, "missing_claim"),
        ({"aud": "urn:sibling"}, "wrong_audience"),
        ({"aud": ["urn:sibling", "urn:allotment-2"]}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": {AUDIENCE: 1}}, "wrong_audience"),
        ({"sub": MISSING}, "missing_claim"),
        ({"sub": ""}, "bad_claim"),
        ({"sub": 7}, "bad_claim"),
        ({"sub": "ada@acme.example"}, "bad_claim"),
        ({"sub": "+442071838750"}, "bad_claim"),
        ({"sub": "8f3a;act=root"}, "bad_claim"),
        ({"sub": "8f3a\n"}, "bad_claim"),
        ({"sub": "8f3\u0430"}, "bad_claim"),
        ({"client_id": MISSING}, "missing_claim"),
        ({"client_id": ["portal"]}, "bad_claim"),
        ({"tenant": "acme"}, "bad_claim"),
        ({"tenant": TENANT.upper()}, "bad_claim"),
        ({"tenant": f"urn:uuid:{TENANT}"}, "bad_claim"),
        ({"tenant": ""}, "bad_claim"),
        ({"tenant": [TENANT]}, "bad_claim"),
        ({"roles": ["root"]}, "unknown_role"),
        ({"roles": ["auditor", "Carrier"]}, "unknown_role"),
        ({"roles": "carrier"}, "bad_claim"),
        ({"roles": [["carrier"]]}, "bad_claim"),
        ({"roles": None}, "bad_claim"),
        ({"nodes": None}, "bad_claim"),
        ({"nodes": "emea"}, "bad_claim"),
        ({"nodes": [""]}, "bad_claim"),
        ({"nodes": [1]}, "bad_claim"),
        ({"act": "c41d"}, "bad_claim"),
        ({"act": {}}, "bad_claim"),
        ({"act": {"sub": "ops@carrier.example"}}, "bad_claim"),
    ],
)
def test_a_signed_token_with_a_bad_claim_is_refused(verifier, claims, code):
    assert refusal(verifier, signed(**claims)) == code


@pytest.mark.parametrize(
    "payload", [b"[]", b"1", b"nonsense", b"\xff", b"[" * 5000, b'{"exp":' + b"9" * 5000]
)
def test_a_signed_payload_that_is_no_object_is_refused(verifier, payload):
    from joserfc import jws

    token = jws.serialize_compact({"typ": "at+jwt", "alg": "ES256", "kid": "ec"}, payload, EC, ["ES256"])
    assert refusal(verifier, token) == "malformed"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 29},
        {"nbf": NOW + 30},
        {"iat": NOW + 30},
        {"aud": ["urn:sibling", AUDIENCE]},
        {"exp": NOW + 0.5},
    ],
)
def test_clocks_may_differ_by_the_leeway_and_audiences_may_be_several(verifier, claims):
    assert verifier.verify(signed(**claims)).subject == "8f3a"


@pytest.mark.parametrize("type_", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_type_is_a_media_type(verifier, type_):
    assert verifier.verify(signed(header={"typ": type_})).subject == "8f3a"


def test_a_token_without_tenant_names_none(verifier):
    assert verifier.verify(signed(tenant=MISSING)).tenant_id is None


def test_a_token_without_roles_and_nodes_holds_no_role(verifier):
    principal = verifier.verify(signed(roles=MISSING, nodes=MISSING))
    assert (principal.roles, principal.nodes, principal.actor) == (frozenset(), (), "none:8f3a")


def test_events_learn_both_who_acts_and_for_whom(verifier):
    principal = verifier.verify(signed(act={"sub": "c41d", "act": {"sub": "earlier"}}))
    assert principal.actor == "telecoms_manager:8f3a;act=c41d"
    assert (principal.acted_by, principal.acting_for) == ("c41d", "8f3a")


def test_several_roles_are_named_in_one_order(verifier):
    assert verifier.verify(signed(roles=["carrier", "auditor"])).actor == "auditor+carrier:8f3a"


def test_a_refusal_does_not_repeat_the_token(verifier):
    token = signed(exp=NOW - 600)
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    assert not any(part in str(refused.value) for part in token.split("."))


def test_a_remembered_token_still_expires(verifier, clock):
    token = signed(exp=NOW + 100)
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    clock.now = NOW + 130
    assert refusal(verifier, token) == "expired"


def test_a_withdrawn_key_stops_working(clock):
    keys = {"keys": [EC.as_dict(private=False), ED.as_dict(private=False)]}
    verifier = TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(lambda: keys), now=clock)
    token = signed(exp=NOW + 100_000)
    verifier.verify(token)
    keys["keys"] = [ED.as_dict(private=False)]
    clock.now += identity.KEYS_SECONDS_MAX
    assert refusal(verifier, token) == "unknown_key"


def test_only_so_many_tokens_are_remembered(verifier, monkeypatch):
    monkeypatch.setattr(identity, "VERIFIED_MAX", 2)
    tokens = [signed(jti=str(i)) for i in range(3)]
    first, second, _ = [verifier.verify(token) for token in tokens]
    assert verifier.verify(tokens[1]) is second
    assert verifier.verify(tokens[0]) is not first


class Source:
    """An issuer's key address that can be changed, can fail, and counts."""

    def __init__(self, *keys):
        self.keys = keys
        self.fetches = 0
        self.fails = False

    def __call__(self):
        self.fetches += 1
        if self.fails:
            raise OSError("no route")
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


def test_an_unknown_key_is_looked_for_once_per_cool_down(clock):
    source = Source(EC)
    verifier = TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(source), now=clock)
    verifier.verify(signed())
    for i in range(5):
        assert refusal(verifier, signed(ED, "Ed25519", jti=str(i))) == "unknown_key"
    assert source.fetches == 1
    source.keys = (EC, ED)
    clock.now += identity.KEYS_COOL_DOWN_SECONDS
    assert verifier.verify(signed(ED, "Ed25519")).subject == "8f3a"
    assert source.fetches == 2


def test_keys_stay_in_force_while_the_issuer_cannot_be_reached(clock):
    source = Source(EC)
    verifier = TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(source), now=clock)
    verifier.verify(signed())
    source.fails = True
    clock.now += 10 * identity.KEYS_SECONDS_MAX
    later = {"iat": clock.now, "exp": clock.now + 60}
    assert verifier.verify(signed(**later)).subject == "8f3a"
    assert refusal(verifier, signed(ED, "Ed25519", **later)) == "unknown_key"
    assert source.fetches == 2


def test_without_any_key_no_token_is_judged_and_the_issuer_is_soon_asked_again(clock):
    source = Source(EC)
    source.fails = True
    verifier = TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(source), now=clock)
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            verifier.verify(signed())
    assert source.fetches == 1
    source.fails = False
    clock.now += identity.KEYS_RETRY_SECONDS
    assert verifier.verify(signed()).subject == "8f3a"


def test_an_event_loop_leaves_its_thread_only_to_fetch(clock):
    threads = []

    def fetch():
        threads.append(threading.current_thread())
        return PUBLIC

    verifier = TokenVerifier(ISSUER, AUDIENCE, IssuerKeys(fetch), now=clock)

    async def verify_all():
        return [await verifier.verified(signed(jti=str(i))) for i in (1, 2, 2)]

    assert len(asyncio.run(verify_all())) == 3
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    with pytest.raises(InvalidToken, match="malformed"):
        asyncio.run(verifier.verified("x"))


PUBLIC_EC = EC.as_dict(private=False)


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        {},
        {name: value for name, value in PUBLIC_EC.items() if name != "kid"},
        {**PUBLIC_EC, "kid": 7},
        {**PUBLIC_EC, "use": "enc"},
        {**PUBLIC_EC, "alg": "ES384"},
        {**PUBLIC_EC, "key_ops": ["sign"]},
        {**PUBLIC_EC, "x": "AA"},
        {**PUBLIC_EC, "x": 1},
        {**PUBLIC_EC, "crv": ["P-256"]},
        EC.as_dict(private=True),
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "AKP", "kid": "later", "pub": "AA"},
        {
            **RSA.as_dict(private=False),
            "n": "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u",
        },
    ],
)
def test_a_key_we_must_not_use_is_left_out_and_the_others_stay(entry):
    assert list(usable_keys({"keys": [entry, ED.as_dict(private=False)]})) == ["ed"]
    with pytest.raises(UnusableKeys):
        usable_keys({"keys": [entry]})


def test_a_key_file_is_read_again_when_a_key_is_unknown(tmp_path, clock):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(Source(EC)()))
    verifier = TokenVerifier(ISSUER, AUDIENCE, keys_from_file(path), now=clock)
    verifier.verify(signed())
    path.write_text(json.dumps(Source(EC, ED)()))
    clock.now += identity.KEYS_COOL_DOWN_SECONDS
    assert verifier.verify(signed(ED, "Ed25519")).subject == "8f3a"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"keys": []}', '{"keys": {}}', "\xff"])
def test_an_unusable_key_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UnusableKeys, match=r"jwks\.json"):
        keys_from_file(path)


@pytest.mark.parametrize(
    ("url", "allow_http", "accepted"),
    [
        ("https://login.example/jwks", False, True),
        ("http://127.0.0.1:9/jwks", False, True),
        ("http://keycloak:8080/jwks", False, False),
        ("http://keycloak:8080/jwks", True, True),
        ("file:///etc/passwd", True, False),
        ("http://localhost.evil.example/jwks", False, False),
    ],
)
def test_keys_come_over_tls_unless_a_setting_says_otherwise(url, allow_http, accepted):
    if accepted:
        assert keys_from_url(url, allow_http=allow_http)
    else:
        with pytest.raises(ValueError, match="https"):
            keys_from_url(url, allow_http=allow_http)


@pytest.fixture
def key_server():
    answer = {"status": 200, "body": json.dumps(PUBLIC).encode()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("Location", "/again")
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks", answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_are_read_from_the_issuers_address(key_server, clock):
    url, _ = key_server
    verifier = TokenVerifier(ISSUER, AUDIENCE, keys_from_url(url), now=clock)
    assert verifier.verify(signed()).subject == "8f3a"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (302, b""), (200, b"<html>"), (200, b"[]"), (200, b" " * (identity.KEYS_BYTES_MAX + 1))],
)
def test_an_answer_that_is_no_key_set_gives_no_keys(key_server, clock, status, body):
    url, answer = key_server
    answer.update(status=status, body=body)
    with pytest.raises(KeysUnavailable):
        keys_from_url(url).find("ec", NOW)


def test_an_address_nobody_answers_gives_no_keys():
    with pytest.raises(KeysUnavailable):
        keys_from_url("http://127.0.0.1:1/jwks").find("ec", NOW)
