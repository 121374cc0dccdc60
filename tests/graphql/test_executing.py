"""Compiled execution: byte for byte what the library's own executor answers, errors included.

`Company.post` compares every query of all other tests too. Here are random ones, over our own types
with values that are not what they should be, and what may not be compiled.
"""

import asyncio
import functools
import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry
from graphql import (
    GraphQLError,
    Undefined,
    execute,
    is_abstract_type,
    is_enum_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_union_type,
    parse,
    validate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.execution import optimized_is_awaitable
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.utils.await_maybe import await_maybe

from allotment.graphql import compiling, executing
from allotment.graphql.buckets import TransferPayload
from allotment.graphql.executing import Executor
from allotment.graphql.explaining import Explanation
from allotment.graphql.hierarchy import Hierarchy, Member
from allotment.graphql.history import AuditConnection
from allotment.graphql.invoices import Invoice
from allotment.graphql.limits import SetLimitPayload
from allotment.graphql.problems import InvalidInput, Problem, UnknownNode
from allotment.graphql.scalars import SCALARS
from allotment.graphql.schema import schema as ours
from allotment.graphql.tenant import Period
from allotment.graphql.usage import UsageConnection

KINDS: dict[str, Any] = {
    "hierarchy": Hierarchy | None,
    "member": Member,
    "invoice": Invoice,
    "explanation": Explanation | None,
    "history": AuditConnection | None,
    "usages": UsageConnection,
    "periods": list[Period],
    "transfer": TransferPayload,
    "limit": SetLimitPayload | None,
    "problem": Problem | None,
    "problems": list[Problem | None],
    "seqs": list[list[int]],
    "word": str | None,
}


def field_of(kind):
    async def value(info):
        return info.context[info.field_name]

    value.__annotations__ = {"info": strawberry.Info, "return": kind}
    return strawberry.field(value)


class Quiet(strawberry.Schema):
    def process_errors(self, errors, execution_context=None):
        pass


def probing(executor, extensions=()):
    """A schema of our types, whose values are the test's own."""
    query = strawberry.type(type("Query", (), {name: field_of(kind) for name, kind in KINDS.items()}))
    return Quiet(
        query,
        types=[InvalidInput, UnknownNode],
        config=StrawberryConfig(scalar_map=SCALARS),
        execution_context_class=executor,
        extensions=extensions,
    )


PROBING = probing(Executor)
TYPES = PROBING._schema


parsed = functools.cache(parse)


def answers(query, values, variables=None) -> tuple[bytes, bytes]:
    """What our executor answers, and what the library's does, to the same document."""
    document = parsed(query)

    async def answer(executor) -> bytes:
        result = await await_maybe(
            execute(
                TYPES,
                document,
                variable_values=variables,
                context_value=values,
                executor_class=executor,
                is_awaitable=optimized_is_awaitable,
            )
        )
        errors = [error.formatted for error in result.errors or ()]
        # Not by orjson: some of what is not what it should be has more than 64 bits.
        told = {"data": result.data, "errors": errors}
        return json.dumps(told, default=repr, separators=(",", ":")).encode()

    async def both():
        return await answer(Executor), await answer(StrawberryGraphQLCoreExecutionContext)

    return asyncio.run(both())


# --- values, some of them not what they should be ------------------------------------------------


class Later:
    """Something to await, more than once."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from ()
        return self.value


WRONG = (None, "", "-0", 0, -1, 2**31, 2**70, 1.5, float("nan"), True, [], {}, (), [None], b"x")
WRONG += (Undefined, ValueError("ours"), GraphQLError("theirs", extensions={"code": "c"}), object)
WRONG += (Later("late"), Later(None), SimpleNamespace(), Exception)
LEAVES = {
    "Int": lambda chance: chance.randrange(-(2**31), 2**31),
    "Boolean": lambda chance: chance.random() < 0.5,
    "JSON": lambda chance: {"a": chance.choice((None, 1, "x")), "b": [{}]},
    "DateTime": lambda chance: chance.randrange(2**51),
    "Quantity": lambda chance: chance.randrange(-(2**70), 2**70),
    "Money": lambda chance: chance.randrange(-(2**62), 2**62),
    "Seq": lambda chance: chance.randrange(2**62),
}


class Values:
    """Random values of our types; so often, one that is not what it should be."""

    def __init__(self, chance, wrong):
        self.chance = chance
        self.wrong = wrong

    def of(self, kind, depth=0):
        chance = self.chance
        if chance.random() < self.wrong:
            return chance.choice(WRONG)
        if not is_non_null_type(kind):
            if chance.random() < 0.2:
                return None
        else:
            kind = kind.of_type
        if is_list_type(kind):
            return [self.of(kind.of_type, depth + 1) for _ in range(chance.randrange(3) if depth < 5 else 0)]
        if is_enum_type(kind):
            return chance.choice(list(kind.wrapped_cls))
        if is_leaf_type(kind):
            return LEAVES.get(kind.name, lambda chance: chance.choice(("", "a", "ü\n")))(chance)
        if is_abstract_type(kind):
            kind = chance.choice(TYPES.get_possible_types(kind))
        return self.an_object(kind, depth)

    def an_object(self, kind, depth):
        made = object.__new__(kind.extensions["strawberry-definition"].origin)
        for field in kind.fields.values():
            if self.chance.random() >= self.wrong / 10:
                setattr(made, attribute_of(field), self.of(field.type, depth + 1))
        return made


def attribute_of(field):
    return field.extensions["strawberry-definition"].python_name


# --- queries ------------------------------------------------------------------------------------

CONDITIONS = ("", "", "", "", " @include(if: true)", " @skip(if: $a)", " @include(if: $b)", " @skip(if: $c)")


class Documents:
    """Random selections, and the fragments that they name."""

    def __init__(self, chance):
        self.chance = chance
        self.fragments = []

    def request(self):
        body = self.of(TYPES.query_type, 4)
        declared = "($a: Boolean!, $b: Boolean! = true, $c: Boolean = false)"
        # A variable that is not used would make the document invalid.
        used = "__typename @skip(if: $a) @include(if: $b) ... @skip(if: $c) { __typename }"
        return f"query Probe{declared} {{ {used} {body[1:]} " + " ".join(self.fragments)

    def of(self, kind, depth, prefix="") -> str:
        parts = [self.part(kind, depth, prefix) for _ in range(self.chance.choice((1, 2, 2, 3)))]
        return "{ " + " ".join(parts) + " }"

    def part(self, kind, depth, prefix) -> str:
        condition = self.chance.choice(CONDITIONS)
        form = self.chance.choice(("field", "field", "field", "field", "inline", "named", "name"))
        if form == "name" or (form == "field" and is_union_type(kind)):
            return f"__typename{condition}"
        if form == "field":
            return self.field(kind, depth, prefix, condition)
        on = self.chance.choice(TYPES.get_possible_types(kind)) if is_abstract_type(kind) else kind
        # Members of a union may give one name to fields of two types.
        below = self.of(on, depth, f"{on.name}_" if is_abstract_type(kind) else prefix)
        if form == "inline":
            return (
                f"... {self.chance.choice(('', f'on {on.name}'))}{condition} {below}"
                if on is kind
                else f"... on {on.name}{condition} {below}"
            )
        self.fragments.append(f"fragment F{len(self.fragments)} on {on.name} {below}")
        return f"...F{len(self.fragments) - 1}{condition}"

    def field(self, kind, depth, prefix, condition) -> str:
        named = {name: named_type(field.type) for name, field in kind.fields.items()}
        within = [name for name, found in named.items() if is_leaf_type(found) or depth > 0]
        if not within:
            return "__typename"
        name = self.chance.choice(within)
        alias = f"{prefix}{name}_{self.chance.choice('xy')}: " if prefix or self.chance.random() < 0.5 else ""
        below = "" if is_leaf_type(named[name]) else " " + self.of(named[name], depth - 1)
        return f"{alias}{name}{condition}{below}"


def named_type(kind):
    while hasattr(kind, "of_type"):
        kind = kind.of_type
    return kind


def a_query(seed):
    return Documents(random.Random(seed)).request()


def values_and_variables(seed, wrong):
    chance = random.Random(seed)
    variables = {"a": chance.random() < 0.5, "b": chance.random() < 0.5, "c": chance.random() < 0.5}
    for name in ("b", "c"):
        if chance.random() < 0.2:
            del variables[name]
    if chance.random() < 0.05:
        variables["c"] = None
    return Values(chance, wrong), variables


class Given(dict):
    """The value of a field of the query, made when it is first resolved; the same for both."""

    def __init__(self, values):
        self.values_ = values

    def __missing__(self, name):
        made = self[name] = self.values_.of(TYPES.query_type.fields[name].type)
        return made


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64))
def test_any_query_on_any_values_is_answered_as_the_library_would(seed):
    query = a_query(seed)
    for wrong in (0.0, 0.003, 0.03):
        values, variables = values_and_variables(seed, wrong)
        told, stock = answers(query, Given(values), variables)
        assert told == stock


def test_the_random_queries_are_valid_and_compiled(monkeypatch):
    """What the test above is worth."""
    told = []
    monkeypatch.setattr(executing, "compiled", lambda *given: noted(told, compiling.compiled(*given)))
    for seed in range(20):
        query = a_query(seed)
        values, variables = values_and_variables(seed, 0.0)
        assert validate(TYPES, parsed(query)) == []
        answers(query, Given(values), variables)
    assert len(told) > 20
    assert all(told)


def noted(told, function):
    def noting(value):
        try:
            completed = function(value)
        except Exception:
            told.append(False)
            raise
        told.append(True)
        return completed

    return noting


# --- what is compiled, and what is not ------------------------------------------------------------


@pytest.fixture
def plans(monkeypatch):
    """The compiled functions that are remembered, none yet."""
    remembered: dict[Any, Any] = {}
    monkeypatch.setattr(executing, "_plans", remembered)
    return remembered


MEMBER = Given(Values(random.Random(7), 0.0))


def test_every_field_of_our_schema_is_compiled(plans):
    """A resolver below the first level would make whatever is asked together with it slow."""
    kinds = {
        name: kind
        for name, kind in ours._schema.type_map.items()
        if hasattr(kind, "fields") and not name.startswith("__") and not hasattr(kind, "out_type")
    }
    of_resolvers = {"Query", "Mutation", "Subscription"}
    assert all(
        compiling._attribute(field)
        for name, kind in kinds.items()
        if name not in of_resolvers
        for field in kind.fields.values()
    )


@pytest.mark.parametrize(
    ("query", "compiled"),
    [
        ("{ member { id } }", [True]),
        ("{ a: member { id } b: member { name } }", [True, True]),
        ("query A { member { id } }", [True]),
        ("{ __typename }", [True]),
        ("{ __schema { queryType { name } } }", [False]),
        ('{ __type(name: "Member") { name } }', [False]),
    ],
)
def test_introspection_is_left_to_the_library(plans, query, compiled):
    told, stock = answers(query, MEMBER)
    assert told == stock
    assert [plan is not None for plan in plans.values()] == compiled


def test_a_document_is_compiled_once_for_each_way_its_conditions_fall_out(plans):
    query = "query($a: Boolean! = true) { member { id name @include(if: $a) } }"
    lengths = []
    for variables in ({}, {"a": True}, {"a": False}, {"a": False}, {"a": True}):
        told, stock = answers(query, MEMBER, variables)
        assert told == stock
        lengths.append(len(plans))
    assert lengths == [1, 1, 2, 2, 2]


def test_the_oldest_function_goes_first_and_the_used_ones_stay(plans, monkeypatch):
    monkeypatch.setattr(executing, "PLANS_MAX", 2)
    for field in ("id", "name", "id", "kind"):
        answers(f"{{ member {{ {field} }} }}", MEMBER)
    assert [key[1] for key in plans] == ["{ member { id } }", "{ member { kind } }"]


def test_a_selection_that_fragments_blow_up_is_not_compiled(plans, monkeypatch):
    doubling = " ".join(
        f"fragment f{i} on Member {{ a: children {{ ...f{i + 1} }} b: children {{ ...f{i + 1} }} }}"
        for i in range(12)
    )
    query = f"{{ member {{ ...f0 }} }} {doubling} fragment f12 on Member {{ id }}"
    told, stock = answers(query, {"member": a_member(children=[])})
    assert told == stock
    assert list(plans.values()) == [None]


def test_a_document_that_is_mostly_comment_is_not_remembered(plans):
    query = "{ member { id } } #" + "x" * executing.TEXT_MAX
    told, stock = answers(query, MEMBER)
    assert told == stock
    assert plans == {}


def test_with_an_extension_that_resolves_the_library_does_everything(plans):
    class Resolving(SchemaExtension):
        def resolve(self, next_, root, info, **given):
            return "seen" if info.field_name == "name" else next_(root, info, **given)

    schema = probing(Executor, [Resolving])
    result = asyncio.run(schema.execute("{ member { id name } }", context_value=MEMBER))
    assert result.data["member"]["name"] == "seen"
    assert plans == {}


def a_member(**given):
    """The attributes of a member, of no class of ours."""
    usual = {"id": "a", "name": "A", "kind": "k", "is_node": True, "depth": 0, "parent_id": None}
    return SimpleNamespace(**usual, since=None, until=None, balances=[], limits=[], **given)


class Reading:
    """A class whose attributes are computed."""

    def __init__(self, name):
        self._name = name

    @property
    def name(self):
        return self._name()


def fail():
    raise RuntimeError("ours")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"member": a_member(children=[])}, b'{"data":{"member":{"name":"A"}},"errors":[]}'),
        ({"member": Reading(lambda: "R")}, b'{"data":{"member":{"name":"R"}},"errors":[]}'),
        ({"member": Reading(lambda: Later("L"))}, b'{"data":{"member":{"name":"L"}},"errors":[]}'),
        ({"member": Later(Reading(lambda: "L"))}, b"'Later' object has no attribute 'name'"),
        ({"member": Reading(fail)}, b'"message":"ours"'),
        ({"member": Reading(lambda: None)}, b"Cannot return null for non-nullable field Member.name."),
        ({"member": None}, b"Cannot return null for non-nullable field Query.member."),
        ({"member": ValueError("theirs")}, b'"message":"theirs"'),
        ({"member": 3}, b"object has no attribute 'name'"),
    ],
)
def test_values_that_are_not_plain_are_completed_by_the_library(values, expected):
    told, stock = answers("{ member { name } }", values)
    assert told == stock
    assert expected in told


@pytest.mark.parametrize(
    "selection",
    ["name", "depth", "isNode", "since", "parentId", "limits { used }", "limits { __typename }"],
)
def test_each_wrong_value_of_each_kind_is_told_as_the_library_would(selection):
    """As the field itself, within a list, and below an object."""
    name = {"isNode": "is_node", "parentId": "parent_id"}.get(selection, selection.split(" ")[0])
    query = f"{{ member {{ {selection} }} hierarchy {{ root {{ {selection} }} nodes {{ __typename }} }} }}"
    for wrong in (*WRONG, 2**31 - 1, -(2**31) - 1, "12"):
        # What is to be awaited beside an error is left behind by the library: not here.
        for value in (wrong, [wrong], [SimpleNamespace(used=wrong)]) if not isinstance(wrong, Later) else ():
            root = a_member(children=[])
            setattr(root, name, value)
            nodes = [root, wrong]
            told, stock = answers(
                query, {"member": root, "hierarchy": SimpleNamespace(root=root, nodes=nodes)}
            )
            assert told == stock


def test_an_answer_may_be_of_a_subclass_or_a_cast_one_only_where_the_library_takes_it():
    class Worse(InvalidInput):
        pass

    given = {"code": "c", "message": "m", "path": [], "field": "f"}
    for value in (Worse(**given), strawberry.cast(UnknownNode, SimpleNamespace(**given, node="n"))):
        for query in ("{ problem { __typename code } }", "{ transfer { __typename } }"):
            told, stock = answers(query, {"problem": value, "transfer": value})
            assert told == stock


def test_a_change_is_answered_as_the_library_would(company):
    """Sent again with its key it changes nothing, so that both can answer it."""
    query = """
    mutation($q: Quantity!) { allocate(input: {idempotencyKey: "again", source: "acme", target: "apac",
      usageType: "voice", quantity: $q}) { __typename ... on Problem { code message path }
      ... on TransferDone { repeated quantity eventSeqs source { id balances { available } } } } }
    """
    for quantity in ("10", "10", "11", "0", "x"):
        answer = company.post(query, q=quantity)
    for quantity in ("10", "11", "x"):
        answer = company.post(query, q=quantity)
        assert answer.content == company.portal.stock_answer(answer.request.content, company.token())
