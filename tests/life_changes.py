"""A change of the hierarchy through the API, as tests of several folders make it."""

CHANGE = """
mutation($input: {kind}!) {{
  {verb}(input: $input) {{
    __typename
    ... on LifeDone {{
      planned repeated eventSeqs
      member {{ id name parentId since until
        life {{ closedAt successorId suspendedAt resumedAt plan {{ act to at }} }} }}
    }}
    ... on DryRun {{ events {{ topic sentence }} }}
    ... on Problem {{ code message path }}
    ... on VersionConflict {{ node changes }}
    ... on InvalidInput {{ field }}
    ... on UnknownNode {{ node }}
  }}
}}
"""
KINDS = {
    "addNode": "AddNodeInput",
    "addResource": "AddResourceInput",
    "renameNode": "RenameInput",
    "moveNode": "MoveInput",
    "moveResource": "MoveInput",
    "mergeNodes": "MergeInput",
    "changeLines": "ChangeLinesInput",
    "labelResource": "LabelInput",
}


def change(company, verb, ident, *roles, key=None, nodes=(), **more):
    given = {"idempotencyKey": key or f"{verb}-{ident}", "id": ident, **more}
    document = CHANGE.format(kind=KINDS.get(verb, "ChangeInput"), verb=verb)
    return company.ask(document, *roles, nodes=nodes, input=given)[verb]
