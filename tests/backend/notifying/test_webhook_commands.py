"""`allotment webhook`: the real program, sending to itself."""

import asyncio
import os
import subprocess
import sys

import pytest

from allotment.backend.cli import run
from allotment.backend.crew import PROGRAM
from allotment.backend.notifying.webhooks import WebhookClient

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cw=="


def program(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "webhook", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        **more,
    )


async def forged(url):
    async with WebhookClient(private=True) as client:
        return await client.post(url, ["whsec_b3RoZXI="], "msg_1", b"{}")


def test_a_sample_is_sent_received_and_its_signature_checked():
    listening = program("listen", "--port", "0", "--secret", SECRET, "--count", "1")
    try:
        url = listening.stderr.readline().split()[-1]
        assert asyncio.run(forged(url)).detail == "401"
        sent = program("trigger", "--url", url, "--secret", SECRET, "--json")
        assert '"ok":true' in sent.communicate(timeout=60)[0]
        assert '"allotment.limit.threshold_crossed"' in listening.stdout.readline()
        assert listening.wait(20) == 0
    finally:
        listening.kill()
        listening.communicate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("trigger", "--url", "http://localhost/", "--secret", "nonsense"),
            "secret: give one such as whsec_",
        ),
        (("trigger", "--url", "nowhere", "--secret", SECRET), "url: the address must begin with https://"),
        (("listen", "--secret", "whsec_"), "secret: give one such as whsec_"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_remedy(arguments, told, capfd):
    assert run(["webhook", *arguments]) == 2
    assert told in capfd.readouterr().err
