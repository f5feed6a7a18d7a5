"""A volume that LiteFS would not take as it is: it is stopped, no row is lost, and the runbook brings the site back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from operating import agree, guard_says, operate, post, record
from sitebed import Bed, until
from test_50_primary import remove_kept_volumes, run_runbook

ROWS = "select count(*), sum(id) from records"
CLAIM = "litefs-data-abaci-app-0"


def folder(bed: Bed, claim: str) -> tuple[str, str]:
    """The node and the directory of a claim's volume."""
    volume = bed.get("pv", bed.get("pvc", claim, "-n", "abaci")["spec"]["volumeName"])
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    node = terms[0]["matchExpressions"][0]["values"][0]
    path = (volume["spec"].get("hostPath") or volume["spec"]["local"])["path"]
    return node, path


def patch_record(bed: Bed, **data: str | None) -> None:
    patch = json.dumps({"data": data})
    bed.kubectl("patch", "cm", "abaci-app-litefs-identity", "-n", "abaci", "--type", "merge", "-p", patch)


def hold(bed: Bed) -> None:
    """LiteFS of pod-0 is stopped, and its guard waits."""
    patch_record(bed, hold="true")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")
    log = ("logs", "-n", "abaci", "abaci-app-0", "-c", "guard")
    until(lambda: "says hold" in bed.kubectl(*log, check=False), 120, "the guard holds")


def release(bed: Bed) -> None:
    """A new pod sees it at once; the kubelet would show it to the present one after up to a minute and a half."""
    patch_record(bed, hold=None)
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")


@pytest.fixture
def stopped(bed: Bed) -> Iterator[tuple[str, str]]:
    """The volume of pod-0 while the record holds its guard: (node, directory); at the end the hold is gone."""
    hold(bed)
    yield folder(bed, CLAIM)
    patch_record(bed, hold=None)


def back(bed: Bed, rows: str) -> None:
    """The site is as it was: every row on every pod, writes, and a site.yml that changes nothing."""
    for pod in ("abaci-app-0", "abaci-app-1", "abaci-app-2"):
        until(lambda name=pod: bed.rows(name, ROWS) == rows, 120, f"every row on {pod}")
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "again"}').status == 201, 60, "writes again")
    agree(bed)
    healed = bed.playbook("--tags", "app")
    assert healed.rc == 0 and healed.total("changed") == 0, healed.output[-4000:]


@pytest.mark.long
def test_hazard_a_zeroed_header_is_refused_no_replica_is_emptied_and_the_runbook_brings_every_row_back(
    bed: Bed, tmp_path: Path
) -> None:
    post(bed, 5, "before the damage")
    agree(bed)
    rows = bed.rows("abaci-app-0", ROWS)
    node, path = folder(bed, CLAIM)
    # With the site running, as a disk or a person does it; then its pod is replaced.
    bed.node_exec(node, "dd", "if=/dev/zero", f"of={path}/dbs/sqlite.db/database", "bs=100", "count=1", "conv=notrunc")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")
    message = until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    assert "the file of its database sqlite.db is no SQLite database (any more)" in message, message
    for pod in ("abaci-app-1", "abaci-app-2"):
        assert bed.rows(pod, ROWS) == rows
    run_runbook(bed, "Second", tmp_path)
    back(bed, rows)
    remove_kept_volumes(bed)


@pytest.mark.long
def test_the_cluster_id_alone_is_missing_and_the_runbook_writes_it_back(
    bed: Bed, stopped: tuple[str, str], tmp_path: Path
) -> None:
    rows = bed.rows("abaci-app-1", ROWS)
    node, path = stopped
    bed.node_exec(node, "rm", f"{path}/clusterid")
    release(bed)
    message = until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    assert "its volume holds no cluster id" in message, message
    run_runbook(bed, "Only the cluster id is missing", tmp_path)
    back(bed, rows)


@pytest.mark.long
def test_files_of_another_owner_are_refused_and_the_runbook_gives_them_back(
    bed: Bed, stopped: tuple[str, str], tmp_path: Path
) -> None:
    rows = bed.rows("abaci-app-1", ROWS)
    node, path = stopped
    bed.node_exec(node, "sh", "-c", f"chown -R 1000:1000 {path}/dbs && chmod 700 {path}/dbs")
    release(bed)
    message = until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    assert "cannot be read by LiteFS's user" in message, message
    run_runbook(bed, "Another owner", tmp_path)
    back(bed, rows)


@pytest.mark.long
def test_below_the_low_water_mark_no_primary_starts_and_the_runbook_takes_it_away(bed: Bed, tmp_path: Path) -> None:
    bed.playbook("--tags", "app")
    assert int(record(bed)["lowWaterTXID"], 16) > 0
    rows = bed.rows("abaci-app-1", ROWS)
    patch_record(bed, lowWaterTXID="00000000ffffffff")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")
    message = until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    assert "the record says that this site had TXID 00000000ffffffff" in message, message
    run_runbook(bed, "The low-water mark", tmp_path)
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")
    back(bed, rows)


@pytest.mark.long
def test_hazard_a_kept_claim_that_is_newer_than_the_primary_is_fenced_whoever_scales_up(
    bed: Bed, tmp_path: Path
) -> None:
    """kubectl scale looks into no volume: LiteFS would give the pod the primary's older data without a word."""
    agree(bed)
    node, path = folder(bed, CLAIM)
    older = f"{path}.older"
    hold(bed)
    bed.node_exec(node, "sh", "-c", f"rm -rf {older} && cp -a {path} {older}")
    release(bed)
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "only newer"}').status == 201, 150, "writes")
    post(bed, 4, "only newer")
    agree(bed)
    newer = bed.rows("abaci-app-2", ROWS)
    # The replicas away, the primary back on its older copy: a snapshot of its host that was restored.
    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=1")
    until(lambda: len(bed.pods()) == 1, 120, "the replicas are gone")
    patch_record(bed, lowWaterTXID=None, lowWaterTime=None)
    hold(bed)
    bed.node_exec(node, "sh", "-c", f"rm -rf {path}/dbs && cp -a {older}/dbs {path}/dbs && rm -rf {older}")
    release(bed)
    bed.kubectl("rollout", "status", "sts/abaci-app", "-n", "abaci", "--timeout=300s", timeout=320)
    assert bed.rows("abaci-app-0", ROWS) != newer

    bed.kubectl("scale", "sts", "abaci-app", "-n", "abaci", "--replicas=3")
    for ordinal in (1, 2):
        message = until(lambda number=ordinal: guard_says(bed, number), 120, f"pod-{ordinal} is stopped")
        assert "is fenced: its volume ends at TXID" in message, message
    # What only they have is in the exports, and the pods are re-seeded.
    run = operate(bed, "replica_reset", "-e", '{"replica_reset_targets": [1, 2]}', backups=tmp_path)
    assert run.rc == 0, run.output[-4000:]
    agree(bed)
    remove_kept_volumes(bed)
    healed = bed.playbook("--tags", "app")
    assert healed.rc == 0, healed.output[-4000:]
