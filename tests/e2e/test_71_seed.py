"""Every command that operators of the old system know works here as it stands in docs/coming-from-terraform.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sitebed import ROOT, Bed, until

PAGE = ROOT / "docs/coming-from-terraform.md"
STATEFULSET = ("statefulset", "abaci-app", "-n", "abaci")
# The commands of the old README, without `kubectl --kubeconfig=...`.
OLD = (
    "-n abaci rollout restart statefulset abaci-app",
    "-n abaci get pods",
    "-n abaci logs abaci-app-0 -f",
    "-n keel logs -l app=keel",
    "-n abaci logs abaci-app-0 | grep stream",
    "-n abaci logs abaci-app-1 | grep connected",
    '-n abaci exec abaci-app-0 -- sqlite3 /litefs/sqlite.db "SELECT COUNT(*) FROM users"',
    "-n abaci scale statefulset abaci-app --replicas=5",
    "-n abaci describe pod abaci-app-0",
    "-n abaci scale statefulset abaci-app --replicas=1",
    "-n abaci delete pvc litefs-data-abaci-app-1",
    "-n abaci scale statefulset abaci-app --replicas=3",
)


@dataclass
class Shell:
    """A person's shell: a home with the kubeconfig in it, and kubectl and ansible-playbook in the path."""

    bed: Bed
    home: Path

    def run(self, script: str, seconds: float = 300, expect: int = 0) -> str:
        environment = os.environ | {"HOME": str(self.home), "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
        environment.pop("KUBECONFIG", None)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=seconds,
        )
        assert done.returncode == expect, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(bed: Bed, tmp_path: Path) -> Shell:
    (tmp_path / ".kube").mkdir()
    shutil.copy(bed.kubeconfig, tmp_path / ".kube/k3s-config")
    return Shell(bed, tmp_path)


@pytest.fixture(autouse=True)
def three_pods(bed: Bed) -> Iterator[None]:
    ready(bed, 3)
    yield
    bed.kubectl("scale", *STATEFULSET, "--replicas=3")
    ready(bed, 3)


def ready(bed: Bed, count: int) -> None:
    def settled() -> bool:
        found = bed.get(*STATEFULSET)
        status = found["status"]
        observed = status.get("observedGeneration") == found["metadata"]["generation"]
        current = status.get("currentRevision") == status.get("updateRevision")
        return bool(observed and current and status.get("readyReplicas") == status.get("replicas") == count)

    until(settled, 300, f"{count} pods of the newest revision ready")


def blocks(heading: str) -> list[str]:
    """The bash blocks under a heading of the page."""
    chunks = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    (body,) = [chunk for chunk in chunks if chunk.splitlines()[0] == heading]
    return re.findall(r"^```bash\n(.*?)^```", body, flags=re.M | re.S)


def count(bed: Bed, pod: str) -> str:
    return str(bed.rows(pod, "select (select count(*) from records), (select count(*) from users)"))


def test_the_page_has_every_command_of_the_old_readme() -> None:
    text = PAGE.read_text()
    for command in OLD:
        assert f'kubectl --kubeconfig="$HOME"/.kube/k3s-config {command}\n' in text, command
    assert "=~/" not in "".join(re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S))


def test_plan_and_apply(bed: Bed, shell: Shell) -> None:
    (block,) = blocks("plan and apply")
    output = shell.run(block.replace("inventories/mine", str(bed.inventory)), seconds=1500)
    assert len(re.findall(r"PLAY RECAP", output)) == 2
    changed = re.findall(r"TASK \[[^\n]*(?:\n(?!TASK)[^\n]*)*\nchanged: [^\n]*", output)
    assert set(re.findall(r"changed=(\d+)", output)) == {"0"}, "\n".join(changed) or output[-6000:]


