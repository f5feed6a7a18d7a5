"""Replicas come, go and are re-seeded, and no copy is lost on the way."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import operating as op
import pytest
from operating import OTHER, operate, refused
from sitebed import Bed, until


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture(autouse=True)
def three_that_agree(bed: Bed) -> Iterator[None]:
    op.agree(bed)
    yield
    op.agree(bed, seconds=120)


def test_a_variable_that_is_not_known_is_refused_by_name(bed: Bed, backups: Path) -> None:
    for playbook in ("scale", "replica_reset", "promote", "restore"):
        extra = ("-e", "restore_from=/nowhere") if playbook == "restore" else ()
        refused(operate(bed, playbook, "-e", "replicas=5", *extra, backups=backups), "replicas is not known here")
    refused(
        operate(bed, "scale", "-e", "scale_replica=5", backups=backups), "scale_replica is not known", "scale_replicas"
    )
    refused(operate(bed, "backup", "-e", "backup_kep=5", backups=backups), "backup_kep is not known")


def test_scale_up_down_and_away_with_the_volume(bed: Bed, backups: Path) -> None:
    checked = operate(bed, "scale", "-e", "scale_replicas=4", "--check", backups=backups)
    assert checked.rc == 0 and "scale up from 3 to 4" in checked.output and len(bed.pods()) == 3
    up = operate(bed, "scale", "-e", "scale_replicas=4", backups=backups)
    assert up.rc == 0, up.output[-3000:]
    op.agree(bed, (0, 1, 2, 3))
    again = operate(bed, "scale", "-e", "scale_replicas=4", backups=backups)
    assert again.rc == 0 and again.total("changed") == 0
    site = bed.playbook("--tags", "app")
    assert site.rc == 0 and len(bed.pods()) == 4, "a later site.yml keeps what was scaled"
    down = operate(bed, "scale", "-e", "scale_replicas=3", backups=backups)
    assert down.rc == 0 and "litefs-data-abaci-app-3" in op.claims(bed), "the volume is kept"
    refused(operate(bed, "scale", "-e", "scale_replicas=0", backups=backups), "scale_replicas is 0")
    back = operate(bed, "scale", "-e", "scale_replicas=4", backups=backups)
    assert back.rc == 0 and "used again" in back.output and "holds the cluster LFSC" in back.output
    before = op.volumes(bed)
    away = operate(bed, "scale", "-e", "scale_replicas=3", "-e", "scale_remove_volumes=true", backups=backups)
    assert away.rc == 0, away.output[-3000:]
    assert "litefs-data-abaci-app-3" not in op.claims(bed)
    until(lambda: len(op.volumes(bed)) == len(before) - 1, 60, "the proven volume is gone, and only that one")
    assert [one["reason"] for one in op.manifests(backups)] == ["before scale"]


def test_two_operators_cannot_act_at_once(bed: Bed, backups: Path) -> None:
    op.lock_by_another(bed)
    refused(operate(bed, "scale", "-e", "scale_replicas=4", backups=backups), "somebody@elsewhere/1 is at work here")
    assert len(bed.pods()) == 3
    taken = operate(
        bed, "scale", "-e", "scale_replicas=3", "-e", "operation_take_over=somebody@elsewhere/1", backups=backups
    )
    assert taken.rc == 0, taken.output[-3000:]


def test_rows_are_changed_with_the_word_for_it_after_a_try_on_a_copy_and_a_backup(bed: Bed, backups: Path) -> None:
    op.post(bed, 5, "to go")
    op.agree(bed)
    question = {"query_sql": "DELETE FROM records WHERE body LIKE 'to go-%'"}
    op.refused(op.operate(bed, "query", "-e", json.dumps(question), backups=backups), "query_write")
    word = ("-e", json.dumps({**question, "query_write": True}))
    tried = op.operate(bed, "query", "--check", *word, backups=backups)
    assert tried.rc == 0 and "would change 5 rows" in tried.output, tried.output[-3000:]
    done = op.operate(bed, "query", *word, backups=backups)
    assert done.rc == 0 and "5 rows were changed on abaci-app-0" in done.output, done.output[-3000:]
    op.agree(bed)
    left = "SELECT count(*) FROM records WHERE body LIKE 'to go-%'"
    assert {bed.rows(f"abaci-app-{ordinal}", left) for ordinal in (0, 1, 2)} == {"0"}
    (saved,) = re.findall(r"restore_from=(\S+\.sqlite)", done.output)
    with closing(sqlite3.connect(saved)) as db:
        assert db.execute(left).fetchone() == (5,)


def test_the_seeds_case_both_replicas_mismatched_in_one_command(bed: Bed, backups: Path) -> None:
    op.post(bed, 20, "before the reset")
    rows, primary = op.rows(bed, 0), bed.get("pod", "abaci-app-0", "-n", "abaci")["metadata"]["uid"]
    op.mismatch(bed, 1, 2)
    old = op.volumes(bed)
    run = operate(bed, "replica_reset", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    op.agree(bed)
    assert [op.rows(bed, ordinal) for ordinal in (0, 1, 2)] == [rows] * 3
    assert set(old) <= set(op.volumes(bed)), "the old volumes are kept"
    assert bed.get("pod", "abaci-app-0", "-n", "abaci")["metadata"]["uid"] == primary, "no other pod was stopped"
    exported = op.manifests(backups)
    assert {one["cluster_id"] for one in exported} == {op.record(bed)["clusterID"], OTHER}
    assert all(one["verified"] for one in exported)
    again = operate(bed, "replica_reset", backups=backups)
    assert again.rc == 0 and again.total("changed") == 0
    events = [(line["event"], line["operation"], line["result"]) for line in op.audit(bed)[-2:]]
    assert events == [("begun", "replica_reset", ""), ("ended", "replica_reset", "done")]


@pytest.mark.long
def test_refused_while_the_guard_holds_pod_0_and_while_it_has_a_new_identity(bed: Bed, backups: Path) -> None:
    """The seed's recipe would delete the last good copies here."""
    place = op.agree(bed)
    lost = op.lose_volume(bed, 0)
    until(lambda: "refuses to start as primary" in op.guard_says(bed, 0), 120, "the guard holds pod-0")
    before = (op.claims(bed), set(op.volumes(bed)))
    for targets in ("mismatched", "[1,2]", "[0]"):
        run = operate(bed, "replica_reset", "-e", f"replica_reset_targets={targets}", backups=backups)
        refused(run, "No running primary holds the recorded cluster", "stopped by the guard", "promote.yml")
    refused(operate(bed, "scale", "-e", "scale_replicas=1", backups=backups), "No running primary holds")
    # A new identity: pod-0 is let start empty, as without a guard. It founds a cluster and serves an empty database.
    data = op.record(bed)
    empty = {"data": {"state": "bootstrap", "clusterID": None}}
    bed.kubectl("patch", "cm", "abaci-app-litefs-identity", "-n", "abaci", "--type=merge", "-p", json.dumps(empty))
    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=1")
    until(lambda: len(bed.pods()) == 1, 120, "the replicas stopped, so that the guard lets it bootstrap")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", timeout=120)
    until(lambda: bed.litefs("abaci-app-0")["isPrimary"], 180, "an empty primary runs")
    back = {"data": {"state": "recorded", "clusterID": data["clusterID"]}}
    bed.kubectl("patch", "cm", "abaci-app-litefs-identity", "-n", "abaci", "--type=merge", "-p", json.dumps(back))
    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=3")
    until(lambda: op.positions(bed, (1, 2))[2] == place, 180, "the replicas hold the data and refuse to follow")
    for targets in ("mismatched", "[1,2]"):
        run = operate(bed, "replica_reset", "-e", f"replica_reset_targets={targets}", backups=backups)
        refused(run, "not the recorded", "reset no replica and delete nothing", "last good copies")
    assert before[0].items() <= op.claims(bed).items() and before[1] <= set(op.volumes(bed)), "nothing was deleted"
    assert not backups.exists() or not op.manifests(backups)
    # The way back: the lost volume is bound to pod-0 again.
    assert op.volumes(bed)[lost] == "Released"
    give_back(bed, lost)
    assert op.agree(bed, seconds=180) == place


