"""In which order the files run. Three do at a time, and a long one that began last would run alone at the end."""

import pytest

LONG_FIRST = (
    "test_worker_process.py",
    "test_supervisor.py",
    "test_calibrate.py",
    "test_dashboards.py",
    "test_rules.py",
    "test_clients.py",
    "test_operator_crashes.py",
    "test_hostile_bodies.py",
    "test_prometheus_source.py",
    "test_autoscale_benchmark.py",
    "test_operator_gateway_hazards.py",
    "test_local_gateway.py",
    "test_models_benchmark.py",
    "test_gateway_clients.py",
    "test_parity.py",
    "test_supervisor_drain.py",
    "test_operator_process.py",
    "test_supervisor_starts.py",
    "test_zygote_imports.py",
)
"""Those that take longest, by their time, whatever number of tests they have."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONG_FIRST)
    items.sort(key=lambda item: LONG_FIRST.index(item.path.name) if item.path.name in LONG_FIRST else last)
