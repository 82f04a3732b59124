"""The package keeps the rules of its house. `make lint` checks which room may import which; this is the rest."""

from __future__ import annotations

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import captioner

PACKAGE = Path(captioner.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE)


def test_modules_and_functions_are_short() -> None:
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 400, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.parent.name)
def test_a_room_says_what_it_is_for_and_exports_nothing(room: Path) -> None:
    if room.parent.name == "templates":  # which holds one function beside its templates
        return
    tree = ast.parse(room.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), room
    assert len(tree.body) == 1, f"{room} holds more than its docstring"


def test_every_public_name_can_be_had() -> None:
    for name in captioner.__all__:
        assert getattr(captioner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        captioner.nothing  # noqa: B018


def test_dir_shows_what_can_be_had_and_imports_nothing() -> None:
    code = "import captioner, sys; print(*dir(captioner)); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == sorted(captioner.__all__)


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {name.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert homes == {name: f"captioner.{module}" for name, module in captioner._HOMES.items()}
    assert set(captioner.__all__) == {"__version__", *homes}


def test_errors_that_a_caller_may_catch_have_one_base() -> None:
    errors = [getattr(captioner, name) for name in captioner.__all__ if name.endswith("Error")]
    assert len(errors) > 5
    assert all(issubclass(error, captioner.CaptionerError) for error in errors)
    defined = [
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    assert sorted(defined) == sorted(error.__name__ for error in errors)


def test_help_shows_the_whole_face_on_one_screen() -> None:
    """After that come the classes and functions one by one, because `dir` names them."""
    code = "import captioner; help(captioner)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    shown, _, one_by_one = shown.partition("\nCLASSES\n")
    assert shown.count("\n") < 90
    assert "caption_files(" in one_by_one
    for name in set(captioner.__all__) - {"__version__"}:
        assert name in shown
        assert pydoc.getdoc(getattr(captioner, name)), f"{name} has no docstring"
