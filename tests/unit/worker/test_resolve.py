"""Model URIs become folders, or a sentence."""

from pathlib import Path

import pytest

from glm_worker.errors import ConfigError
from glm_worker.models import resolve


def a_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def test_the_builtin_model_is_beside_the_package() -> None:
    assert (resolve("builtin://glm-nano") / "model.safetensors").is_file()


def test_a_folder_is_itself_with_and_without_a_scheme(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path / "m")
    assert resolve(str(folder)) == resolve(f"file://{folder}") == folder


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("builtin://other", "there are glm-nano"),
        ("builtin://../../etc", "no such built-in model"),
        ("s3://bucket/x", "unknown scheme"),
        ("file://relative", "absolute"),
        ("/nowhere/at/all", "not a folder"),
    ],
)
def test_what_is_no_model_is_refused_with_what_is_allowed(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(uri)
    assert uri in str(caught.value)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = a_checkpoint(tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match=missing):
        resolve(str(folder))
