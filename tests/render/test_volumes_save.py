"""The playbook volumes_save on two hosts, of which one may be away."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from rendering import ROOT

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}


@pytest.mark.parametrize("away", [False, True])
def test_what_answers_is_saved_and_a_host_that_does_not_is_no_success(tmp_path: Path, away: bool) -> None:
    """Its copy may be the newest, and what follows in the runbook puts the hosts' k3s aside."""
    database = tmp_path / "storage/pvc-1/dbs/sqlite.db/database"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE a (b)")
    inventory = tmp_path / "hosts.json"
    hosts = {"node-1": HERE, "node-2": AWAY} if away else {"node-1": HERE}
    inventory.write_text(json.dumps({"all": {"children": {"k3s_server": {"hosts": hosts}}}}))
    given = {"volumes_save_directory": str(tmp_path / "saved"), "volumes_save_storage": str(tmp_path / "storage")}
    command = [str(PLAYBOOK), "-i", str(inventory), "playbooks/volumes_save.yml", "-e", json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert len(list((tmp_path / "saved").glob("*.sqlite"))) == 1, done.stdout
    assert ("Nothing of node-2 was saved, since it did not answer" in said) is away
    assert done.returncode == (2 if away else 0), done.stdout
