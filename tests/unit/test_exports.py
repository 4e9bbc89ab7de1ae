"""What is public can be imported, and says what it is; every error has its place in the tree."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import broker
from broker import errors, memory, sync
from broker.errors import TympanError

PACKAGE = Path(broker.__file__).parent
PUBLIC = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
PUBLIC_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and not name.startswith("_")
}


def imported_names(module: ModuleType) -> set[str]:
    """Public names that the module's own text imports."""
    tree = ast.parse(inspect.getsource(module))
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("broker")
        for alias in node.names
    }


def test_all_is_what_the_package_imports_and_no_more() -> None:
    names = {name for name in imported_names(broker) if not name.startswith("_")}
    assert set(broker.__all__) == names
    assert len(set(broker.__all__)) == len(broker.__all__)


def test_all_is_sorted_constants_first_then_classes_then_modules() -> None:
    def key(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert sorted(broker.__all__, key=key) == list(broker.__all__)


@pytest.mark.parametrize("name", broker.__all__)
def test_what_is_exported_is_there(name: str) -> None:
    assert getattr(broker, name) is not None


def test_a_star_import_gives_what_all_says() -> None:
    found: dict[str, object] = {}
    exec("from broker import *", found)  # the statement is not allowed in a function
    assert set(found) - {"__builtins__"} == set(broker.__all__)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_module_imports_by_itself_and_says_what_it_is(module: str) -> None:
    name = "broker" if module == "__init__" else f"broker.{module}"
    loaded = importlib.import_module(name)
    assert loaded.__doc__
    assert loaded.__doc__.strip()


def test_what_the_facade_and_the_double_are_for_is_reachable() -> None:
    assert inspect.isclass(sync.Broker)
    assert inspect.isclass(memory.MemoryRedis)


@pytest.mark.parametrize(
    "name", [name for name in broker.__all__ if inspect.isclass(getattr(broker, name))]
)
def test_every_public_method_says_what_it_does(name: str) -> None:
    kind = getattr(broker, name)
    silent = [
        f"{name}.{method}"
        for method, member in vars(kind).items()
        if not method.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod))
        and not inspect.getdoc(getattr(kind, method))
    ]
    assert not silent


def tree() -> dict[str, str]:
    """Error and parent, as the module's docstring draws them."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        del path[depth:]
        drawn[found[2]] = path[-1] if path else ""
        path.append(found[2])
    return drawn


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real = {
        name: kind.__bases__[0].__name__ if kind is not TympanError else ""
        for name, kind in PUBLIC_ERRORS.items()
    }
    assert tree() == real


@pytest.mark.parametrize("name", PUBLIC_ERRORS)
def test_every_error_is_ours_and_says_when_it_is_raised(name: str) -> None:
    kind = PUBLIC_ERRORS[name]
    assert issubclass(kind, TympanError)
    assert kind.__doc__
    assert kind.__doc__ != kind.__bases__[0].__doc__


def test_every_error_is_raised_somewhere() -> None:
    """An error that nothing raises is a promise that nobody keeps."""
    bases = {kind.__bases__[0].__name__ for kind in PUBLIC_ERRORS.values()}
    said = "".join(
        path.read_text(encoding="utf-8")
        for path in PACKAGE.glob("*.py")
        if path.name not in ("errors.py", "__init__.py")
    )
    unused = {
        name for name in PUBLIC_ERRORS if name not in bases and not re.search(rf"\b{name}\(", said)
        and not re.search(rf"\berrors\.{name}\b", said)
    }  # fmt: skip
    assert not unused


def test_nothing_of_redis_or_pydantic_is_imported_before_it_is_needed() -> None:
    code = "import sys, broker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"redis", "hiredis", "pydantic", "lxml", "fakeredis"}
    assert not heavy & set(done.stdout.split())


def test_names_that_come_late_are_listed_and_others_refused() -> None:
    assert set(broker.__all__) <= set(dir(broker))
    with pytest.raises(AttributeError, match="no attribute 'Printer'"):
        broker.Printer  # type: ignore[attr-defined]  # noqa: B018
