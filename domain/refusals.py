"""How the rules say no, and how they stop when they themselves are wrong.

`Refused` answers somebody outside: its code is part of the API, its facts let a portal explain.
`InvariantBroken` is our own mistake: the writer stops rather than continue wrong.
"""

from typing import Any


class Refused(Exception):
    """A command the rules do not allow. Nothing has changed."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code, facts)
        self.code = code
        self.facts = facts

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.facts.items())
        return f"{self.code}: {told}" if told else self.code


class InvariantBroken(AssertionError):
    """Something that always holds (domain/README.md, "What always holds") does not."""

    def __init__(self, invariant: str, **facts: Any) -> None:
        told = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        super().__init__(f"{invariant}: {told}")
        self.invariant = invariant
        self.facts = facts


TEXT_MAX = 200


def check_text(field: str, text: str, *, empty: bool = False) -> None:
    """Refuses text that a bill cannot print or a database cannot store."""
    if not (text.isprintable() and len(text) <= TEXT_MAX and (text or empty)):
        raise Refused("bad_text", field=field, remedy=f"1 to {TEXT_MAX} printable characters")
