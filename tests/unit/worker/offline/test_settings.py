"""What may be said of an engine that is alone, and what may not."""

from pathlib import Path

import pytest

from glm_worker.errors import ConfigError
from glm_worker.offline.settings import local_settings


def test_a_setting_of_an_engine_is_taken(tmp_path: Path) -> None:
    settings = local_settings(tmp_path, {"model": "m", "prefix_cache": False, "threads_per_rank": 1024})
    assert (settings.prefix_cache, settings.threads_per_rank) == (False, 1024)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"http_port": 1}, "http_port is no setting of an engine"),
        ({"threads_per_rank": 100_000}, "GLM_THREADS_PER_RANK=100000: Input should be less than or equal to 1024"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, said: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        local_settings(tmp_path, {"model": "m", **said})
