"""What `allotment --help` tells of each command, without loading any: the text is read from the source.

To load them all takes seconds, and whoever asks for help waits for nothing else. A command whose text
is not found this way is loaded, so that the list always tells what the command itself would.
"""

import ast
from pathlib import Path

import rich_click as click

FOLDER = Path(__file__).with_name("commands")


def listed(name: str, module: str, function: str) -> click.Command | None:
    """A command that can be listed and nothing else; None if its source does not tell how."""
    found = _function(FOLDER / f"{module}.py", function)
    text = found and ast.get_docstring(found)
    return click.RichCommand(name=name, help=text, hidden=_is_hidden(found)) if found and text else None


def _function(source: Path, name: str) -> ast.FunctionDef | None:
    try:
        parts = ast.parse(source.read_bytes()).body
    except (OSError, SyntaxError):
        return None
    return next((part for part in parts if isinstance(part, ast.FunctionDef) and part.name == name), None)


def _is_hidden(function: ast.FunctionDef) -> bool:
    """Whether it is decorated with `@click.command(hidden=True)`."""
    calls = [one for one in function.decorator_list if isinstance(one, ast.Call)]
    orders = [one for one in calls if ast.unparse(one.func) in ("click.command", "click.group")]
    return any(keyword.arg == "hidden" for order in orders for keyword in order.keywords)
