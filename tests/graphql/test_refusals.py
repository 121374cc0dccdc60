"""Every way the rules can say no has a word in the API."""

import ast
from pathlib import Path

import pytest

import allotment.backend.deciding
import allotment.domain.refusals
from allotment.domain.refusals import Refused
from allotment.graphql.problems import IdempotencyMismatch, InsufficientAllowance, InvalidInput, UnknownNode
from allotment.graphql.refusals import TOLD, problem_of


def _codes():
    sources = [
        *Path(allotment.domain.refusals.__file__).parent.rglob("*.py"),
        Path(allotment.backend.deciding.__file__),
    ]
    for source in sources:
        for call in ast.walk(ast.parse(source.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Refused":
                assert isinstance(call.args[0], ast.Constant), f"{source.name}: codes are written out"
                yield call.args[0].value, {word.arg for word in call.keywords}


def test_every_refusal_in_the_source_is_told_and_none_besides():
    assert {code for code, _ in _codes()} == set(TOLD)


def test_every_refusal_is_a_problem_with_a_path_and_a_sentence():
    for code, facts in _codes():
        given = {fact: [] if fact == "lines" else "x" for fact in facts}
        told = problem_of(Refused(code, **given))
        assert told.code == code
        assert told.path[0] == "input"
        assert len(told.path) == 2
        assert "{" not in told.message


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (
            Refused(
                "insufficient_allowance", node="n", usage_type="data", period="p", available=1, reserved=0
            ),
            InsufficientAllowance,
        ),
        (Refused("unknown_node", node="n"), UnknownNode),
        (Refused("idempotency_mismatch", remedy="r"), IdempotencyMismatch),
        (Refused("not_positive", quantity=0), InvalidInput),
    ],
)
def test_what_a_program_may_react_to_has_a_type_of_its_own(refusal, kind):
    assert type(problem_of(refusal)) is kind