def give_back(bed: Bed, volume: str) -> None:
    """Bind a kept volume to pod-0 again, as the runbook does."""
    bed.kubectl("patch", "pv", volume, "--type=json", "-p", '[{"op": "remove", "path": "/spec/claimRef"}]')
    claim = bed.get("pvc", "litefs-data-abaci-app-0", "-n", "abaci")
    bed.kubectl("delete", "pvc", "litefs-data-abaci-app-0", "-n", "abaci", "--wait=false")
    new = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "litefs-data-abaci-app-0", "namespace": "abaci", "labels": {"app": "abaci-app"}},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "resources": claim["spec"]["resources"],
            "volumeName": volume,
        },
    }
    stop = threading.Event()

    def replace() -> None:
        # The StatefulSet makes a claim of its own as soon as the old one is gone; ours has to be first.
        while not stop.is_set():
            bed.kubectl("create", "-f", "-", stdin=json.dumps(new), check=False)
            stop.wait(0.1)

    thread = threading.Thread(target=replace)
    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=0")
    thread.start()
    try:
        until(
            lambda: bed.get("pvc", "litefs-data-abaci-app-0", "-n", "abaci")["spec"].get("volumeName") == volume,
            120,
            "the claim is bound to the old volume",
        )
    finally:
        stop.set()
        thread.join()
    bed.kubectl("wait", "pod", "-l", "app=abaci-app", "-n", "abaci", "--for=delete", "--timeout=120s", timeout=150)
    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=3")


@pytest.mark.long
def test_a_reset_that_is_killed_after_each_act_and_within_some_is_continued(bed: Bed, backups: Path) -> None:
    seed = random.randrange(10**6)
    print(f"interrupts: seed {seed}")
    chance = random.Random(seed)
    op.post(bed, 10, "before the interrupts")
    rows = op.rows(bed, 0)
    op.mismatch(bed, 1, 2)
    for _kill in range(3):
        operate(bed, "replica_reset", backups=backups, interrupt="during", after=chance.uniform(0.3, 6))
    acts = op.until_done(bed, "replica_reset", backups=backups)
    print(acts)
    op.agree(bed)
    assert [op.rows(bed, ordinal) for ordinal in (0, 1, 2)] == [rows] * 3


@pytest.mark.long
def test_a_scale_that_is_killed_after_each_act_is_continued(bed: Bed, backups: Path) -> None:
    acts = op.until_done(bed, "scale", "-e", "scale_replicas=5", backups=backups)
    assert len(acts) == 2
    acts = op.until_done(bed, "scale", "-e", "scale_replicas=3", "-e", "scale_remove_volumes=true", backups=backups)
    assert len(acts) == 5, "the pods stop, then each claim and volume goes"
    assert len(op.claims(bed)) == 3
