"""Cost: what a request may ask for at once, counted before anything is read.

Tokens, aliases and depth bound the document; this bounds the work behind it. It cannot be a
validation rule: rules see no variables, and their verdict is remembered with the document.
"""

from collections.abc import Iterator
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    get_operation_ast,
    value_from_ast_untyped,
)
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionResult

COST_MAX = 100
COSTS = {
    "hierarchy": 20,
    "invoicePreview": 20,
    "explain": 10,
    "review": 10,
    "sizing": 10,
    "node": 5,
    "recordHistory": 5,
    "allocate": 10,
    "returnAllowance": 10,
    "trade": 10,
    "setLimit": 10,
    "setLimits": 50,
    **dict.fromkeys(
        (
            *("addNode", "addResource", "renameNode", "moveNode", "mergeNodes", "closeNode", "cancelPlan"),
            *("moveResource", "endResource", "suspendResource", "resumeResource", "changeLines"),
            *("labelResource", "raiseLimit", "setPolicy", "withdrawPolicy", "approveUsage"),
            "setSessionTerms",
        ),
        10,
    ),
    "inventory": 20,
    "limits": 5,
    "policies": 5,
    "sessionTerms": 5,
    "tryPolicy": 50,
    "previewRerating": 50,
    "previewMove": 50,
    "rerate": 50,
    "correctMove": 50,
    "backdate": 50,
    "importInventory": 50,
    "correctInventory": 50,
    "stopRating": 10,
    "ratingJobs": 5,
    "signContract": 10,
    "endContract": 10,
    "renewContract": 10,
    "topUp": 10,
    "changeGrants": 10,
    "defineUsageType": 10,
    "publishTariff": 20,
    "chargeFee": 10,
    "undoFee": 10,
    "setChannels": 10,
    "contracts": 5,
    "tariffs": 5,
    "tariffChanges": 20,
    "importRateDeck": 50,
    "overrideRates": 10,
    "withdrawTariff": 10,
    "contract": 5,
    "offerTrade": 10,
    "counterOffer": 10,
    "acceptOffer": 10,
    "withdrawOffer": 10,
    "declineOffer": 10,
    "approveTransfer": 10,
    "declineTransfer": 10,
    "undoTransfer": 10,
    "setApprovalRule": 10,
    "setTradeRules": 10,
    **dict.fromkeys(
        (
            *("setRecipient", "removeRecipient", "createWebhook", "rotateWebhookSecret"),
            *("disableWebhook", "enableWebhook", "replayWebhook"),
        ),
        10,
    ),
    "allocations": 20,
    **dict.fromkeys(("setCap", "applyTemplate", "returnUnused", "freezeNode", "thawNode"), 10),
    **dict.fromkeys(("defineTemplate", "scheduleAllocation", "cancelSchedule"), 10),
    "bulkTransfer": 50,
}
"""Of one field of the query or mutation; 1 where none is given."""
PAGE_COST_PER_ROWS = 10
AS_OF_FACTOR = 4
"""The past is folded from the log."""


class CostLimiter(SchemaExtension):
    """Refuses what costs more than `COST_MAX`, before it is executed."""

    def on_execute(self) -> Iterator[None]:
        cost = self._cost()
        if cost > COST_MAX:
            message = f"this asks for {cost} points of work at once, at most {COST_MAX}: ask for less"
            facts = {"code": "too_costly", "cost": cost, "costMax": COST_MAX}
            refused = GraphQLError(message, extensions=facts)
            self.execution_context.result = ExecutionResult(data=None, errors=[refused])
        yield

    def _cost(self) -> int:
        context = self.execution_context
        document = context.graphql_document
        operation = get_operation_ast(document, context.operation_name) if document else None
        if document is None or operation is None:
            return 0
        # As they come: what does not fit its type is told by the execution itself.
        variables = {
            defined.variable.name.value: value_from_ast_untyped(defined.default_value)
            for defined in operation.variable_definitions or ()
            if defined.default_value is not None
        } | dict(context.variables or {})
        return sum(_field_cost(field, variables) for field in _fields(document, operation))


def _field_cost(field: FieldNode, variables: dict[str, Any]) -> int:
    given = {
        argument.name.value: value_from_ast_untyped(argument.value, variables)
        for argument in field.arguments or ()
        if argument.name.value in ("first", "asOf")
    }
    cost = COSTS.get(field.name.value, 1)
    first = given.get("first")
    if isinstance(first, int):
        cost += max(0, first) // PAGE_COST_PER_ROWS
    return cost * AS_OF_FACTOR if given.get("asOf") is not None else cost


def _fields(document: DocumentNode, operation: OperationDefinitionNode) -> Iterator[FieldNode]:
    """The fields of an operation itself, with those of its fragments, each fragment once."""
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    waiting: list[SelectionNode] = [*operation.selection_set.selections]
    while waiting:
        selection = waiting.pop()
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, InlineFragmentNode):
            waiting += selection.selection_set.selections
        elif isinstance(selection, FragmentSpreadNode) and selection.name.value in fragments:
            waiting += fragments.pop(selection.name.value).selection_set.selections
