"""Problems: the ways a change can fail, as data. Codes are part of the API, messages are for people."""

import strawberry

from .scalars import Quantity


@strawberry.interface(description="Why a change was not made. Nothing has changed.")
class Problem:
    code: str = strawberry.field(description="Stable, for programs: `insufficient_allowance`.")
    message: str = strawberry.field(description="A sentence for people: what is wrong and what to do.")
    path: list[str] = strawberry.field(description="The part of the input it is about.")


@strawberry.type(description="The node has less that can move than was asked for; nothing was moved.")
class InsufficientAllowance(Problem):
    node: strawberry.ID
    usage_type: str
    period: str
    available: Quantity
    reserved: Quantity


@strawberry.type(description="The input cannot be carried out as it stands.")
class InvalidInput(Problem):
    field: str


@strawberry.type(description="There is no such node, or it is not yours to see.")
class UnknownNode(Problem):
    node: strawberry.ID


@strawberry.type(description="Your role does not include this.")
class NotPermitted(Problem):
    verb: str


@strawberry.type(description="The idempotency key was used before, for something else.")
class IdempotencyMismatch(Problem):
    pass


@strawberry.type(description="Send the same request again, with the same idempotency key.")
class TryAgain(Problem):
    retry_after_ms: int


ProblemType = (
    InsufficientAllowance | InvalidInput | UnknownNode | NotPermitted | IdempotencyMismatch | TryAgain
)
