"""What a runbook must not forget, where the bed's cluster would forgive it."""

from __future__ import annotations

import pathlib

import pytest

RUNBOOK = pathlib.Path(__file__).parents[2] / "docs/runbooks/primary-refused.md"


@pytest.mark.parametrize(("section", "data"), [("## Second", "tar -x"), ("## Third", "litefs import")])
def test_hazard_a_new_volume_is_retain_before_data_goes_in(section: str, data: str) -> None:
    """From Kubernetes 1.36 an admission policy sees to it; before that, nothing does."""
    text = RUNBOOK.read_text().split(section)[1]
    assert text.index("grep -q Bound") < text.index('"persistentVolumeReclaimPolicy": "Retain"') < text.index(data)
