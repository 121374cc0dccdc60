"""The schema as a contract, and the bounds of what one request may ask."""

import pytest
from graphql import build_schema
from graphql.utilities import find_schema_changes

from allotment.graphql.bounds import ALIASES_MAX, DEPTH_MAX
from allotment.graphql.schema import SDL_FILE, TOKENS_MAX, schema_sdl


def test_the_file_is_the_schema():
    kept, now = SDL_FILE.read_text(), schema_sdl()
    changes = [change.description for change in find_schema_changes(build_schema(kept), build_schema(now))]
    assert kept == now, (
        "graphql/schema.graphql is not what the code says. If the change is meant, renew it with "
        f"`allotment schema > graphql/schema.graphql`. What differs: {changes or 'descriptions or order'}"
    )


def test_every_type_and_field_of_the_api_is_described_or_plain():
    built = build_schema(schema_sdl())
    undescribed = [
        name
        for name, field in {**built.query_type.fields, **built.mutation_type.fields}.items()
        if not field.description
    ]
    assert undescribed == []


def test_every_failure_of_a_mutation_is_a_problem_and_every_other_answer_is_done_or_waits_or_is_a_dry_run():
    built = build_schema(schema_sdl())
    problem = built.get_type("Problem")
    for field in built.mutation_type.fields.values():
        members = field.type.of_type.types
        others = {member.name for member in members if not built.is_sub_type(problem, member)}
        assert len(others - {"DryRun", "BackdateShown", "ApprovalRequired"}) == 1


def aliases(count):
    return "{ " + " ".join(f"a{i}: me {{ subject }}" for i in range(count)) + " }"


def nested(depth):
    return "{ hierarchy { root { " + "children { " * (depth - 2) + "id" + " }" * (depth - 2) + " } } }"


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (aliases(ALIASES_MAX), aliases(ALIASES_MAX + 1)),
        (nested(DEPTH_MAX), nested(DEPTH_MAX + 1)),
        ("{ me { " + "subject " * 400 + "} }", "{ me { " + "subject " * TOKENS_MAX + "} }"),
        (
            "{ me { subject " + "@include(if: true) " * 50 + "} }",
            "{ me { subject " + "@include(if: true) " * 300 + "} }",
        ),
        (
            "{ usages(first: 100) { nodes { id } } }",
            '{ a: hierarchy { seq } b: hierarchy(asOf: {seq: "1"}) { seq } c: hierarchy { seq } }',
        ),
    ],
    ids=["aliases", "depth", "tokens", "directives", "cost"],
)
def test_what_one_request_may_ask_is_bounded(company, within, beyond):
    answer = company.post(within).json()
    if "@include" not in within:
        assert "errors" not in answer, answer
    assert "errors" in company.post(beyond).json()


def test_cost_counts_variables_and_their_defaults(company):
    query = (
        "query($n: Int = 100) { "
        + " ".join(f"u{i}: usages(first: $n) {{ nodes {{ id }} }}" for i in range(10))
        + " }"
    )
    answer = company.post(query).json()
    assert answer["errors"][0]["extensions"] == {"code": "too_costly", "cost": 110, "costMax": 100}
    assert "errors" not in company.post(query, n=10).json()


def test_cost_is_not_hidden_by_fragments(company):
    query = """
      fragment trees on Query { a: hierarchy { seq } b: hierarchy { seq } c: hierarchy { seq } }
      query { ...trees ... on Query { d: hierarchy { seq } e: hierarchy { seq } f: hierarchy { seq } } }
    """
    assert company.refused(query) == "too_costly"


def test_fragments_that_name_each_other_are_refused(company):
    query = "fragment a on Me { subject ...b } fragment b on Me { subject ...a } { me { ...a } }"
    answer = company.post(query)
    assert answer.status_code == 200
    assert "errors" in answer.json()


def test_fragments_that_double_each_other_are_refused_quickly(company):
    doubling = " ".join(f"fragment f{i} on Me {{ ...f{i + 1} ...f{i + 1} }}" for i in range(25))
    answer = company.post(f"{doubling} fragment f25 on Me {{ subject }} {{ me {{ ...f0 }} }}")
    assert answer.elapsed.total_seconds() < 2


def test_an_error_of_ours_is_told_without_its_text(company, monkeypatch):
    async def broken(*_):
        raise RuntimeError("password=hunter2 tenant=globex")

    monkeypatch.setattr(company.portal.engine, "state", broken)
    answer = company.post("{ tenant { name } }")
    assert answer.status_code == 200
    assert answer.json()["errors"][0]["message"] == "Something went wrong here. Try again later."
    assert "hunter2" not in answer.text


def test_field_names_are_not_suggested(company):
    text = company.post("{ tennant { name } }").text
    assert "Cannot query field 'tennant'" in text
    assert "Did you mean" not in text


def test_documents_are_validated_once(company):
    from strawberry.extensions.validation_cache import _get_validate_cache

    from allotment.graphql.schema import DOCUMENTS_REMEMBERED_MAX

    company.ask("{ me { subject clientId } }")
    before = _get_validate_cache(DOCUMENTS_REMEMBERED_MAX).cache_info().misses
    company.ask("{ me { subject clientId } }")
    assert _get_validate_cache(DOCUMENTS_REMEMBERED_MAX).cache_info().misses == before
