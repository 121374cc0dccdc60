"""Problems: the ways a change can fail, as data. Codes are part of the API, messages are for people."""

import strawberry

from .scalars import Json, Quantity


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


@strawberry.type(description="More would be promised by caps than there is, or than the contract allows.")
class OverCommitted(Problem):
    node: strawberry.ID
    available: Quantity = strawberry.field(description="What it has, with what it may draw above it.")
    committed: Quantity = strawberry.field(description="What caps below would ask of it.")
    percent: int = strawberry.field(description="By how much more may be promised.")


@strawberry.type(description="A node that is frozen neither gives nor receives.")
class Frozen(Problem):
    node: strawberry.ID
    frozen_by: strawberry.ID | None = strawberry.field(description="Who is; null beyond your reach.")


@strawberry.type(description="A line of many that does not fit.")
class BadLine:
    line: int = strawberry.field(description="Counted from 1, without the heading of a CSV.")
    code: str
    message: str
    facts: Json


@strawberry.type(description="Lines that do not fit. Nothing of the others was done either.")
class BadLines(Problem):
    count: int
    lines: list[BadLine] = strawberry.field(description="The first hundred of them.")


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


OfAllocation = OverCommitted | Frozen | BadLines
UsualProblem = InvalidInput | UnknownNode | NotPermitted | IdempotencyMismatch | TryAgain
"""Of any change."""
OneProblem = InsufficientAllowance | OverCommitted | Frozen | UsualProblem
"""Of a change that is one; those of many lines have `BadLines` besides."""
ProblemType = OneProblem | BadLines
