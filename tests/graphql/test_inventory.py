"""The inventory through the API: what there is, how it stands, and what of it is waste."""

import pytest
from life_changes import change

INVENTORY = """
query($filter: InventoryFilter, $first: Int, $after: String) {
  inventory(filter: $filter, first: $first, after: $after) {
    period
    nodes { id kind nodeId since until status lines label lastUsedAt charges amount
      used { usageType unit quantity } percentOfLimit }
    pageInfo { hasNextPage endCursor }
  }
}
"""


def listed(company, *roles, nodes=(), first=50, after=None, **filter):
    told = company.ask(INVENTORY, *roles, nodes=nodes, filter=filter, first=first, after=after)
    return told["inventory"]


def ids(company, *roles, nodes=(), **filter):
    return [item["id"] for item in listed(company, *roles, nodes=nodes, **filter)["nodes"]]


def test_the_inventory_says_where_each_is_and_how_it_stands(company):
    change(company, "suspendResource", "anna")
    anna, chen = listed(company)["nodes"]
    assert (anna["id"], anna["nodeId"], anna["status"], anna["lines"]) == ("anna", "sales", "SUSPENDED", 1)
    assert (chen["id"], chen["nodeId"], chen["status"], chen["until"]) == ("chen", "apac", "ACTIVE", None)


def test_what_is_waste_is_found(company):
    change(company, "addResource", "spare", node="acme", kind="sip", lines=["spare"])
    assert ids(company, unassigned=True) == ["spare"]
    assert "spare" in ids(company, unusedDays=30)
    assert ids(company, status="SUSPENDED") == []
    change(company, "labelResource", "spare", label="Ada  Lovelace")
    change(company, "labelResource", "chen", label="ada lovelace")
    assert ids(company, duplicates=True) == ["chen", "spare"]
    assert ids(company, label="ADA LOVELACE") == ["chen", "spare"]
    assert ids(company, kind="sip") == ["spare"]
    assert ids(company, under="apac") == ["chen"]


def test_labels_are_read_by_those_who_may_read_what_is_personal(company):
    change(company, "labelResource", "anna", label="Anna K.")
    assert [item["label"] for item in listed(company)["nodes"]] == ["Anna K.", None]
    assert [item["label"] for item in listed(company, "auditor")["nodes"]] == [None, None]


def test_it_comes_in_pages(company):
    page = listed(company, first=1)
    assert [item["id"] for item in page["nodes"]] == ["anna"]
    assert page["pageInfo"]["hasNextPage"]
    last = listed(company, first=1, after=page["pageInfo"]["endCursor"])
    assert [item["id"] for item in last["nodes"]] == ["chen"]
    assert not last["pageInfo"]["hasNextPage"]


def test_it_ends_where_the_reach_ends(company):
    assert ids(company, nodes=("emea",)) == ["anna"]
    assert listed(company, nodes=("emea",), under="apac") is None
    assert listed(company, nodes=("emea",), under="nowhere") is None


@pytest.mark.parametrize("filter", [{"unusedDays": 0}, {"overPercent": 0}])
def test_a_filter_that_means_nothing_is_refused(company, filter):
    assert company.refused(INVENTORY, filter=filter) == "bad_filter"
