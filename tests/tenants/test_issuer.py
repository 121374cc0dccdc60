import base64
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote_plus
from uuid import UUID

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from allotment.tenants.identity import AUDIENCE, InvalidToken, IssuerKeys, TokenVerifier
from allotment.tenants.issuer import (
    FILE_NAME,
    LIFETIME_SECONDS,
    LIFETIME_SECONDS_MAX,
    DevelopmentClient,
    DevelopmentIssuer,
    NotForProduction,
    protected_resource_metadata,
    token_headers,
)

NOW = 1_800_000_000
URL = "http://127.0.0.1:8080"
TENANT = UUID("0b7c9a52-6c1e-4f0e-9d5c-1f2e3d4c5b6a")
MEDIATION = DevelopmentClient("mediation", "s:e c/r%t+é", TENANT, ("mediation",))
GRANT = {"grant_type": "client_credentials"}
POSTED = {**GRANT, "client_id": "mediation", "client_secret": MEDIATION.secret}


def make(folder=None, **settings):
    return DevelopmentIssuer(URL, environment="development", folder=folder, now=lambda: NOW, **settings)


@pytest.fixture
def issuer():
    issuer = make()
    issuer.register(MEDIATION)
    return issuer


def verify(issuer, token, now=NOW):
    return TokenVerifier(URL, AUDIENCE, IssuerKeys(issuer.jwks), now=lambda: now).verify(token)


def basic(client_id=MEDIATION.client_id, secret=MEDIATION.secret):
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_a_minted_token_proves_what_was_minted(issuer):
    token = issuer.mint("8f3a", TENANT, ["telecoms_manager"], ["emea"], client_id="portal", act="c41d")
    principal = verify(issuer, token)
    assert principal.tenant_id == TENANT
    assert principal.nodes == ("emea",)
    assert principal.actor == "telecoms_manager:8f3a;act=c41d"
    assert principal.expires_at == NOW + LIFETIME_SECONDS


def test_a_minted_token_has_the_form_of_rfc_9068():
    issuer = make(new_id=lambda: "id-1")
    signed = jws.extract_compact(issuer.mint("8f3a", TENANT, ["mediation"]).encode())
    assert signed.headers() == {"typ": "at+jwt", "alg": "ES256", "kid": issuer.jwks()["keys"][0]["kid"]}
    assert json.loads(signed.payload) == {
        "iss": URL,
        "aud": AUDIENCE,
        "sub": "8f3a",
        "client_id": "development",
        "iat": NOW,
        "exp": NOW + 3600,
        "jti": "id-1",
        "roles": ["mediation"],
        "nodes": [],
        "scope": "usage:write",
        "tenant": str(TENANT),
    }


def test_a_token_without_tenant_names_none(issuer):
    assert verify(issuer, issuer.mint("8f3a", None, ["carrier"])).tenant_id is None


def test_a_token_ends_with_its_lifetime(issuer):
    token = issuer.mint("8f3a", TENANT, ["auditor"], lifetime_seconds=60)
    with pytest.raises(InvalidToken, match="expired"):
        verify(issuer, token, NOW + 90)


@pytest.mark.parametrize(
    ("subject", "roles", "nodes", "lifetime_seconds"),
    [
        ("ada@acme.example", ["auditor"], [], 60),
        ("", ["auditor"], [], 60),
        ("8f3a", ["root"], [], 60),
        ("8f3a", ["auditor"], [""], 60),
        ("8f3a", ["auditor"], [], 0),
        ("8f3a", ["auditor"], [], LIFETIME_SECONDS_MAX + 1),
    ],
)
def test_what_the_verifier_would_refuse_is_not_signed(issuer, subject, roles, nodes, lifetime_seconds):
    with pytest.raises(ValueError, match=r"sub|unknown_role|nodes|lifetime_seconds"):
        issuer.mint(subject, TENANT, roles, nodes, lifetime_seconds=lifetime_seconds)


def test_another_issuers_token_is_not_ours(issuer):
    with pytest.raises(InvalidToken, match="unknown_key"):
        verify(issuer, make().mint("8f3a", TENANT, ["carrier"]))


@pytest.mark.parametrize("environment", ["production", "Production ", "prod"])
def test_it_refuses_to_exist_in_production(environment):
    with pytest.raises(NotForProduction):
        DevelopmentIssuer(URL, environment=environment)


def test_an_argument_does_not_overrule_the_setting(monkeypatch):
    monkeypatch.setenv("ALLOTMENT_ENV", "production")
    with pytest.raises(NotForProduction):
        make()


@pytest.mark.parametrize(
    "url", ["", "login.example", "http://h/", "http://h/path", "http://h?x", "file:///h"]
)
def test_an_issuer_is_an_address_without_path(url):
    with pytest.raises(ValueError, match="issuer"):
        DevelopmentIssuer(url, environment="test")


def test_only_the_public_half_of_the_key_is_published(issuer):
    (key,) = issuer.jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


