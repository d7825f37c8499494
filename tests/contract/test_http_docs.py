"""docs/http.md names settings that the worker has, with their defaults."""

import re
from pathlib import Path

from glm_worker.settings import WorkerSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")


def test_every_setting_of_the_page_is_the_workers_with_its_default() -> None:
    rows = re.findall(r"^\| `GLM_([A-Z_]+)` \| `([^`]+)` \| `([^`]+)`:", PAGE, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(re.findall(r"GLM_([A-Z_]+)", PAGE))
    for name, default, other in rows:
        field = WorkerSettings.model_fields[name.lower()]
        assert field.default == default
        assert field.annotation is not None
        assert set(field.annotation.__args__) == {default, other}
