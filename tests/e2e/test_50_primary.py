"""The primary goes away, comes back, or must not come back: reads go on, and no acknowledged write is lost."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from operating import guard_says
from sitebed import ROOT, Bed, background, until
from writer import Writer, read_ledger

RECONNECT_S = 15
RUNBOOK = ROOT / "docs/runbooks/primary-refused.md"


def connected(bed: Bed, pod: str) -> bool:
    """True when LiteFS in that pod streams from a primary."""
    return bool(bed.litefs(pod)["primary"]["hostname"])


def position(bed: Bed, pod: str) -> str:
    return str(bed.litefs(pod, "/debug/vars")["store"]["dbs"]["sqlite.db"]["txid"])


def test_hazard_a_post_while_the_primary_is_not_ready_is_503_and_reaches_no_pod(bed: Bed) -> None:
    """Traefik's allowEmptyServices: without it the writing route vanishes and the write falls to a replica."""
    node = bed.get("pod", "abaci-app-0", "-n", "abaci")["spec"]["nodeName"]
    marker = f"/api/records?marker={time.time_ns()}"

    def post() -> int:
        answer = bed.edge("POST", marker, b'{"body": "while away"}', timeout=60)
        assert answer.status == 201 or answer.status >= 500, answer
        assert answer.body, "an empty answer left the site"
        return answer.status

    bed.kubectl("cordon", node)
    try:
        # Its volume is there, so it comes back nowhere else.
        bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", timeout=120)
        # The first may be on its way to the pod that is no more.
        until(lambda: post() == 503, 90, "writes are answered 503")
        assert {post() for _ in range(10)} == {503}
    finally:
        bed.kubectl("uncordon", node)
    until(lambda: post() == 201, 120, "writes go on")
    for replica in ("abaci-app-1", "abaci-app-2"):
        assert marker not in bed.kubectl("logs", "-n", "abaci", replica, "-c", "app")