@pytest.mark.parametrize(
    ("form", "authorization"),
    [
        (GRANT, basic()),
        (GRANT, basic().replace("Basic", "basic")),
        ({**GRANT, "client_id": "mediation"}, basic()),
        (POSTED, None),
        ({**POSTED, "scope": "usage:write"}, None),
        ({**POSTED, "resource": AUDIENCE}, None),
        ({**POSTED, "resource": URL}, None),
    ],
)
def test_a_client_with_its_secret_gets_a_token(issuer, form, authorization):
    status, body = issuer.token_response(form, authorization, NOW + 5)
    assert status == 200
    assert {name: body[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "usage:write",
    }
    principal = verify(issuer, body["access_token"], NOW + 5)
    assert (principal.client_id, principal.roles, principal.tenant_id) == ("mediation", {"mediation"}, TENANT)
    assert principal.expires_at == NOW + 5 + 3600


@pytest.mark.parametrize(
    ("form", "authorization", "status", "error"),
    [
        ({}, None, 401, "invalid_client"),
        (GRANT, None, 401, "invalid_client"),
        (GRANT, "", 401, "invalid_client"),
        (GRANT, "Basic", 401, "invalid_client"),
        (GRANT, "Basic !!!", 401, "invalid_client"),
        (GRANT, "Basic é", 401, "invalid_client"),
        (GRANT, "Basic /w==", 401, "invalid_client"),
        (GRANT, "Basic bm9jb2xvbg==", 401, "invalid_client"),
        (GRANT, "Bearer " + basic()[6:], 401, "invalid_client"),
        (GRANT, basic(secret="wrong"), 401, "invalid_client"),
        (GRANT, basic(secret=""), 401, "invalid_client"),
        (GRANT, basic("nobody", ""), 401, "invalid_client"),
        ({**POSTED, "client_secret": "wrong"}, None, 401, "invalid_client"),
        ({**POSTED, "client_secret": ""}, None, 401, "invalid_client"),
        ({**POSTED, "client_secret": "\ud800"}, None, 401, "invalid_client"),
        (POSTED, basic(), 400, "invalid_request"),
        ({**GRANT, "client_id": "other"}, basic(), 400, "invalid_request"),
        ({}, basic(), 400, "invalid_request"),
        ({"grant_type": "password"}, basic(), 400, "unsupported_grant_type"),
        ({**GRANT, "scope": "usage:write read"}, basic(), 400, "invalid_scope"),
        ({**GRANT, "resource": "urn:sibling"}, basic(), 400, "invalid_target"),
    ],
)
def test_a_bad_request_gets_the_error_of_rfc_6749(issuer, form, authorization, status, error):
    answered, body = issuer.token_response(form, authorization, NOW)
    assert (answered, body["error"]) == (status, error)
    assert set(body) == {"error", "error_description"}


def test_a_stranger_and_a_wrong_secret_get_the_same_answer(issuer):
    stranger = issuer.token_response(GRANT, basic("nobody", "x"), NOW)
    assert stranger == issuer.token_response(GRANT, basic(secret="x"), NOW)


def test_token_answers_are_not_kept_by_caches():
    assert token_headers(200) == {"Cache-Control": "no-store", "Pragma": "no-cache"}
    assert token_headers(401)["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "client",
    [
        DevelopmentClient("mediation", "", TENANT, ("mediation",)),
        DevelopmentClient("med iation", "s", TENANT, ("mediation",)),
        DevelopmentClient("mediation", "s", TENANT, ("root",)),
        DevelopmentClient("mediation", "s", TENANT, ("mediation",), ("",)),
    ],
)
def test_a_client_that_could_never_use_its_token_is_not_registered(issuer, client):
    with pytest.raises(ValueError, match="client med"):
        issuer.register(client)


def test_the_metadata_leads_from_the_product_to_its_token_endpoint(issuer):
    resource = issuer.resource_metadata()
    assert resource == protected_resource_metadata(URL, [URL])
    assert resource["authorization_servers"] == [issuer.metadata()["issuer"]]
    assert issuer.metadata()["token_endpoint"] == URL + "/oauth/token"
    assert issuer.metadata()["jwks_uri"] == URL + "/oauth/jwks.json"
    assert "usage:write" in issuer.metadata()["scopes_supported"]


def test_processes_that_name_one_folder_are_one_issuer(tmp_path):
    folder = tmp_path / "home"
    first, second = make(folder), make(folder)
    assert first.jwks() == second.jwks()
    first.register(MEDIATION)
    status, body = second.token_response(GRANT, basic(), NOW)
    assert status == 200
    assert verify(first, body["access_token"]).subject == "mediation"


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    def slow_key():
        time.sleep(0.1)
        return ECKey.generate_key("P-256")

    # The lock belongs to the opened file, so threads stand in for processes.
    with ThreadPoolExecutor(3) as starting:
        issuers = list(starting.map(lambda _: make(tmp_path, new_key=slow_key), range(3)))
    assert len({issuer.jwks()["keys"][0]["kid"] for issuer in issuers}) == 1


def test_the_file_is_private_and_holds_no_secret_in_clear(tmp_path):
    old = os.umask(0)
    try:
        make(tmp_path).register(MEDIATION)
    finally:
        os.umask(old)
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.dumps(MEDIATION.secret) not in path.read_text()


def test_a_file_that_others_may_read_is_refused(tmp_path):
    make(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        make(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"key": 1, "clients": {}}', '{"key": {"kty": "EC"}, "clients": {}}']
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / FILE_NAME
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"issuer\.json"):
        make(tmp_path)


def test_a_client_registered_again_has_its_new_secret_only(issuer):
    issuer.register(DevelopmentClient("mediation", "new", TENANT, ("mediation",)))
    assert issuer.token_response(GRANT, basic(), NOW)[0] == 401
    assert issuer.token_response(GRANT, basic(secret="new"), NOW)[0] == 200
