"""The layout of the repository, as STYLE and CONTRIBUTING describe it."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"backend", "domain", "graphql", "migrations", "projections", "tenants"}
NOT_OURS = re.compile(
    r"^(\.git|\.venv|\.src|\.allotment|build|__pycache__|.*\.egg-info|\.[a-z_]+_cache|\.hypothesis)$"
)
ADDRESS = re.compile(r"\bhttps?://([^\s/:\"'<>)\]`,;]+)")
# Reserved for examples and tests, not a public name, this machine, filled in by code, or only a name.
HARMLESS = re.compile(
    r"^((.+\.)?example(\.(com|net|org))?|.+\.(test|invalid|localhost)|[^.]+|127\.0\.0\.1|0\.0\.0\.0"
    r"|.*[{$%].*|www\.w3\.org|json-schema\.org)$"
)
NEVER_EDITED = {"LICENSE"}


def files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not NOT_OURS.match(name)]
        yield from (Path(folder, name) for name in names)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python_folders() -> set[str]:
    return {
        "allotment." + ".".join(path.parent.relative_to(ROOT).parts)
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in FOLDERS
    }


def test_the_folders_of_the_product_are_there():
    assert {name for name in FOLDERS if (ROOT / name).is_dir()} == FOLDERS
    assert (ROOT / "tests" / "golden").is_dir()


def test_no_folder_has_an_init_file():
    # With one, ./graphql would hide the library that strawberry needs.
    assert not [path for path in files() if path.name == "__init__.py"]


def test_every_folder_of_python_is_a_listed_package():
    assert set(project()["tool"]["setuptools"]["packages"]) == python_folders()


def test_type_checkers_see_the_same_names():
    links = {path.name: os.readlink(path) for path in (ROOT / ".src" / "allotment").iterdir()}
    assert links == {name: f"../../{name}" for name in FOLDERS}


def test_the_lock_pins_with_hashes_and_names_no_host():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index-url" not in lock
    assert "--find-links" not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==\S+.*\\\n +--hash=sha256:", lock, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^\S", lock, re.MULTILINE))


def test_the_lock_holds_every_dependency():
    declared = project()["project"]["dependencies"] + project()["project"]["optional-dependencies"]["dev"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {re.match(r"[\w-]+", name)[0].lower().replace("_", "-") for name in declared} <= pinned


def test_what_needs_the_network_is_not_hidden_in_a_file():
    found = {}
    for path in files():
        if path.name in NEVER_EDITED:
            continue
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if foreign := [host for host in ADDRESS.findall(text) if not HARMLESS.match(host)]:
            found[str(path.relative_to(ROOT))] = foreign
    assert not found, "addresses of other machines; use example.com, or add a namespace to HARMLESS"
