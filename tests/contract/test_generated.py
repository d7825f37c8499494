"""Files in the tree that code generates are what it would generate now."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/generate.py as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("generate", SCRIPTS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate", module)
    spec.loader.exec_module(module)
    return module


def test_no_generated_file_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    generated = generator(monkeypatch).generated()
    assert len(generated) == 8
    stale = [str(path) for path, text in generated.items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make crds`"
