"""Killed at random moments: what was acknowledged is in the log, nothing is there twice.

The process that charges is killed, the PostgreSQL server is killed, one of its sessions is killed.
What was killed is started again by this test; a charging process that lives on finds the server
again by itself, at the same address.
"""

import random
import time

import pytest
from backend.faults.scene import Charging, furnished, judge, placed

SEED = 20_261_121
KILLED = {"process": 4, "server": 3, "session": 3}


@pytest.fixture
def place(home):
    with placed(home) as opened:
        yield opened


def test_killed_ten_times_every_acknowledged_record_is_in_the_log_once(place):
    _kill_and_judge(place, SEED, KILLED)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 6))
def test_killed_a_hundred_times_every_acknowledged_record_is_in_the_log_once(place, seed):
    _kill_and_judge(place, seed, {what: 10 * times for what, times in KILLED.items()})


def _kill_and_judge(place, seed, times):
    print(f"seed {seed}")
    draw = random.Random(seed)
    faults = [what for what, count in times.items() for _ in range(count)]
    draw.shuffle(faults)
    tenant = furnished(place.url)
    judge(place.url, tenant, _charged_under(place, tenant, faults, draw))


def _charged_under(place, tenant, faults, draw):
    """Charge while everything is killed in turn; all that was acknowledged."""
    first, acknowledged = 0, []
    charging = Charging(place.url, tenant, first)
    try:
        for fault in faults:
            charging.wait_for(1)
            print(fault, len(charging.acknowledged), time.monotonic())
            time.sleep(draw.uniform(0, 0.3))
            if fault == "process":
                charging.kill()
                acknowledged += charging.acknowledged
                first += draw.randrange(600)  # some were sent before, some were not
                charging = Charging(place.url, tenant, first)
            elif fault == "server":
                place.kill()
                place.start()
            else:
                place.kill_a_session(draw)
        charging.wait_for(100)
    finally:
        charging.kill()
    return acknowledged + charging.acknowledged
