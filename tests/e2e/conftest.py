"""One bed of three nodes for all end-to-end tests; they run in the order of their files, the gentle ones first."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sitebed import Bed, run_bed


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """Empty nodes, then site.yml. With KEEP_BED=1 a bed that is up is used as it is, and kept."""
    name = os.environ["BED_NAME"]
    keep = os.environ.get("KEEP_BED") == "1"
    if not keep:
        run_bed("down", name)
        run_bed("up", name, "--nodes", "3")
    try:
        bed = Bed(name)
        if not keep:
            first = bed.playbook()
            assert first.rc == 0, first.output[-6000:]
        yield bed
    finally:
        if not keep:
            run_bed("down", name)