def test_restart_by_hand(bed: Bed, shell: Shell) -> None:
    before = {pod["metadata"]["uid"] for pod in bed.pods()}
    (block,) = blocks("Restart by hand")
    shell.run(block)
    until(lambda: not before & {pod["metadata"]["uid"] for pod in bed.pods()}, 300, "every pod is a new one")


def test_status_of_the_pods(shell: Shell) -> None:
    (block,) = blocks("Status of the pods")
    output = shell.run(block)
    for ordinal in range(3):
        assert re.search(rf"^abaci-app-{ordinal} +1/1 +Running", output, flags=re.M), output
    assert re.search(r"^redis-\S+ +1/1 +Running", output, flags=re.M), output


def test_logs_are_text_and_follow(bed: Bed, shell: Shell) -> None:
    follow, keel = blocks("Logs")
    with pytest.raises(subprocess.TimeoutExpired) as followed:
        shell.run(follow, seconds=6)
    assert b"litefs" in (followed.value.stdout or b"").lower()
    assert "keel" in shell.run(keel) or "trigger.poll" in shell.run(keel)


def test_replication_says_what_the_old_readme_promises(shell: Shell) -> None:
    primary, replica = blocks("Replication")
    assert "stream connected" in shell.run(primary)
    assert "connected to cluster" in shell.run(replica)


def test_query(bed: Bed, shell: Shell) -> None:
    (block,) = blocks("Query")
    assert shell.run(block).strip() == bed.rows("abaci-app-0", "select count(*) from users")


def test_scale_to_five(bed: Bed, shell: Shell) -> None:
    (block,) = blocks("Scale")
    shell.run(block)
    ready(bed, 5)
    until(lambda: count(bed, "abaci-app-4") == count(bed, "abaci-app-0"), 60, "the fifth pod has every row")


def test_pods_stuck_in_pending(shell: Shell) -> None:
    (block,) = blocks("Pods stuck in Pending")
    output = shell.run(block)
    assert "Name:             abaci-app-0" in output and "Conditions:" in output


def test_hazard_the_recipe_for_a_mismatch_destroys_no_bytes(bed: Bed, shell: Shell) -> None:
    rows = count(bed, "abaci-app-0")
    claim = bed.get("pvc", "litefs-data-abaci-app-1", "-n", "abaci")
    volume = bed.get("pv", claim["spec"]["volumeName"])
    source = volume["spec"].get("hostPath") or volume["spec"]["local"]
    (terms,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (node,) = terms["matchExpressions"][0]["values"]
    cluster = bed.node_exec(node, "cat", f"{source['path']}/clusterid")

    (block,) = blocks("Cluster id mismatch")
    shell.run(block)
    ready(bed, 3)
    until(lambda: count(bed, "abaci-app-1") == rows, 60, "the new copy has every row")
    assert bed.get("pvc", "litefs-data-abaci-app-1", "-n", "abaci")["metadata"]["uid"] != claim["metadata"]["uid"]
    kept = bed.get("pv", volume["metadata"]["name"])
    assert kept["status"]["phase"] == "Released" and kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert bed.node_exec(node, "cat", f"{source['path']}/clusterid") == cluster
    assert bed.node_exec(node, "find", f"{source['path']}/dbs/sqlite.db", "-name", "*.ltx").strip()


def test_keel_does_not_update(bed: Bed, shell: Shell) -> None:
    (block,) = blocks("Keel does not update")

    def told() -> str:
        output = shell.run(block)
        return output if "new watch tag digest job added" in output else ""

    output = until(told, 60, "Keel follows the image", every=3)
    assert '"keel.sh/policy":"force"' in output and '"keel.sh/match-tag":"true"' in output
    digests = re.findall(r"^abaci-app-\d \S+@(sha256:[0-9a-f]{64})$", output, flags=re.M)
    assert len(digests) == 3 and len(set(digests)) == 1, output


def test_the_site_is_as_before(bed: Bed) -> None:
    run = bed.playbook("--tags", "app")
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]
