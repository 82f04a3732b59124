import pytest

from captioner.data.spreadsheets import quoted, unquoted

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@", "'=\n'="]
PLAIN = ["", "a dog", "a man's dog", "'", "''", "'quoted'", "a=1", "1-2", "a\n=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe_and_loses_it_again(text: str) -> None:
    assert quoted(text) == f"'{text}"
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert quoted(text) == text
    assert unquoted(text) == text


def test_a_formula_of_another_program_is_read_as_it_stands() -> None:
    assert unquoted("=1+1") == "=1+1"
