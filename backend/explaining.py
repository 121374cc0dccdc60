"""Explaining on the command line: what the API's `explain` tells a carrier, by the same code.

It only looks: the log stays with whoever writes it.
"""

from typing import Any
from uuid import UUID

from ..domain.tenant import Tenant
from ..tenants.identity import Principal
from .engine import Engine
from .log import PostgresLog, replay
from .web.request_context import RequestContext, Turns


async def explained(engine: Engine, tenant: UUID, usage_id: str) -> dict[str, Any] | None:
    """What the API's `explain` answers to the carrier."""
    # Here, not above: GraphQL takes longer to load than most commands to run.
    from ..graphql.schema import schema  # noqa: PLC0415

    principal = Principal("command-line", "command-line", tenant, frozenset({"carrier"}), (), 2**40)
    context = _Reading(engine, principal, Turns())
    result = await schema.execute(EXPLAIN, variable_values={"id": usage_id}, context_value=context)
    if result.errors:
        raise RuntimeError(result.errors[0].message)
    return result.data["explain"] if result.data else None


class _Reading(RequestContext):
    """Looks without taking the log over from whoever writes it."""

    async def state(self) -> Tenant:
        return await self._engine.in_thread(self._folded)

    def _folded(self) -> Tenant:
        state = Tenant()
        for told in replay(PostgresLog(self._engine.isolation, self.tenant_id)):
            state.apply(told.event)
        return state


EXPLAIN = """
query Explain($id: ID!) {
  explain(usageId: $id) {
    usageId status sentence source recordId usageType unit direction startedAt period quantity
    personal line counterpart
    path { id name kind }
    steering { rule payer }
    rating {
      tariff tariffVersion validFrom rateIndex prefix zone price per connectFee currency increment minimum
      included billed overage exactFraction exactAmount roundingMethod roundingDecimals amount
      contractPrice { contract version price per }
      plan { plan kind countedAt { id } before units charged }
      origin window times
      components { kind part begins ends band window price per increment blocks exactFraction exactAmount }
    }
    drawn { node { id name } quantity }
    credit { node { id name } quantity }
    amount payable currency
    limits { node { id name } usageType quantity setBy }
    crossings { node { id name } usageType percent used limit seq }
    stop {
      reason window node { id name } counted used limit billed mayRaise { id name } raisers { role upTo }
    }
    ruling { policy version action limitOf { id name } counted window percent threshold kbps above price per }
    suspension { reason field detail position }
    attributes { name value }
    waited { usageId reason since attempts acceptedLate amendments { seq fields note actor recordedAt } }
    left { outcome usageId seq amount note actor askedBy recordedAt }
    eventSeqs recordedAt actor
    reratings {
      seq job cause wasAmount amount payable byZone correctedIn recordedAt
      rating { tariffVersion prefix zone billed overage exactFraction amount }
      drawn { node { id name } quantity }
      credit { node { id name } quantity }
    }
  }
}
"""
