"""In which order the files run. Two do at a time, and a long one that began last would run alone at the end."""

import pytest

LONG_FIRST = (
    "test_calibrate.py",
    "test_dashboards.py",
    "test_worker_process.py",
    "test_supervisor.py",
    "test_autoscale_benchmark.py",
    "test_clients.py",
    "test_gateway_clients.py",
    "test_rules.py",
    "test_operator_crashes.py",
    "test_prometheus_source.py",
    "test_models_benchmark.py",
)
"""Those that take longest, by their time, whatever number of tests they have."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONG_FIRST)
    items.sort(key=lambda item: LONG_FIRST.index(item.path.name) if item.path.name in LONG_FIRST else last)
