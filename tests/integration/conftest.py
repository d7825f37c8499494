"""In which order the files run. Two do at a time, and a long one that began last would run alone at the end."""

import pytest

LONG_FIRST = (
    "test_dashboards.py",
    "test_worker_process.py",
    "test_supervisor.py",
    "test_local.py",
    "test_operator_autoscaler.py",
)
"""Those of a minute and more, by their time, whatever number of tests they have."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONG_FIRST)
    items.sort(key=lambda item: LONG_FIRST.index(item.path.name) if item.path.name in LONG_FIRST else last)
