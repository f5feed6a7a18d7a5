"""What ends a site in WAL mode although every probe is green, and the runbooks that bring it back, row for row."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import operating as op
import pytest
from operating import operate
from sitebed import ROOT, Bed, PlaybookRun

RUNBOOKS = ROOT / "docs/runbooks"
WAL = ("-e", json.dumps({"app_env": {"JOURNAL_MODE": "wal"}}))
GROW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO records (body) SELECT hex(randomblob(500)) FROM n"
)
LOSE = (
    "import sqlite3;d=sqlite3.connect('/litefs/sqlite.db',isolation_level=None);"
    "c=d.execute(\"INSERT INTO records (body) VALUES ('lost'),('lost'),('lost') RETURNING id\");"
    "print(c.fetchone());c.close()"
)
# The connection that shrinks the file goes on writing, and hears of no error, unless another one looked in between.
SHRINK = """
import sqlite3, time
db = sqlite3.connect("/litefs/sqlite.db", isolation_level=None)
db.execute("DELETE FROM records WHERE length(body) = 1000")
db.execute("VACUUM")
try:
    db.execute("INSERT INTO records (body) VALUES ('after the lock')")
    print("acknowledged", flush=True)
except sqlite3.OperationalError as error:
    print(error, flush=True)
time.sleep(600)
"""
ROWS = "SELECT count(*), max(id), total(id), total(length(body)), total(body = 'after the lock') FROM records"


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modes") / "backups"


@pytest.fixture
def in_wal(bed: Bed) -> None:
    if bed.rows("abaci-app-0", "PRAGMA journal_mode") != "wal":
        run = bed.playbook("--tags", "app", *WAL)
        assert run.rc == 0, run.output[-3000:]
    op.agree(bed, seconds=120)


def blocks(runbook: str, heading: str) -> list[str]:
    """The bash blocks below the heading."""
    (section,) = [part for part in re.split(r"(?m)^## ", (RUNBOOKS / runbook).read_text()) if part.startswith(heading)]
    return re.findall(r"(?ms)^```bash\n(.*?)^```", section)


def said(run: PlaybookRun, words: str) -> bool:
    """Whether the run said so; warnings are wrapped, also at hyphens."""
    return "".join(words.split()) in "".join(run.output.split())


def follow(bed: Bed, playbook: str, *arguments: str, backups: Path) -> None:
    """Run the playbook, and again with each word that a refusal asks for, until it is through."""
    given = list(arguments)
    for _run in range(6):
        run = operate(bed, playbook, *given, backups=backups)
        if run.rc == 0:
            return
        words = re.findall(rf"-e ({playbook}_\w+=[\w.-]*\w)|-e '(\{{.*?\}})'", run.output)
        new = [word for pair in words for word in pair if word and word not in given]
        assert new, run.output[-4000:]
        given += ["-e", new[0]]
    raise AssertionError(f"{playbook} is refused again and again: {given}")


def paste(bed: Bed, work: Path, *scripts: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"KUBECONFIG": str(bed.kubeconfig), "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    command = ["bash", "-c", "\n".join(scripts)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=work, timeout=400)


def test_a_lost_insert_is_an_error_on_every_replica_in_wal_mode(bed: Bed, in_wal: None) -> None:
    for ordinal in (1, 2):
        pod = f"abaci-app-{ordinal}"
        assert "attempt to write a readonly database" in bed.in_pod(pod, "python3", "-c", LOSE, check=False)
        assert bed.rows(pod, "SELECT count(*) FROM records WHERE body = 'lost'") == "0"
    assert op.record(bed)["journalMode"] == "wal"


def test_locked_writes_are_seen_and_the_runbook_brings_back_every_acknowledged_row(
    bed: Bed, in_wal: None, backups: Path, tmp_path: Path
) -> None:
    bed.rows("abaci-app-0", GROW)
    op.post(bed, 5, "before the lock")
    before = op.agree(bed, seconds=120)
    command = [str(ROOT / ".venv/bin/kubectl"), f"--kubeconfig={bed.kubeconfig}", "exec", "-n", "abaci"]
    command += ["abaci-app-0", "-c", "app", "--", "python3", "-c", SHRINK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        heard = writer.stdout.readline().strip()
        assert heard in ("acknowledged", "database is locked")
        rows = bed.rows("abaci-app-0", ROWS)
        assert float(rows.rpartition("|")[2]) == (heard == "acknowledged")
        assert bed.edge("POST", "/api/records", b'{"body": "x"}').status == 503
        assert bed.litefs("abaci-app-0")["isPrimary"] and all(
            one["type"] != "Ready" or one["status"] == "True"
            for one in bed.get("pod", "abaci-app-0", "-n", "abaci")["status"]["conditions"]
        ), "every probe is green"
        seen = bed.playbook("--tags", "app", *WAL)
        assert seen.rc != 0 and said(seen, "docs/runbooks/writes-locked.md"), seen.output[-3000:]

        (save,) = blocks("writes-locked.md", "1.")
        saved = paste(bed, tmp_path, "set -e", save)
        assert saved.returncode == 0 and saved.stdout.split() == ["ok", "0|0|0"], (saved.stdout, saved.stderr)
        writer.kill()
    (variables,) = [line for line in save.splitlines() if line.startswith("export ")]
    started = paste(bed, tmp_path, variables, *blocks("writes-locked.md", "2."))
    moved = "cannot open store" in started.stdout
    print(f"the primary {'had to be replaced' if moved else 'came back'}: {started.stdout[-500:]}")
    if moved:
        follow(bed, "promote", backups=backups)
    follow(bed, "restore", "-e", f"restore_from={tmp_path}/saved/saved.sqlite", backups=backups)
    if moved:
        follow(bed, "replica_reset", "-e", '{"replica_reset_targets": [0]}', backups=backups)
    assert op.agree(bed, seconds=180)[0] == before[0]
    for ordinal in (0, 1, 2):
        assert bed.rows(f"abaci-app-{ordinal}", ROWS) == rows
    assert bed.edge("POST", "/api/records", b'{"body": "written again"}').status == 201


def test_a_change_of_the_journal_mode_ends_replicas_and_the_runbook_brings_them_back(
    bed: Bed, in_wal: None, backups: Path
) -> None:
    leader = f"abaci-app-{op.record(bed)['primaryOrdinal']}"
    others = [ordinal for ordinal in (2, 1, 0) if f"abaci-app-{ordinal}" != leader]
    # A migration, since SQLite wants to be alone for it.
    changing = {"app_env": {}, "app_migrate_command": "sqlite3 /litefs/sqlite.db 'PRAGMA journal_mode=DELETE'"}
    bed.playbook("--tags", "app", "-e", json.dumps(changing))
    assert bed.rows(leader, "PRAGMA journal_mode") == "delete"
    assert "WARNING: its journal mode was changed" in bed.kubectl("logs", leader, "-n", "abaci", "-c", "app")
    assert bed.edge("POST", "/api/records", b'{"body": "after the change"}').status == 201
    rows = bed.rows(leader, ROWS)
    seen = bed.playbook("--check", "--tags", "app", "-e", json.dumps(changing))
    assert said(seen, "docs/runbooks/journal-mode.md"), seen.output[-3000:]
    for ordinal in others:
        run = operate(bed, "replica_reset", "-e", json.dumps({"replica_reset_targets": [ordinal]}), backups=backups)
        assert run.rc == 0, run.output[-3000:]
    op.agree(bed, seconds=180)
    for ordinal in (0, 1, 2):
        assert bed.rows(f"abaci-app-{ordinal}", ROWS) == rows
        assert bed.rows(f"abaci-app-{ordinal}", "PRAGMA journal_mode") == "delete"
    settled = bed.playbook("--tags", "app")
    assert settled.rc == 0 and not said(settled, "journal-mode.md"), settled.output[-3000:]
    assert op.record(bed)["journalMode"] == "delete"
