"""What the page for operators shows is what the addresses answer, and every figure is on it."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from allotment.backend.web.crew_metrics import SharingFigures

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "operating.md").read_text(encoding="utf-8")


def blocks(language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [block for named, block in fences if named == language]


def figures(text):
    """Name, kind and sentence of each; without when a counter began."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    told = re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE)
    return {(name, kinds[name], sentence) for name, sentence in told if not name.endswith("_created")}


def shared():
    """The figures of how tenants are shared, which `serve` tells as well."""
    placement = SimpleNamespace(held=[], takers=1, takeovers=0, lost=0)
    registry = CollectorRegistry()
    registry.register(
        SharingFigures(SimpleNamespace(placement=placement, handed_over=0, forwarded=0, answered=0))
    )
    return generate_latest(registry).decode()


def test_the_addresses_answer_as_shown(portal):
    (commands,), (shown,) = blocks("sh"), blocks("json")
    paths = [shlex.split(line)[-1].removeprefix("$ALLOTMENT") for line in commands.splitlines()]
    health, ready, metrics = (portal.client.get(path) for path in paths)
    assert health.json() == ready.json() == json.loads(shown)
    assert re.fullmatch(r"text/plain; version=[0-9.]+; charset=utf-8", metrics.headers["content-type"])


def test_every_figure_is_told_with_its_kind_and_what_it_tells(portal):
    rows = re.findall(r"^\| `(allotment_\w+)` \| (\w+) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert len(set(rows)) == len(rows)
    assert set(rows) == figures(portal.client.get("/metrics").text) | figures(shared())


def test_the_page_names_every_address_that_operators_ask(portal):
    told = {route.path for route in portal.client.app.routes} & {"/healthz", "/readyz", "/metrics"}
    assert {f"GET {path}" for path in told} == set(re.findall(r"`(GET /\w+)`", DOCUMENT))
