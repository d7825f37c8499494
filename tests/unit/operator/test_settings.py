"""Settings from the environment and from flags."""

from collections.abc import Iterable, Sized
from itertools import islice

import pytest

from glm_operator.handlers.triggers import build_settings
from glm_operator.settings import SettingsError, read_settings


def test_namespaces_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_NAMESPACES", "one, two,")
    assert read_settings().namespaces == ("one", "two")


def test_no_namespace_means_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_NAMESPACES", "")
    assert read_settings().namespaces == ()


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_WORKER_IMAGE", "environment:1")
    assert read_settings(worker_image=None).worker_image == "environment:1"
    assert read_settings(worker_image="flag:1").worker_image == "flag:1"


def test_a_value_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_MANAGEMENT_PORT", "many")
    monkeypatch.setenv("GLM_OPERATOR_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert "GLM_OPERATOR_MANAGEMENT_PORT=many" in str(caught.value)
    assert "GLM_OPERATOR_LOG_LEVEL=loud" in str(caught.value)


def test_a_watch_is_never_given_up() -> None:
    backoffs = build_settings().networking.error_backoffs
    assert isinstance(backoffs, Iterable)
    assert not isinstance(backoffs, Sized)
    first, second = (list(islice(backoffs, 1000)) for _ in range(2))
    assert (len(first), max(first)) == (1000, 30.0)
    assert second == first, "each watch counts for itself"
