"""What the tests of the operations share: running a playbook, perhaps killing it, and looking at data and volumes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sitebed import PLAYBOOK_TIMEOUT_S, ROOT, Bed, PlaybookRun, until

OTHER = "LFSC0123456789ABCDEF"
DATA = "/var/lib/litefs"


INTERRUPTIBLE = {
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callbacks"),
    "ANSIBLE_CALLBACKS_ENABLED": "interrupt",  # without INTERRUPT it does nothing
}


def operation(bed: Bed, playbook: str, *arguments: str, backups: Path) -> list[str]:
    """The command that runs playbooks/<playbook>.yml."""
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(bed.inventory), f"playbooks/{playbook}.yml"]
    return [*command, "-e", f"backup_directory={backups}", *arguments]


def operate(
    bed: Bed, playbook: str, *arguments: str, backups: Path, interrupt: str = "", after: float = 0
) -> PlaybookRun:
    """Run playbooks/<playbook>.yml; with ``interrupt`` it is killed (tests/tools/callbacks/interrupt.py)."""
    result = subprocess.run(
        operation(bed, playbook, *arguments, backups=backups),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | INTERRUPTIBLE | {"INTERRUPT": interrupt, "INTERRUPT_AFTER": str(after)},
        timeout=PLAYBOOK_TIMEOUT_S,
    )
    # Sentences are wrapped by the output's YAML; here they are one line.
    return PlaybookRun(result.returncode, re.sub(r"\s+", " ", result.stdout + result.stderr))


def refused(run: PlaybookRun, *words: str) -> None:
    """The run failed, changed nothing, and said these words."""
    assert run.rc != 0, run.output[-3000:]
    for word in words:
        assert word in run.output, (word, run.output[-3000:])


@contextlib.contextmanager
def without_registry(bed: Bed) -> Iterator[None]:
    """While this lasts no node can pull anything."""
    registry = f"abaci-{bed.name}-registry"
    subprocess.run(["docker", "stop", "-t", "1", registry], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["docker", "start", registry], check=True, capture_output=True)


def until_done(bed: Bed, playbook: str, *arguments: str, backups: Path, limit: int = 20) -> list[str]:
    """Run it again and again, each time killed right after its first act, until a run has nothing to do; the acts."""
    acts: list[str] = []
    for _run in range(limit):
        run = operate(bed, playbook, *arguments, backups=backups, interrupt="act")
        match = re.search(r"INTERRUPTED after (\[.*?\])", run.output)
        if match is None:
            assert run.rc == 0, run.output[-4000:]
            return acts
        acts.append(match[1])
    raise AssertionError(f"{playbook} did not come to its end in {limit} runs: {acts}")


def positions(bed: Bed, ordinals: tuple[int, ...] = (0, 1, 2)) -> dict[int, tuple[str, str, str]]:
    """Cluster id, TXID and checksum by ordinal."""
    found = {}
    for ordinal in ordinals:
        info = bed.litefs(f"abaci-app-{ordinal}")
        databases = bed.litefs(f"abaci-app-{ordinal}", "/debug/vars")["store"]["dbs"]
        place = databases.get("sqlite.db", {"txid": "", "checksum": ""})
        found[ordinal] = (str(info.get("clusterID")), str(place["txid"]), str(place["checksum"]))
    return found


def agree(bed: Bed, ordinals: tuple[int, ...] = (0, 1, 2), seconds: float = 60) -> tuple[str, str, str]:
    """Wait until these pods show one cluster, one TXID and one checksum, none of them ending; return them."""

    def one() -> Any:
        names = {f"abaci-app-{ordinal}" for ordinal in ordinals}
        if any("deletionTimestamp" in pod["metadata"] for pod in bed.pods() if pod["metadata"]["name"] in names):
            return None
        found = set(positions(bed, ordinals).values())
        return found.pop() if len(found) == 1 else None

    place: tuple[str, str, str] = until(one, seconds, f"pods {ordinals} agree")
    return place


def record(bed: Bed) -> dict[str, str]:
    data: dict[str, str] = bed.get("configmap", "abaci-app-litefs-identity", "-n", "abaci")["data"]
    return data


def volumes(bed: Bed) -> dict[str, str]:
    """The application's volumes by name, with their phase."""
    return {
        item["metadata"]["name"]: item["status"]["phase"]
        for item in bed.get("pv")["items"]
        if "litefs-data" in (item["spec"].get("claimRef") or {}).get("name", "")
    }


