"""Something leaves while visitors read: a rollout, and a node whose power is cut. No read fails, none takes long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from operating import agree
from reader import Reader, Report
from sitebed import Bed, until
from writer import Writer, verify

RATE = 20
SLOWEST_HUNDREDTH_S = 1.5
# From the loss of power until the cluster has noticed and taken the pod out of the Service, and well beyond.
AROUND_A_LOSS_S = 96
# What a restart of the primary costs writes: it stops, starts again on its node, and is asked by its probe every 2 s.
WRITE_GAP_S = 10


def all_ready(bed: Bed) -> bool:
    found = bed.get("statefulset", "abaci-app", "-n", "abaci")
    status = found["status"]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("readyReplicas") == found["spec"]["replicas"]
        and status["currentRevision"] == status["updateRevision"]
    )


def held(report: Report) -> None:
    assert report.failed == 0, report
    assert report.p99 <= SLOWEST_HUNDREDTH_S, report


@pytest.mark.long
def test_no_read_fails_and_no_write_is_lost_during_a_rollout(bed: Bed, tmp_path: Path) -> None:
    until(lambda: all_ready(bed), 120, "all pods ready")
    reader = Reader(bed.site(), rate=RATE).start()
    writer = Writer(bed.site(), tmp_path / "ledger", seconds=300, rate=12).start()
    time.sleep(3)
    bed.kubectl("rollout", "restart", "statefulset/abaci-app", "-n", "abaci")
    until(lambda: all_ready(bed), 240, "the rollout's end")
    time.sleep(3)
    written, report = writer.stop(), reader.stop()
    print(report, written)
    held(report)
    assert written.lost == 0 and written.longest_gap <= WRITE_GAP_S, written
    proof = verify(bed.site(), tmp_path / "ledger", wait=10)
    assert proof["ok"], proof


@pytest.mark.long
def test_no_read_fails_when_a_replicas_node_loses_power(bed: Bed) -> None:
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in bed.pods()}
    # The bed's edge is on server-0, and its fall is another test's.
    (node,) = [
        node
        for name, node in sorted(nodes.items())
        if name != "abaci-app-0" and node not in ("server-0", nodes["abaci-app-0"])
    ][:1]
    reader = Reader(bed.site(), rate=RATE, seconds=AROUND_A_LOSS_S).start()
    time.sleep(5)
    bed.power_off(node)
    try:
        report = reader.finish()
    finally:
        bed.power_on(node)
    print(node, report)
    until(lambda: bed.ready(node), 120, f"{node} is back")
    until(lambda: all_ready(bed), 180, "all pods ready")
    agree(bed)
    held(report)
    assert report.sent >= AROUND_A_LOSS_S * RATE * 0.95, report
