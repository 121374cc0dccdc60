"""The domain and the projections are functions of what they are given, and of nothing else.

Replay is exact because nothing here reads a clock, chance, the environment or a file. Read from
the source itself: import-linter sees which modules are imported, not what is called.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOMAIN = sorted((ROOT / "domain").rglob("*.py"))
PROJECTIONS = sorted((ROOT / "projections").rglob("*.py"))

MODULES = {
    *("asyncio", "calendar", "glob", "http", "io", "locale", "logging", "multiprocessing", "os", "pathlib"),
    *("platform", "random", "secrets", "shutil", "signal", "socket", "subprocess", "tempfile"),
    *("threading", "time", "urllib"),
}
DOMAIN_MODULES = MODULES | {
    "eventsourcing",
    "litestar",
    "nats",
    "psycopg",
    "sqlalchemy",
    "strawberry",
    "sys",
}
NAMES = {"uuid1", "uuid4", "getrandbits", "perf_counter", "monotonic", "urandom", "environ", "getenv"}
CALLS = {"open", "input", "print", "exec", "eval", "id", "hash", "globals", "breakpoint"}
CLOCKS = {"now", "today", "utcnow"}

DIVISIONS = {
    ("rate.py", "Fraction(Decimal(price)) * MICRO / per"),
    ("shaped.py", "Fraction(Decimal(rate.percent)) / 100"),
}
"""The only true divisions: of a Fraction, which stays exact."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").split(".")[0]


def impurities(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    for line, module in imported(tree):
        if module in modules:
            yield f"{line}: imports {module}"
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if name in NAMES:
                yield f"{getattr(node, 'lineno', 0)}: uses {name}"
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield f"{node.lineno}: calls {name}()"
            case ast.Call(func=ast.Attribute(value=whose, attr=name)) if name in CLOCKS:
                if ast.unparse(whose).split(".")[-1] in ("datetime", "date"):
                    yield f"{node.lineno}: calls {ast.unparse(node.func)}()"
            case ast.Global():
                yield f"{node.lineno}: global state"


def inexact(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex() as number):
                yield f"{node.lineno}: the float {number}"
            case ast.Name(id="float" | "complex" | "round" as name):
                yield f"{node.lineno}: uses {name}"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                if (path.name, ast.unparse(node)) not in DIVISIONS:
                    yield f"{node.lineno}: divides inexactly, {ast.unparse(node)}"


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_rules_read_no_clock_no_chance_no_environment_and_no_file(path):
    assert not list(impurities(tree_of(path), DOMAIN_MODULES))


@pytest.mark.parametrize("path", PROJECTIONS, ids=lambda path: path.name)
def test_projections_read_no_clock_no_chance_no_environment_and_no_file(path):
    assert not list(impurities(tree_of(path), MODULES))


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_no_float_comes_near_a_quantity_or_money(path):
    assert not list(inexact(path, tree_of(path)))


def test_every_division_that_is_allowed_is_there():
    found = {
        (path.name, ast.unparse(node))
        for path in DOMAIN
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
    }
    assert found == DIVISIONS


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import date\ndate.today()",
        "from datetime import datetime\ndatetime.utcnow()",
        "open('x')",
        "import psycopg",
        "hash('x')",
        "import secrets as s",
        "def f():\n    global x",
    ],
)
def test_the_check_sees_what_it_looks_for(source):
    assert list(impurities(ast.parse(source), DOMAIN_MODULES))


@pytest.mark.parametrize("source", ["x = 0.5", "float('1')", "x = a / b", "x /= 2", "round(x)", "x = 1e6"])
def test_the_check_sees_what_is_inexact(source):
    assert list(inexact(Path("charging.py"), ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["x = a // b", "divmod(a, b)", "datetime.fromtimestamp(5, zone)", "now = 5"]
)
def test_what_is_exact_and_pure_is_left_alone(source):
    tree = ast.parse(source)
    assert not [*impurities(tree, DOMAIN_MODULES), *inexact(Path("charging.py"), tree)]
