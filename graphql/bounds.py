"""Bounds: how deep a document may be, and how many aliases it may use.

Each fragment is measured once, so that measuring costs what reading does. The library's own
limiters expand fragments again at every use: 25 fragments that each use the next one twice, a
document of a kilobyte, would keep them busy for minutes.
"""

from collections.abc import Iterator

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
)
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionResult

ALIASES_MAX = 15
DEPTH_MAX = 10

Measure = tuple[int, int]
"""Levels of fields that have fields of their own, and aliases."""


class WithinBounds(ValidationRule):
    """All operations of a document count together."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        definitions = context.document.definitions
        self._fragments = {
            definition.name.value: definition.selection_set
            for definition in definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._measured: dict[str, Measure] = {}
        operations = [
            self._of(definition.selection_set)
            for definition in definitions
            if isinstance(definition, OperationDefinitionNode)
        ]
        depth, aliases = max([depth for depth, _ in operations], default=0), sum(n for _, n in operations)
        if depth > DEPTH_MAX:
            self.report_error(_refused("too_deep", f"the query is deeper than {DEPTH_MAX} levels"))
        if aliases > ALIASES_MAX:
            self.report_error(_refused("too_many_aliases", f"the query has more than {ALIASES_MAX} aliases"))

    def _of(self, selections: SelectionSetNode) -> Measure:
        depth = aliases = 0
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                below, more = self._of(selection.selection_set) if selection.selection_set else (-1, 0)
                # What the schema says of itself is deep, and the same for everybody.
                below = 0 if selection.name.value.startswith("__") else below + 1
                more += selection.alias is not None
            elif isinstance(selection, FragmentSpreadNode):
                below, more = self._of_fragment(selection.name.value)
            else:
                assert isinstance(selection, InlineFragmentNode)
                below, more = self._of(selection.selection_set)
            depth, aliases = max(depth, below), aliases + more
        return depth, aliases

    def _of_fragment(self, name: str) -> Measure:
        if name not in self._measured:
            # Fragments that name each other are refused by another rule; here they must only end.
            self._measured[name] = (0, 0)
            if name in self._fragments:
                self._measured[name] = self._of(self._fragments[name])
        return self._measured[name]


class NamedOperation(SchemaExtension):
    """Refuses to choose among several operations; the library would run the first one."""

    def on_execute(self) -> Iterator[None]:
        context = self.execution_context
        definitions = context.graphql_document.definitions if context.graphql_document else ()
        operations = [one for one in definitions if isinstance(one, OperationDefinitionNode)]
        if len(operations) > 1 and not context._provided_operation_name:
            message = "the document has several operations: name one in operationName"
            refused = _refused("no_operation_name", message)
            context.result = ExecutionResult(data=None, errors=[refused])
        yield


def _refused(code: str, message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code})
