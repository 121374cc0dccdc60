"""What the README shows is what the product does: its code blocks are run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()
SALES_LIMIT = """
mutation { setLimit(input: {node: "sales", usageType: "voice", quantity: "600", idempotencyKey: "readme"})
  { __typename } }
"""
A_CALL = """\
"","+442071838750","+442079460000","default","","SIP/anna-1","","Dial","",\
"2026-11-16 09:59:50","2026-11-16 10:00:00","2026-11-16 10:01:05",75,65,"ANSWERED","DOCUMENTATION","call-1",""
"""


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for named, block in fences if named == language]


def test_the_first_query_has_the_answer_that_is_shown(company, call):
    [query], [answer] = blocks("graphql"), blocks("json")
    company.ask(SALES_LIMIT)
    company.use(call("denied", 610))
    company.use(call("charged", 65))
    shown, told = json.loads(answer)["data"]["hierarchy"], company.ask(query)["hierarchy"]
    # How many events came before depends on the test's own enterprise.
    assert {**told, "seq": shown["seq"]} == shown


def test_the_commands_for_ones_own_servers_work_in_the_order_shown(servers, database, tmp_path):
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("allotment ")]
    assert len(commands) >= 4
    environment = {**os.environ, "DATABASE_URL": database, "NATS_URL": servers.nats_url}
    environment["ALLOTMENT_HOME"] = str(tmp_path)

    def run(*arguments: str) -> str:
        program = [str(Path(sys.executable).with_name("allotment")), *arguments]
        done = subprocess.run(
            program, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    (tmp_path / "enterprise.json").write_text(run("tenant", "example"))
    (tmp_path / "calls.csv").write_text(A_CALL)
    for command in commands:
        if command != "allotment serve" and ">" not in command:
            run(*shlex.split(command)[1:])
