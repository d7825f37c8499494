"""The file as it was last good: another one is found, a bad one is told, and its end as well."""

from pathlib import Path

import pytest

from glm_gateway.config.file import BadConfig
from glm_gateway.config.source import ConfigSource

GOOD = "auth: {mode: None}\nmodels: [{name: %s, groups: {file: /g}}]\n"


def put(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    put(path, GOOD % "one")
    return path


def test_a_file_that_is_not_there_or_bad_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ConfigSource(tmp_path / "gateway.yaml")
    put(tmp_path / "gateway.yaml", "auth: 1")
    with pytest.raises(BadConfig, match="auth"):
        ConfigSource(tmp_path / "gateway.yaml")


def test_the_same_file_is_nothing_new_and_another_one_is(path: Path) -> None:
    source = ConfigSource(path)
    assert not source.look()
    put(path, GOOD % "one")
    assert not source.look(), "other times, the same bytes"
    put(path, GOOD % "two")
    assert source.look()
    assert source.current.config.models[0].name == "two"
    assert not source.look()


def test_a_bad_file_is_told_once_and_the_last_good_one_stays(path: Path) -> None:
    source = ConfigSource(path)
    put(path, "auth: {mode: Nobody}")
    assert source.look()
    assert source.fault is not None
    assert "auth.mode" in source.fault
    assert source.current.config.models[0].name == "one"
    assert not source.look()
    put(path, GOOD % "one")
    assert source.look()
    assert source.fault is None


def test_a_file_that_is_gone_is_told_until_it_is_back(path: Path) -> None:
    source = ConfigSource(path)
    path.unlink()
    assert source.look()
    assert source.fault == "the file cannot be read: No such file or directory"
    assert not source.look()
    put(path, GOOD % "one")
    assert source.look()
    assert source.fault is None


def test_a_config_map_whose_link_is_moved_is_another_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(GOOD % name)
    data = tmp_path / "..data"
    data.symlink_to("one")
    path = tmp_path / "gateway.yaml"
    path.symlink_to("..data/gateway.yaml")
    source = ConfigSource(path)
    new = tmp_path / "..new"
    new.symlink_to("two")
    new.rename(data)
    assert source.look()
    assert source.current.config.models[0].name == "two"
