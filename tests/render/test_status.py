"""The playbook status, as far as it comes without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rendering import ROOT

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def play(folder: Path, *given: str, playbook: str = "status", group: str = "k3s_server") -> tuple[int, str]:
    """Run it for a host that is this machine and a kubeconfig that is not there."""
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": {group: {"hosts": {"node-1": HERE}}}}}))
    command = [
        str(PLAYBOOK),
        "-i",
        str(inventory),
        f"playbooks/{playbook}.yml",
        "-e",
        f"abaci_kubeconfig={folder}/none",
    ]
    for one in given:
        command += ["-e", one]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["status_ouput=json"],
            "The variable status_ouput is not known here: playbooks/status.yml knows status_backup",
        ),
        (["scale_replicas=2"], "The variable scale_replicas is not known here"),
        (["status_output=html"], "set status_file to its path"),
        (["status_output=yaml"], "value of status_output must be one of"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(given: list[str], sentence: str, tmp_path: Path) -> None:
    code, said = play(tmp_path, *given)
    assert code == 2
    assert sentence in " ".join(said.split()), said


def test_a_site_that_is_down_ends_with_2_and_the_verdict_is_in_the_file(tmp_path: Path) -> None:
    code, said = play(tmp_path, "status_output=json", f"status_file={tmp_path}/status.json")
    assert code == 2, said
    document = json.loads((tmp_path / "status.json").read_text())
    assert document["verdict"]["code"] == 2 and "There is no kubeconfig at" in document["verdict"]["sentence"]
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o640


def test_it_never_fails_where_it_is_told_so(tmp_path: Path) -> None:
    code, said = play(tmp_path, "status_fails_at=never")
    assert code == 0, said
    assert "Down or unsafe: There is no kubeconfig at" in said


def test_an_inventory_of_other_groups_is_refused(tmp_path: Path) -> None:
    code, said = play(tmp_path, group="server")
    assert code == 2 and "The inventory has no host in the group k3s_server" in " ".join(said.split())
