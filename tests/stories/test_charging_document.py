"""What the document of the charging door shows is what the door does: its call is made as it stands."""

import json
import re
from pathlib import Path

from openapi_shape import check, check_answer

from allotment.backend.web.charging_door import PATH
from allotment.backend.web.charging_openapi import charging_openapi

TOP = Path(__file__).parent.parent.parent
DOCUMENT = (TOP / "docs" / "charging.md").read_text()
OPENAPI = charging_openapi()


def blocks(language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [block for named, block in fences if named == language]


def test_the_call_on_a_trunk_is_answered_as_shown_and_charged_once(company):
    (commands,), (shown,) = blocks("sh"), blocks("json")
    bodies = [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'$", commands, re.MULTILINE | re.DOTALL)]
    client, headers = company.portal.client, {"Authorization": f"Bearer {company.token('mediation')}"}
    answers, path = [], PATH
    for body, verb in zip(bodies, ("", "/update", "/release"), strict=True):
        check(OPENAPI, OPENAPI["components"]["schemas"]["ChargingData"], body)
        # As curl sends it, without saying that it is JSON.
        answers.append(client.post(path + verb, content=json.dumps(body), headers=headers))
        check_answer(OPENAPI, path + verb, answers[-1])
        path = path if verb else answers[0].headers["location"]
    assert [answer.status_code for answer in answers] == [201, 200, 204]
    assert answers[0].json() == json.loads(shown)
    company.settle()
    (usage,) = company.ask("{ usages { nodes { recordId quantity billed } } }")["usages"]["nodes"]
    assert usage == {"recordId": "call-7", "quantity": "75", "billed": "120"}


def test_the_document_tells_of_every_address_of_the_door(portal):
    served = {route.path.replace("{ref:str}", "{ChargingDataRef}") for route in portal.client.app.routes}
    assert {path for path in served if path.startswith(PATH)} == set(OPENAPI["paths"])


def test_without_a_requested_unit_an_opening_request_is_granted_what_is_usual_and_an_update_nothing(company):
    client, headers = company.portal.client, {"Authorization": f"Bearer {company.token('mediation')}"}
    (commands,) = blocks("sh")
    first = json.loads(re.search(r"-d '(\{.*?\})'$", commands, re.MULTILINE | re.DOTALL)[1])
    opened = client.post(PATH, json={**first, "multipleUnitUsage": [{"ratingGroup": 1}]}, headers=headers)
    assert opened.json()["multipleUnitInformation"][0]["grantedUnit"] == {"time": 120}
    report = {"ratingGroup": 1, "usedUnitContainer": [{"time": 60}]}
    update = {"invocationSequenceNumber": 1, "multipleUnitUsage": [report]}
    updated = client.post(f"{opened.headers['location']}/update", json=update, headers=headers)
    assert "grantedUnit" not in updated.json()["multipleUnitInformation"][0]
