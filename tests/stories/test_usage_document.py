"""What the page about sending usage shows is what the door does: its commands are carried out."""

import gzip
import json
import re
import shlex
from pathlib import Path

from allotment.backend.intake.door import PROBLEMS_TOLD_MAX
from allotment.backend.web.usage_door import (
    BODY_BYTES_MAX,
    NAME_MAX,
    PARAMETERS,
    PATH,
    UNPACKED_BYTES_MAX,
)
from allotment.backend.writer import INBOX_MAX

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "usage.md").read_text(encoding="utf-8")


def blocks(language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [block for named, block in fences if named == language]


def send(company, command, files):
    """What curl would send: the files are those that the page has written."""
    first, _, piped = command.partition(" | ")
    words = shlex.split((piped or first).replace("$TOKEN", company.token("mediation")))
    assert words[:2] == ["curl", "-s"]
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    body = files["calls.ndjson"].encode()
    assert words[words.index("--data-binary") + 1] == ("@-" if piped else "@calls.ndjson")
    if piped:
        assert first == "gzip -c calls.ndjson"
        body = gzip.compress(body)
    return company.portal.client.post(words[-1].replace("$USAGE", PATH), content=body, headers=headers)


def test_what_is_sent_is_answered_as_shown_and_charged_once(company):
    first, packed = blocks("sh")
    written = re.fullmatch(r"cat > (\S+) <<'END'\n(.*?)END\n(.*)\n", first, re.DOTALL)
    assert written is not None
    files, told, again = {written[1]: written[2]}, *map(json.loads, blocks("json"))
    answer = send(company, written[3], files)
    assert (answer.status_code, answer.json()) == (200, told)
    answer = send(company, packed.rstrip("\n"), files)
    assert answer.json().items() >= again.items()
    company.settle()
    usages = company.ask("{ usages { nodes { recordId status billed } } }")["usages"]["nodes"]
    charged = [(one["recordId"], one["billed"]) for one in usages if one["status"] == "CHARGED"]
    assert charged == [("call-7", "120")]


def test_every_parameter_and_member_of_the_answer_is_on_the_page(company):
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert rows == [*PARAMETERS, *company.use()]


def test_the_limits_on_the_page_are_those_of_the_door():
    assert (BODY_BYTES_MAX, UNPACKED_BYTES_MAX) == (8 << 20, 64 << 20)
    assert f"8 MiB ({BODY_BYTES_MAX:,} bytes) as it is sent, and 64 MiB unpacked" in DOCUMENT
    assert f"at most {NAME_MAX} printable" in DOCUMENT
    assert f"{INBOX_MAX:,} records wait" in DOCUMENT
    assert PROBLEMS_TOLD_MAX == 100  # "the first hundred"