def test_pod_0_deleted_five_times_replicas_are_back_within_15_s_and_no_write_is_lost(bed: Bed, tmp_path: Path) -> None:
    times = []
    writer = Writer(bed.site(), tmp_path / "ledger", seconds=300, rate=12).start()
    for _ in range(5):
        uid = bed.get("pod", "abaci-app-0", "-n", "abaci")["metadata"]["uid"]
        bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", "--wait=true", timeout=120)

        def replaced(old: str = uid) -> bool:
            pod = bed.get("pod", "abaci-app-0", "-n", "abaci")
            ready = [c for c in pod["status"].get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"]
            return pod["metadata"]["uid"] != old and bool(ready)

        until(replaced, 90, "pod-0 ready again", every=0.2)
        started = time.monotonic()
        until(
            lambda: connected(bed, "abaci-app-1") and connected(bed, "abaci-app-2"),
            60,
            "the replicas connected",
            every=0.2,
        )
        times.append(time.monotonic() - started)
    report = writer.stop()
    print("replicas connected again after", [f"{seconds:.1f} s" for seconds in times], report)
    assert max(times) <= RECONNECT_S, times
    found = set(map(int, bed.rows("abaci-app-0", "select id from records").split()))
    acknowledged, _, _ = read_ledger(tmp_path / "ledger")
    assert set(acknowledged) <= found and len(acknowledged) == report.acknowledged > 0
    assert report.empty_2xx == 0 and report.fly_replay == 0, report


def blocks(section: str) -> list[str]:
    """The bash blocks under the heading of the runbook that begins with `section`."""
    text = RUNBOOK.read_text()
    part = re.split(r"^## ", text, flags=re.M)
    body = next(chunk for chunk in part if chunk.startswith(section))
    return re.findall(r"^```bash\n(.*?)^```", body, flags=re.M | re.S)


def run_runbook(bed: Bed, section: str, work: Path) -> str:
    script = "set -euo pipefail\n" + "\n".join(blocks(section))
    environment = os.environ | {"KUBECONFIG": bed.kubeconfig, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=work, timeout=600
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.long
def test_hazard_the_primary_lost_its_volume_it_refuses_reads_go_on_and_the_runbook_brings_it_back(
    bed: Bed, tmp_path: Path
) -> None:
    rows = bed.rows("abaci-app-0", "select count(*), sum(id) from records")
    at = position(bed, "abaci-app-0")
    until(lambda: position(bed, "abaci-app-1") == position(bed, "abaci-app-2") == at, 15, "replicas at the position")
    volume = bed.get("pvc", "litefs-data-abaci-app-0", "-n", "abaci")["spec"]["volumeName"]

    bed.kubectl("delete", "pvc", "litefs-data-abaci-app-0", "-n", "abaci", "--wait=false")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")

    message = until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    assert "docs/runbooks/primary-refused.md" in message, message
    old = bed.get("pv", volume)
    assert old["spec"]["persistentVolumeReclaimPolicy"] == "Retain" and old["status"]["phase"] == "Released"

    writes = []
    deadline = time.monotonic() + 180
    with background(lambda: writes.append(bed.edge("POST", "/api/records", b'{"body": "lost?"}')), every=2):
        while time.monotonic() < deadline:
            time.sleep(1)
        reads = [bed.edge("GET", "/api/records/count") for _ in range(100)]
    assert [answer.status for answer in reads] == [200] * 100
    assert {answer.status // 100 for answer in writes} == {5}, {answer.status for answer in writes}

    run = bed.playbook("--tags", "app")
    assert run.rc != 0 and "primary-refused.md" in run.output, run.output[-3000:]
    assert bed.get("pv", volume)["status"]["phase"] == "Released"

    run_runbook(bed, "First", tmp_path)
    until(lambda: bed.rows("abaci-app-0", "select count(*), sum(id) from records") == rows, 120, "every row is there")
    assert bed.get("pvc", "litefs-data-abaci-app-0", "-n", "abaci")["spec"]["volumeName"] == volume
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "again"}').status == 201, 60, "writes again")
    until(lambda: connected(bed, "abaci-app-1") and connected(bed, "abaci-app-2"), 30, "replicas connected")
    healed = bed.playbook("--tags", "app")
    assert healed.rc == 0 and healed.total("changed") == 0, healed.output[-4000:]


def remove_kept_volumes(bed: Bed) -> None:
    for volume in bed.get("pv")["items"]:
        name, claim = volume["metadata"]["name"], volume["spec"].get("claimRef", {}).get("name")
        if volume["status"]["phase"] == "Released" and claim and claim.startswith("litefs-data-abaci-app-"):
            bed.kubectl("patch", "pv", name, "-p", '{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}')


@pytest.mark.long
@pytest.mark.parametrize("section", ["Second", "Third"])
def test_hazard_the_kept_volume_is_gone_too_and_the_runbook_brings_the_site_back(
    bed: Bed, tmp_path: Path, section: str
) -> None:
    rows = bed.rows("abaci-app-0", "select count(*), sum(id) from records")
    at = position(bed, "abaci-app-0")
    until(lambda: position(bed, "abaci-app-1") == position(bed, "abaci-app-2") == at, 15, "replicas at the position")
    bed.in_pod("abaci-app-1", "litefs", "export", "-name", "sqlite.db", "/tmp/export.db")
    file = bed.in_pod("abaci-app-1", "python3", "-m", "base64", "-e", "/tmp/export.db")
    bed.in_pod("abaci-app-1", "rm", "/tmp/export.db")
    (tmp_path / "export.db").write_bytes(base64.b64decode(file))

    bed.kubectl("delete", "pvc", "litefs-data-abaci-app-0", "-n", "abaci", "--wait=false")
    bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci")
    until(lambda: guard_says(bed, 0), 120, "pod-0 refuses")
    remove_kept_volumes(bed)

    run_runbook(bed, section, tmp_path)
    for pod in ("abaci-app-0", "abaci-app-1", "abaci-app-2"):
        until(
            lambda name=pod: bed.rows(name, "select count(*), sum(id) from records") == rows, 120, f"all rows on {pod}"
        )
    volume = bed.get("pvc", "litefs-data-abaci-app-0", "-n", "abaci")["spec"]["volumeName"]
    assert bed.get("pv", volume)["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "again"}').status == 201, 60, "writes again")
    until(lambda: connected(bed, "abaci-app-1") and connected(bed, "abaci-app-2"), 30, "replicas connected")
    remove_kept_volumes(bed)
    healed = bed.playbook("--tags", "app")
    assert healed.rc == 0 and healed.total("changed") == 0, healed.output[-4000:]
