"""Documents that are printed from the code say what the code says."""

from pathlib import Path

import pytest

from allotment.backend.documents import DOCUMENTS

TOP = Path(__file__).parent.parent


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_printed_document_says_what_the_code_says(path: str) -> None:
    assert (TOP / path).read_text() == DOCUMENTS[path](), f"{path} is out of date: run `make docs`"
