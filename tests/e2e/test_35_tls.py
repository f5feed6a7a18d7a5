"""The edge speaks TLS as Mozilla's profile "intermediate" asks, by the word of sslyze."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sitebed import Bed

# In an environment of its own: it wants an older cryptography than the project.
SSLYZE = "sslyze==6.3.1"


@pytest.fixture(scope="module")
def sslyze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sslyze")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SSLYZE]
    subprocess.run(pip, check=True)
    return folder / "bin/sslyze"


def test_it_is_mozillas_intermediate_profile_but_for_the_beds_own_ca(bed: Bed, sslyze: Path, tmp_path: Path) -> None:
    said = subprocess.run(
        [
            str(sslyze),
            *(
                "--sni",
                "abaci.localhost",
                "--mozilla_config",
                "intermediate",
                "--json_out",
                str(tmp_path / "scan.json"),
            ),
            f"127.0.0.1:{bed.https_port}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    (scan,) = json.loads((tmp_path / "scan.json").read_text())["server_scan_results"]
    accepted = scan["scan_result"]["tls_1_3_cipher_suites"]["result"]["accepted_cipher_suites"]
    assert scan["scan_status"] == "COMPLETED" and accepted, said
    assert "Checking results against Mozilla's" in said
    problems = [line.strip() for line in said.splitlines() if line.startswith(" " * 8 + "* ")]
    assert [problem for problem in problems if not problem.startswith("* certificate_path_validation")] == [], said
