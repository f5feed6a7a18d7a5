"""The playbook site, as far as it comes without a host that answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rendering import ROOT

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


@pytest.mark.parametrize(
    ("limit", "tags", "refused"),
    [
        ("all:!node-3", "all", True),
        ("node-1", "app", True),
        (None, "all", False),
        ("all:localhost:!node-3", "all", False),
        ("node-1,localhost", "preflight", False),
    ],
)
def test_a_limit_without_localhost_is_refused_before_anything_is_asked(
    limit: str | None, tags: str, refused: bool
) -> None:
    command = [str(PLAYBOOK), "-i", "inventories/sample", "site.yml", "--tags", tags]
    command += ["--limit", limit] if limit else []
    # What is allowed stops at the next play, which takes no host.
    done = subprocess.run([*command, "-e", "app_domain="], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (f"The limit {limit} leaves out localhost" in done.stdout) is refused, done.stdout
    assert ("app_domain" in done.stdout) is not refused
