"""Executing: the library's executor, with the bulk of each answer completed by compiled functions.

Everything that decides anything stays the library's: variables, arguments, resolvers, their order,
and every error. Only the value that a field of the query or mutation resolved to is completed by a
function compiled for its selection; where that gives up, the library completes the same value.
"""

from typing import Any

from graphql import GraphQLError, GraphQLObjectType, GraphQLResolveInfo
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from .compiling import Compiled, Unplain, compiled

PLANS_MAX = 500
"""Functions that are remembered, each some 150 bytes for each of its fields."""
TEXT_MAX = 16_384
"""Of a document in characters: a thousand tokens are shorter, unless somebody fills them up."""

_UNKNOWN: Any = object()
_plans: dict[Any, Compiled | None] = {}
"""By schema, document, operation, field and conditions, the last used last; None is not compiled."""


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Completes as the library does, byte for byte, only sooner."""

    def complete_value(
        self,
        return_type: Any,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        # The library comes here for every value; below the first level, or once it goes on
        # to what is inside a type that may not be null, it is already doing it by itself.
        if path.prev is None and return_type is info.return_type and result is not None:
            plan = self._plan(return_type, field_details_list, path)
            if plan is not None:
                try:
                    return plan(result)
                except Exception:  # noqa: BLE001, S110
                    # Whatever it was, the library meets it again and tells it in its own words.
                    pass
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    def _plan(self, return_type: Any, details: FieldDetailsList, path: Path) -> Compiled | None:
        """The function for this field of this document, made when it is first needed.

        What `@skip` and `@include` leave of a document depends on Booleans among its variables.
        """
        text, operation = self.operation.loc, self.operation.name
        if text is None or len(text.source.body) > TEXT_MAX or self._middleware():
            return None
        switches = [(name, on) for name, on in self.variable_values.coerced.items() if type(on) is bool]
        key = (self.schema, text.source.body, operation and operation.value, path.key, tuple(switches))
        plan: Compiled | None = _plans.pop(key, _UNKNOWN)
        if plan is _UNKNOWN:
            try:
                plan = self._compiled(return_type, details)
            except GraphQLError:
                # A condition that is null: the library refuses it, this time.
                return None
        _plans[key] = plan
        if len(_plans) > PLANS_MAX:
            del _plans[next(iter(_plans))]
        return plan

    def _compiled(self, return_type: Any, details: FieldDetailsList) -> Compiled | None:
        try:
            return compiled(self.schema, self._selected, return_type, details)
        except Unplain:
            return None

    def _middleware(self) -> bool:
        """Whether something wants to see each field being resolved."""
        return bool(self.middleware_manager and self.middleware_manager.middlewares)

    def _selected(self, kind: GraphQLObjectType, details: FieldDetailsList) -> GroupedFieldSet:
        return self.collect_subfields(kind, details).grouped_field_set
