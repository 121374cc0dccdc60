"""Who is asking, for which enterprise, and which periods are open."""

import strawberry
from strawberry import ID

from ..projections import balances
from ..tenants.access import VERBS, may
from .asking import permit
from .context import Info
from .contracts import ContractTerms, terms_told
from .scalars import Moment, Money, Seq


@strawberry.type(description="The principal that your token proves.")
class Me:
    subject: ID
    client_id: ID
    roles: list[str]
    verbs: list[str] = strawberry.field(description="What you may do.")
    nodes: list[ID] = strawberry.field(description="The subtrees you are bound to; empty means all of it.")
    tenant_id: ID | None
    acted_by: str | None = strawberry.field(description="Who really acts, when somebody acts for you.")
    expires_at: Moment


@strawberry.type(description="The enterprise.")
class Tenant:
    id: ID
    name: str
    carrier: str
    time_zone: str
    currency: str


@strawberry.type(description="A stretch of time that is open for charging, in the tenant's time zone.")
class Period:
    period: str
    starts_at: Moment
    ends_at: Moment = strawberry.field(description="The end itself is not in it.")
    contract: str
    version: int
    overage: bool = strawberry.field(description="Whether usage beyond the allowance is charged or denied.")
    share: str = strawberry.field(
        description='The part of a whole period that grants and commitment are for: "1/1".'
    )
    commitment: Money = strawberry.field(description="Spend agreed for this period.")
    terms: ContractTerms = strawberry.field(description="What was agreed when it was opened.")
    seq: Seq = strawberry.field(description="The event that opened it.")


async def me(info: Info) -> Me:
    principal = info.context.principal
    return Me(
        subject=ID(principal.subject),
        client_id=ID(principal.client_id),
        roles=sorted(principal.roles),
        verbs=[verb for verb in VERBS if may(principal, verb)],
        nodes=[ID(node) for node in principal.nodes],
        tenant_id=ID(str(principal.tenant_id)) if principal.tenant_id else None,
        acted_by=principal.acted_by,
        expires_at=Moment(principal.expires_at * 1_000_000),
    )


async def tenant(info: Info) -> Tenant | None:
    """Null until it has been opened."""
    permit(info.context, "read")
    opened = (await info.context.state()).opened
    if opened is None:
        return None
    return Tenant(
        id=ID(str(info.context.tenant_id)),
        name=opened.name,
        carrier=opened.carrier,
        time_zone=opened.time_zone,
        currency=opened.currency,
    )


async def periods(info: Info) -> list[Period]:
    """In order; a period is opened when it is first needed."""
    permit(info.context, "read")
    _, found = await info.context.read(balances.periods, ("balances",))
    terms = (await info.context.state()).contracts
    return [
        Period(
            period=period.period,
            starts_at=Moment(period.starts_at),
            ends_at=Moment(period.ends_at),
            contract=period.contract,
            version=period.version,
            overage=period.overage,
            share=f"{period.share_part}/{period.share_whole}",
            commitment=Money(period.commitment),
            terms=terms_told(terms.terms_under(period.contract, period.version)),
            seq=Seq(period.seq),
        )
        for period in found
    ]
