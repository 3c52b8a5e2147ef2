"""The served document against the service: generated requests, each answer as the document says, in all four phases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import install
from fixtures.sidecars import Sidecar, clean_env
from generated import DIMENSIONS, run_generated

pytestmark = pytest.mark.servers("any")

# What one operation and phase adds to the cases depends on its schema; so many examples make somewhat over 1,000.
EXAMPLES = 45
CASES_AT_LEAST = 1000


def test_every_answer_to_generated_requests_is_as_documented(
    empty_database: str, start_sidecar: Callable[..., Sidecar], tmp_path: Path
) -> None:
    install(empty_database, dimensions=str(DIMENSIONS))
    sidecar = start_sidecar(empty_database)
    outcome = run_generated(sidecar.base_url, tmp_path, clean_env(), EXAMPLES, dimensions=DIMENSIONS)
    assert outcome.status == 0, outcome.said
    assert outcome.cases >= CASES_AT_LEAST, outcome.said
    assert "status=5" not in sidecar.log()
