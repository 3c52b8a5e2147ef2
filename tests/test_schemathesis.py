"""The served document against the service: generated requests, each answer as the document says, in all four phases."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.sidecars import Sidecar, clean_env
from generated import run_generated

pytestmark = pytest.mark.servers("any")

# What one operation and phase adds to the cases depends on its schema; so many examples make somewhat over 1,000.
EXAMPLES = 70
CASES_AT_LEAST = 1000


def test_every_answer_to_generated_requests_is_as_documented(shared_sidecar: Sidecar, tmp_path: Path) -> None:
    outcome = run_generated(shared_sidecar.base_url, tmp_path, clean_env(), EXAMPLES)
    assert outcome.status == 0, outcome.said
    assert outcome.cases >= CASES_AT_LEAST, outcome.said
    assert "status=5" not in shared_sidecar.log()
