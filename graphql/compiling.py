"""Compiling: one Python function for all that is selected below a field, made once per document.

The library completes every field of every object by itself, 8 us each. What we give below a field
of the query or mutation are plain objects whose attributes are read, so the whole selection is a
few nested dict displays. A compiled function gives exactly what the library would, or it raises:
whatever is not as plain as it was taken to be (a null that may not be, a value of an unforeseen
class, something to await) is `Unplain`, and the library completes the value from its beginning.
So there are no errors to make alike: every error is the library's own.

A list may be given as `Columns`: then its objects are completed column by column, by the same
expressions, and without there being any object.
"""

import keyword
from collections.abc import Callable
from types import CoroutineType, GeneratorType
from typing import Any, NoReturn, TypeGuard

from graphql import (
    GraphQLAbstractType,
    GraphQLEnumType,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    is_abstract_type,
    is_enum_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.type.scalars import GRAPHQL_MAX_INT, GRAPHQL_MIN_INT
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import get_strawberry_type_cast
from strawberry.types.field import StrawberryField
from strawberry.types.union import StrawberryUnion

from .columns import TOLD, Columns, Cut

FIELDS_MAX = 500
"""Of one compiled function. Fragments that are used often would make it as large as they like."""

Compiled = Callable[[Any], Any]
Collect = Callable[[GraphQLObjectType, FieldDetailsList], GroupedFieldSet]
"""Which fields are selected on an object of this type: the library says."""

_TEXTS = frozenset({"String", "ID"})
_VALUES = frozenset({int, str, float, bool, dict, list})
"""Classes that a scalar of our own may be given: never an error, never something to await."""


class Unplain(Exception):
    """The library has to look at this itself."""


def compiled(
    schema: GraphQLSchema, collect: Collect, return_type: Any, details: FieldDetailsList
) -> Compiled:
    """The function that completes a resolved value of this type, with all that is selected below it.

    Raises Unplain where something below has a resolver, a permission or an argument of its own.
    """
    source = _Source(schema, collect)
    completed = source.value(return_type, details, "value", 0)
    return source.function(f"return {completed}")


class _Source:
    """The source of the functions, one for each selection of an object, and the names they use."""

    def __init__(self, schema: GraphQLSchema, collect: Collect) -> None:
        self._schema = schema
        self._collect = collect
        self._parts: list[str] = []
        self._fields = 0
        self._below = 0
        """How many objects the one at hand is within, itself included."""
        self._names: dict[str, Any] = {
            "no": _no,
            "plain": _PLAIN,
            "looked_at": _looked_at,
            "cast": get_strawberry_type_cast,
            "Columns": Columns,
            "Cut": Cut,
        }

    def function(self, body: str) -> Compiled:
        self._parts.append(f"def completed(value):\n    {body}\n")
        # Only names of GraphQL, of our own attributes, and numbers stand in it.
        exec(compile("".join(self._parts), "<compiled selection>", "exec"), self._names)  # noqa: S102
        function: Compiled = self._names["completed"]
        return function

    def value(self, kind: Any, details: FieldDetailsList, given: str, depth: int) -> str:
        """An expression for the completed value. `given` is evaluated once, and first."""
        if is_non_null_type(kind):
            if is_object_type(kind.of_type) or is_abstract_type(kind.of_type):
                return self._present(kind.of_type, details, given, given, depth)
            return self._present(kind.of_type, details, f"(v{depth} := {given})", f"v{depth}", depth)
        present = self._present(kind, details, f"v{depth}", f"v{depth}", depth)
        return f"None if (v{depth} := {given}) is None else {present}"

    def _present(self, kind: Any, details: FieldDetailsList, first: str, again: str, depth: int) -> str:
        """What is not null. A null comes here too where there may be none: no class of it fits."""
        if is_list_type(kind):
            item = self.value(kind.of_type, details, f"i{depth}", depth + 1)
            other = self._listed(kind.of_type, details, depth)
            return f"[{item} for i{depth} in {again}] if type({first}) is list else {other}({again})"
        if is_leaf_type(kind):
            return self._leaf(kind, first, again)
        if is_abstract_type(kind):
            return f"{self._one_of(kind, details)}({first})"
        return f"{self._object(kind, details)}({first})"

    def _leaf(self, kind: Any, first: str, again: str) -> str:
        if kind.name in _TEXTS:
            return f"{again} if type({first}) is str else no({again})"
        if kind.name == "Boolean":
            return f"{again} if type({first}) is bool else no({again})"
        if kind.name == "Int":
            within = f"{GRAPHQL_MIN_INT} <= {again} <= {GRAPHQL_MAX_INT}"
            return f"{again} if type({first}) is int and {within} else no({again})"
        if is_enum_type(kind):
            return f"{self._name('names', _names_of(kind).__getitem__)}({first})"
        if kind.coerce_output_value is str:
            # An int as text: half of what is told. Calling str is slower.
            return f"f'{{{again}}}' if type({first}) is int else no({again})"
        return f"{self._name('scalar', _scalar(kind.coerce_output_value))}({first})"

    def _object(self, kind: GraphQLObjectType, details: FieldDetailsList) -> str:
        known = "if type(o) not in plain: looked_at(o)"
        self._below += 1
        if kind.is_type_of is not None:
            origin = _definition(kind).origin
            known = f"if type(o) is not {self._name('origin', origin)} or cast(o) is not None: no(o)"
        members = [
            f"{name!r}: {self._field(kind, below)}" for name, below in self._collect(kind, details).items()
        ]
        self._below -= 1
        name = self._name("object", None)
        lines = ",\n        ".join(members)
        self._parts.append(f"def {name}(o):\n    {known}\n    return {{\n        {lines}\n    }}\n")
        return name

    def _field(self, parent: GraphQLObjectType, details: FieldDetailsList) -> str:
        self._fields += 1
        if self._fields > FIELDS_MAX:
            raise Unplain("too many fields to compile")
        name = details[0].node.name.value
        if name == "__typename":
            return repr(parent.name)
        field = self._schema.get_field(parent, name)
        if field is None:
            raise Unplain("the library leaves such fields out")
        return self.value(field.type, details, f"o.{_attribute(field)}", 0)

    # As columns, which stand in a field of what a query gives, or below such columns.

    def _listed(self, kind: Any, details: FieldDetailsList, depth: int) -> str:
        """The function for a list that is none."""
        told = kind.of_type if is_non_null_type(kind) else kind
        if self._below != 1 or depth or not _is_told_as_columns(told):
            return "no"
        # The fields are those of the objects, which have been counted.
        counted, self._fields = self._fields, 0
        name = self._columns(told, details)
        self._fields = counted
        return name

    def _columns(self, kind: GraphQLObjectType, details: FieldDetailsList) -> str:
        """The function for objects that are given as columns: a list of what each of them is told as."""
        members, given = [], []
        for at, (name, below) in enumerate(self._collect(kind, details).items()):
            field = self._schema.get_field(kind, below[0].node.name.value)
            if field is None or below[0].node.name.value == "__typename":
                members.append(f"{name!r}: {self._field(kind, below)}")
                continue
            column, value = self._column(field, below, f"a{at}")
            members.append(f"{name!r}: {value}")
            given.append((f"a{at}", column))
        name, origin = self._name("columns", None), self._name("origin", _definition(kind).origin)
        each = ", ".join(["_", *(one for one, _ in given)])
        lists = ", ".join(["range(o.rows)", *(column for _, column in given)])
        lines = ",\n        ".join(members)
        self._parts.append(
            f"def {name}(o):\n    if type(o) is not Columns or o.kind is not {origin}: no(o)\n"
            f"    return [{{\n        {lines}\n    }} for {each} in zip({lists}, strict=True)]\n"
        )
        return name

    def _column(self, field: GraphQLField, details: FieldDetailsList, given: str) -> tuple[str, str]:
        """Expressions for a field's column, and for what each value of it is told as."""
        self._fields += 1
        if self._fields > FIELDS_MAX:
            raise Unplain("too many fields to compile")
        column = f"o.column({_attribute(field)!r})"
        kind = field.type.of_type if is_non_null_type(field.type) else field.type
        if _is_told_as_columns(kind):
            return f"{self._columns(kind, details)}({column})", given
        inner = kind.of_type if is_list_type(kind) else None
        inner = inner.of_type if is_non_null_type(inner) else inner
        if _is_told_as_columns(inner):
            return f"{self._cut(inner, details)}({column})", given
        if is_non_null_type(field.type):
            return column, self._present(kind, details, given, given, 0)
        return column, f"None if {given} is None else {self._present(kind, details, given, given, 0)}"

    def _cut(self, kind: GraphQLObjectType, details: FieldDetailsList) -> str:
        flat = self._columns(kind, details)
        name = self._name("cut", None)
        self._parts.append(
            f"def {name}(o):\n    return o.lists({flat}(o.flat)) if type(o) is Cut else no(o)\n"
        )
        return name

    def _one_of(self, kind: GraphQLAbstractType, details: FieldDetailsList) -> str:
        """By the class of the object, as strawberry tells the types of a union or interface apart."""
        definition = kind.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        if not isinstance(definition, StrawberryUnion) and getattr(definition, "resolve_type", True):
            raise Unplain("it has a resolver of types of its own")
        table = ", ".join(
            f"{self._name('class', _definition(one).origin)}: {self._object(one, details)}"
            for one in self._schema.get_possible_types(kind)
        )
        name = self._name("one_of", None)
        self._parts.append(
            f"{name}_of = {{{table}}}\n"
            f"def {name}(o):\n"
            f"    return ({name}_of.get(type(o), no) if cast(o) is None else no)(o)\n"
        )
        return name

    def _name(self, prefix: str, meant: Any) -> str:
        name = f"{prefix}_{len(self._names)}"
        self._names[name] = meant
        return name


def _is_told_as_columns(kind: Any) -> TypeGuard[GraphQLObjectType]:
    definition = is_object_type(kind) and kind.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return isinstance(definition, StrawberryObjectDefinition) and definition.origin in TOLD


def _attribute(field: GraphQLField) -> str:
    """The attribute that a field is read from, by nothing but reading it."""
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryField) or not definition.is_basic_field or field.args:
        raise Unplain("it has a resolver of its own")
    name = definition.python_name
    if definition.default_resolver is not getattr or not name.isidentifier() or keyword.iskeyword(name):
        raise Unplain("it is not read as an attribute")
    return name


