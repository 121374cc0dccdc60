"""Believing: whose tokens the settings accept, and the issuer that development brings along."""

from pathlib import Path

from ..tenants.identity import IssuerKeys, TokenVerifier, keys_from_file, keys_from_url
from ..tenants.issuer import DevelopmentIssuer
from .settings import Settings, SettingsError


def issuer_address(settings: Settings) -> str:
    """What the development issuer calls itself: the address the API is served at."""
    if not settings.port:
        raise SettingsError("ALLOTMENT_PORT is 0: set it to the port that `allotment serve` listens on.")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def development_issuer(settings: Settings) -> DevelopmentIssuer | None:
    """The built-in issuer; None where the settings name another, or in production."""
    if settings.issuer or settings.production:
        return None
    return DevelopmentIssuer(
        issuer_address(settings),
        environment=settings.environment,
        audience=settings.audience,
        folder=settings.home,
    )


def verifier_for(settings: Settings, issuer: DevelopmentIssuer | None) -> TokenVerifier:
    if issuer is not None:
        return TokenVerifier(issuer.issuer, issuer.audience, IssuerKeys(issuer.jwks))
    if not settings.issuer or not settings.jwks:
        raise SettingsError(
            "ALLOTMENT_ISSUER and ALLOTMENT_JWKS are not both set, so no token could be checked."
            " Set them to the `iss` of your identity provider and to its public keys."
        )
    remote = settings.jwks.startswith(("http://", "https://"))
    keys = keys_from_url(settings.jwks) if remote else keys_from_file(Path(settings.jwks))
    return TokenVerifier(settings.issuer, settings.audience, keys)
