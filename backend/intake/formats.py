"""Formats: how the records of a network element are laid out, declared in data.

A format is a TOML file, one of ours in `formats/` beside this module or a carrier's own. Nothing
about a format stands in code, and a format that loads without an error can be read: whatever it
names exists, its patterns compile, its units can be turned into those of its usage types.
`docs/formats.md` describes every key.
"""

from functools import cache
from pathlib import Path

import msgspec

from .declaration import Format
from .soundness import problems

FORMAT_BYTES_MAX = 1_000_000
"""A declaration is a page of text; whatever is larger is another file, named by mistake."""


class FormatError(ValueError):
    """A format that cannot be used. Says which, where in it, and what to do."""


def load_format(name_or_path: str) -> Format:
    """A format by its name, or from a carrier's own file: a path, or a name that ends in ".toml"."""
    path = _path_of(name_or_path)
    try:
        with path.open("rb") as file:
            text = file.read(FORMAT_BYTES_MAX + 1)
    except OSError as error:
        raise FormatError(f"format {path}: cannot be read: {error.strerror}") from error
    if len(text) > FORMAT_BYTES_MAX:
        raise FormatError(f"format {path}: more than {FORMAT_BYTES_MAX} bytes; is this the right file?")
    return parse_format(text, path.stem)


@cache
def shipped_format(name: str) -> Format:
    """One of ours, by name alone: for senders from outside, whom a path would let read our files.

    Read once, for every request names one; a name that is not known is not remembered.
    """
    known = format_names()
    if name not in known:
        raise FormatError(f"format {name!r} is not known: use one of {', '.join(known)}")
    return load_format(name)


def parse_format(text: bytes, name: str) -> Format:
    """A format from its declaration."""
    try:
        declared = msgspec.toml.decode(text, type=Format)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The path is the last thing msgspec says: "... - at `$.fields.line[1]`".
        problem, _, path = str(error).partition(" - at `$.")
        where = f"{path.rstrip('`')}: " if path else ""
        raise FormatError(f"format {name!r}: {where}{problem}; docs/formats.md lists the keys") from error
    declared = msgspec.structs.replace(declared, name=declared.name or name)
    if (found := next(problems(declared), None)) is not None:
        raise FormatError(f"format {name!r}: {found[0]}: {found[1]}")
    return declared


def format_names() -> list[str]:
    """The formats that come with the product."""
    return sorted(path.stem for path in _shipped().glob("*.toml"))


def _path_of(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.name != name_or_path:
        return path
    if name_or_path not in format_names():
        known = ", ".join(format_names())
        raise FormatError(
            f"format {name_or_path!r} is not known; use one of {known}, or the path of a .toml file"
        )
    return _shipped() / f"{name_or_path}.toml"


def _shipped() -> Path:
    # importlib.resources cannot look into a package without __init__.py that is installed editable.
    return Path(__file__).with_name("formats")