def claims(bed: Bed) -> dict[str, str]:
    """uid by name of the application's claims."""
    items = bed.get("pvc", "-n", "abaci")["items"]
    return {
        item["metadata"]["name"]: item["metadata"]["uid"] for item in items if "litefs-data" in item["metadata"]["name"]
    }


def mismatch(bed: Bed, *ordinals: int) -> None:
    """Give these replicas' volumes another cluster's id, as volumes of an earlier cluster have."""
    for ordinal in ordinals:
        bed.in_pod(f"abaci-app-{ordinal}", "sh", "-c", f"printf '{OTHER}\\n' >{DATA}/clusterid")
    names = [f"abaci-app-{ordinal}" for ordinal in ordinals]
    bed.kubectl("delete", "pod", "-n", "abaci", *names, timeout=180)
    until(lambda: all(positions(bed, (n,))[n][0] == OTHER for n in ordinals), 120, "the replicas are mismatched")


def lock_by_another(bed: Bed) -> None:
    """The lock of the operations is held by somebody@elsewhere/1, and will be for longer than any test."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "abaci-app-operation", "namespace": "abaci"},
        "spec": {
            "holderIdentity": "somebody@elsewhere/1",
            "leaseDurationSeconds": 900,
            "acquireTime": "2999-01-01T00:00:00.000000Z",
            "renewTime": "2999-01-01T00:00:00.000000Z",
        },
    }
    bed.kubectl("apply", "-f", "-", stdin=json.dumps(lease))


def lose_volume(bed: Bed, ordinal: int) -> str:
    """Take the claim of a pod away, so that it comes back on an empty volume; the old volume's name."""
    claim = f"litefs-data-abaci-app-{ordinal}"
    volume = str(bed.get("pvc", claim, "-n", "abaci")["spec"]["volumeName"])
    bed.kubectl("delete", "pvc", claim, "-n", "abaci", "--wait=false")
    bed.kubectl("delete", "pod", f"abaci-app-{ordinal}", "-n", "abaci", timeout=120)
    return volume


def guard_says(bed: Bed, ordinal: int) -> str:
    """The termination message of a pod's guard, empty while there is none."""
    pod = bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")
    for status in pod["status"].get("initContainerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if message := state.get("terminated", {}).get("message", ""):
                return str(message)
    return ""


def post(bed: Bed, count: int, prefix: str) -> None:
    """Records through the primary's own application."""
    primary = f"abaci-app-{record(bed)['primaryOrdinal']}"
    program = (
        "import json,urllib.request as u\n"
        f"for i in range({count}):\n"
        " d=json.dumps({'body':'%s'%i}).encode()\n".replace("%s", prefix + "-%s")
        + " u.urlopen(u.Request('http://127.0.0.1:3000/api/records',d,{'Content-Type':'application/json'}),timeout=20).read()"
    )
    bed.in_pod(primary, "python3", "-c", program)


def rows(bed: Bed, ordinal: int) -> str:
    return str(bed.rows(f"abaci-app-{ordinal}", "select count(*), total(id) from records"))


def manifests(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.manifest.json"))]


def audit(bed: Bed) -> list[dict[str, Any]]:
    log = bed.get("configmap", "abaci-app-audit", "-n", "abaci")["data"]["log"]
    return [json.loads(line) for line in log.splitlines()]
