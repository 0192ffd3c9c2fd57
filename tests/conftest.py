"""Fixtures and hypothesis profiles of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.shared import shared_dir

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data folder; skips with the reason where it is absent."""
    folder = shared_dir()
    if folder is None:
        pytest.skip("reference data not found: set HWSIM_SHARED to the folder that holds measured/, mappers/, serving/")
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect long tests unless they were asked for by marker or by node id."""
    if config.getoption("-m") or any("::" in arg for arg in config.args):
        return
    kept = [item for item in items if item.get_closest_marker("long") is None]
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
    items[:] = kept