def _definition(kind: GraphQLObjectType) -> StrawberryObjectDefinition:
    definition = kind.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if (
        not isinstance(definition, StrawberryObjectDefinition)
        or definition.is_type_of is not None
        or definition.concrete_of is not None
    ):
        raise Unplain("it is not told by its class alone")
    return definition


def _names_of(kind: GraphQLEnumType) -> dict[Any, str]:
    """The name of each member; what is none raises KeyError, and the library says so properly."""
    wrapped = getattr(kind, "wrapped_cls", None)
    if wrapped is None:
        raise Unplain("it is not an enum of strawberry")
    return {member: kind.coerce_output_value(member) for member in wrapped}


def _scalar(coerce: Callable[[Any], Any]) -> Compiled:
    def scalar(value: Any) -> Any:
        if type(value) not in _VALUES:
            raise Unplain
        told = coerce(value)
        if told is None or told is Undefined or type(told) not in _VALUES:
            raise Unplain
        return told

    return scalar


def _no(_: Any) -> NoReturn:
    raise Unplain


_PLAIN: set[type] = set()
"""Classes of objects that are neither errors nor something to await: a few, those of our answers."""


def _looked_at(value: Any) -> None:
    kind = type(value)
    if (
        value is None
        or value is Undefined
        or issubclass(kind, Exception | CoroutineType | GeneratorType)
        or hasattr(value, "__await__")
    ):
        raise Unplain
    _PLAIN.add(kind)
