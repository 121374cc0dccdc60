"""What commands that read and write sheets have in common: their text, their period, and what is told."""

from ...domain.refusals import Refused
from ...graphql.problems import BadLines
from ...graphql.refusals import TOLD, message_of, problem_of
from ...tenants.onboarding import TenantEntry
from ..asking import Answer
from .input import InputError, opened
from .output import note, say, tell_json


def text_of(file: str) -> str:
    with opened(file) as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: byte {error.start} is no UTF-8: save the sheet as UTF-8") from error


def tell_carried_out(
    entry: TenantEntry, answer: Answer, counts: dict[str, int], sentence: str, *, as_json: bool
) -> None:
    """What a sheet has led to: counted for programs, in a sentence for people."""
    if as_json:
        about = {"tenant": entry.slug, "dry_run": answer.dry, "repeated": answer.repeated, **counts}
        tell_json({**about, "first_seq": answer.first_seq, "last_seq": answer.last_seq})
        return
    if answer.repeated:
        note("This sheet had been carried out before: --key NAME carries it out again.")
    say(sentence)


def tell_refusal(refusal: Refused, *, as_json: bool) -> None:
    """Each line that does not fit with its reason, and then the refusal itself."""
    if as_json:
        facts = {name: fact for name, fact in refusal.facts.items() if name != "lines"}
        bad = refusal.facts["lines"] if isinstance(refusal.facts.get("lines"), list) else []
        tell_json({"refused": refusal.code, **facts, "lines": bad})
    problem = problem_of(refusal)
    for one in problem.lines if isinstance(problem, BadLines) else ():
        note(f"line {one.line}: {one.code}: {one.message}")
    field = TOLD[refusal.code].field
    note(f"allotment: refused, nothing was done: {field}: {message_of(refusal.code, refusal.facts)}")
