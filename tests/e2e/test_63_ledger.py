"""A writer with a ledger runs through planned operations: what was acknowledged is there, in both journal modes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import operating as op
import pytest
from operating import operate
from sitebed import Bed, until
from writer import Writer, compare, list_records, read_ledger, verify

COUNT = int(os.environ.get("LEDGER_WRITES", "10000"))


def restart_primary(bed: Bed) -> None:
    uid = bed.get("pod", "abaci-app-0", "-n", "abaci")["metadata"]["uid"]
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", timeout=120)

    def ready() -> bool:
        pod = bed.get("pod", "abaci-app-0", "-n", "abaci")
        conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
        return pod["metadata"]["uid"] != uid and conditions.get("Ready") == "True"

    until(ready, 120, "the primary is ready again")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_planned_operations_lose_no_acknowledged_write(bed: Bed, tmp_path: Path, mode: str) -> None:
    """delete comes first: the way back from wal would end every replica."""
    if mode == "wal":
        run = bed.playbook("--tags", "app", "-e", '{"app_env": {"JOURNAL_MODE": "wal"}}')
        assert run.rc == 0, run.output[-3000:]
        assert bed.rows("abaci-app-0", "PRAGMA journal_mode") == "wal"
    op.agree(bed, seconds=120)
    backups = tmp_path / "backups"
    ledger = tmp_path / "ledger"
    writer = Writer(bed.site(), ledger, count=COUNT * 2, rate=45, prefix=f"{mode}-{random.randrange(10**6)}").start()
    steps = (
        lambda: operate(bed, "scale", "-e", "scale_replicas=4", backups=backups),
        lambda: operate(bed, "backup", backups=backups),
        lambda: op.mismatch(bed, 2),
        lambda: operate(bed, "replica_reset", backups=backups),
        lambda: operate(bed, "scale", "-e", "scale_replicas=3", backups=backups),
        lambda: bed.kubectl("rollout", "restart", "sts/abaci-app", "-n", "abaci"),
        lambda: bed.kubectl("rollout", "status", "sts/abaci-app", "-n", "abaci", "--timeout=300s", timeout=320),
        lambda: restart_primary(bed),
    )
    for step in steps:
        result: Any = step()
        rc = getattr(result, "rc", 0)
        assert rc == 0, result.output[-4000:] if rc else ""
    until(lambda: writer.report().acknowledged >= COUNT, 600, f"{COUNT} acknowledged writes", every=2)
    report = writer.stop()
    print(f"{mode}: longest gap in acknowledged writes {report.longest_gap} s, {report}")
    assert report.acknowledged >= COUNT and report.empty_2xx == 0 and report.fly_replay == 0
    op.agree(bed, seconds=120)
    found = compare(*read_ledger(ledger), list_records(bed.site()))
    assert found["ok"], {key: value for key, value in found.items() if key != "missing"}
    print(f"{mode}: {found['acknowledged']} acknowledged, {found['found']} found")


def test_a_planned_restart_of_the_primary_loses_nothing_and_its_gap_is_stated(bed: Bed, tmp_path: Path) -> None:
    op.agree(bed, seconds=120)
    gaps = []
    for number in range(3):
        ledger = tmp_path / f"ledger-{number}"
        writer = Writer(bed.site(), ledger, seconds=120, rate=20).start()
        restart_primary(bed)
        until(lambda running=writer: running.report().acknowledged > 50, 60, "writes go on")
        report = writer.stop()
        # A replica that answers may follow the new primary only a moment later.
        found = verify(bed.site(), ledger, wait=30)
        assert found["ok"], found
        gaps.append(report.longest_gap)
    print(f"planned restart of the primary: gaps in writes {gaps} s (goal 10 s)")
    assert max(gaps) < 10
