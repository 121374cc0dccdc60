"""Who calls: from the bearer token of a request to the principal and its tenant.

The tenant comes from the verified token alone, and must be one that is served here: a log is never
opened for a name that nobody onboarded.
"""

import asyncio
from uuid import UUID

from ...tenants.access import Verb, require
from ...tenants.identity import Principal, TokenVerifier
from ...tenants.onboarding import TenantEntry, UnknownTenant, find_tenant
from ..engine import Engine
from .problem_details import AnyRequest, HttpProblem, not_authenticated


class Callers:
    """Checks tokens, and remembers which tenants there are: they come, and never go."""

    def __init__(self, engine: Engine, verifier: TokenVerifier) -> None:
        self._engine = engine
        self._verifier = verifier
        self._tenants: dict[UUID, TenantEntry] = {}

    async def principal(self, request: AnyRequest) -> Principal:
        given = request.headers.getall("authorization", [])
        if not given:
            raise not_authenticated(
                request, "missing_token", "send `Authorization: Bearer` and an access token"
            )
        scheme, _, token = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            raise not_authenticated(
                request, "malformed", "send one `Authorization: Bearer` and an access token"
            )
        return await self._verifier.verified(token.strip())

    async def known(self, token: str) -> Principal:
        """Who it is, and that its tenant is served here."""
        principal = await self._verifier.verified(token)
        if principal.tenant_id is not None:
            await self.entry(principal.tenant_id)
        return principal

    async def tenant(self, principal: Principal, verb: Verb) -> TenantEntry:
        """The tenant in which the principal may do this; NotPermitted otherwise."""
        tenant_id = require(principal, verb)
        return await self.entry(tenant_id)

    async def entry(self, tenant_id: UUID) -> TenantEntry:
        known = self._tenants.get(tenant_id)
        if known is None:
            try:
                known = await asyncio.shield(
                    self._engine.in_thread(lambda: find_tenant(self._engine.isolation, str(tenant_id)))
                )
            except UnknownTenant:
                raise HttpProblem(
                    403,
                    "unknown_tenant",
                    "the token's tenant is not served here: use the address it belongs to",
                ) from None
            self._tenants[tenant_id] = known
        return known
