"""What runs in the cluster without Ansible: the backup job and the copy before a migration, with the real LiteFS."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from litefs_cluster import DATABASE, REPOSITORY, Cluster, MakeCluster, Node, until

JOB = REPOSITORY / "roles/backup/files/job.py"
SCRIPT = REPOSITORY / "roles/app/files/before_migration.sh"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The job's folder as the ConfigMap mounts it."""
    folder = tmp_path / "job"
    (folder / "verified").mkdir(parents=True)
    shutil.copy(JOB, folder)
    (folder / "verified/__init__.py").touch()
    for name in yaml.safe_load((REPOSITORY / "roles/backup/vars/main.yml").read_text())["__backup_shared"]:
        (folder / "verified" / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "plugins/module_utils" / name, folder / "verified" / name)
    (tmp_path / "target").mkdir()
    (tmp_path / "identity").mkdir()
    return folder


def run_job(job: Path, node: Node, keep: int = 2) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "SERVICE": "127.0.0.1",
        "PORT": str(node.api),
        "DATABASE": DATABASE,
        "NAMESPACE": "abaci",
        "STATEFULSET": "abaci-app",
        "TARGET": str(job.parent / "target"),
        "IDENTITY": str(job.parent / "identity"),
        "KEEP": str(keep),
        "PATIENCE": "2",
    }
    return subprocess.run(
        [sys.executable, "-B", str(job / "job.py")], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def backups(job: Path) -> list[dict[str, str]]:
    folder = job.parent / "target"
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.manifest.json"))]
    assert {path.name for path in folder.iterdir()} == {
        name for one in found for name in (one["file"], one["file"].replace(".sqlite", ".manifest.json"))
    }, "a file for each manifest, and nothing else"
    return found


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_job_proves_the_position_also_while_the_primary_is_written_to(
    make_cluster: MakeCluster, job: Path, mode: str
) -> None:
    primary = make_cluster(1).start().primary
    primary.create(mode)
    (job.parent / "identity/clusterID").write_text(primary.cluster_id())
    done = run_job(job, primary)
    assert done.returncode == 0, done.stderr
    (first,) = backups(job)
    assert (first["txid"], first["checksum"]) == primary.position() and first["cluster_id"] == primary.cluster_id()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            primary.insert("under load")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = run_job(job, primary)
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stderr
    second = backups(job)[-1]
    path = job.parent / "target" / second["file"]
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        rows = db.execute("SELECT count(*) FROM records").fetchone()[0]
    assert int(second["txid"], 16) - int(first["txid"], 16) == rows - 3


def test_the_job_refuses_another_cluster_than_the_recorded_one(make_cluster: MakeCluster, job: Path) -> None:
    primary = make_cluster(1).start().primary
    primary.create()
    (job.parent / "identity/clusterID").write_text("LFSC0123456789ABCDEF")
    done = run_job(job, primary)
    assert done.returncode == 1 and "No pod that answers holds the cluster LFSC0123456789ABCDEF" in done.stderr
    assert backups(job) == []


def test_the_job_fails_where_nobody_answers(make_cluster: MakeCluster, job: Path) -> None:
    done = run_job(job, make_cluster(1).primary)
    assert done.returncode == 1 and done.stderr.startswith("no backup was made: ")


# The copy before a migration


def with_script(cluster: Cluster, litefs: Path, folder: Path, marker: Path) -> Node:
    primary = cluster.primary
    command = f"sh {SCRIPT} {DATABASE} {primary.data} {primary.mount} {primary.api} {folder} 2"
    migrated = f"rm -f {folder}/{DATABASE}.unfinished"
    primary.settings.exec = [(command, True), (f"touch {marker}", True), (migrated, True), ("sleep 600", False)]
    primary.settings.env = {"PATH": f"{litefs.parent}:{os.environ['PATH']}"}
    return primary


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_each_start_keeps_a_copy_before_the_migration(
    make_cluster: MakeCluster, litefs: Path, tmp_path: Path, mode: str
) -> None:
    folder, marker = tmp_path / "copies", tmp_path / "migrated"
    primary = with_script(make_cluster(1), litefs, folder, marker)
    primary.launch()
    until(marker.exists, 15, "the first start has nothing to copy and goes on")
    assert list(folder.iterdir()) == []
    primary.create(mode, rows=20)
    for start in range(3):
        primary.kill()
        primary.unmount()
        marker.unlink()
        if start == 2:
            (folder / f"{DATABASE}.20200101T000000Z.before-migration.sqlite").write_bytes(b"old")
        primary.launch()
        until(marker.exists, 20, f"start {start}: {primary.log()[-500:]}")
        primary.insert(f"start {start}")
        time.sleep(1.1)  # a copy's name has the second
    copies = sorted(folder.glob("*.sqlite"))
    assert len(copies) == 2 and "20200101" not in copies[0].name, "the newest two stay"
    with closing(sqlite3.connect(f"{copies[-1].as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM records").fetchone()[0] == 22


def test_a_copy_that_fails_stops_the_start_before_the_migration(
    make_cluster: MakeCluster, litefs: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "migrated"
    primary = with_script(make_cluster(1), litefs, tmp_path / "copies", marker)
    primary.launch()
    until(marker.exists, 15, "the first start")
    primary.create()
    primary.kill()
    primary.unmount()
    marker.unlink()
    shutil.rmtree(tmp_path / "copies")
    (tmp_path / "copies").write_text("in the way")
    primary.launch()
    assert primary.exit_code(20) != 0
    assert "copy before the migration" in primary.log() and not marker.exists()
