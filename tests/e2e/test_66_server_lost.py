"""The server's disk is lost: back by a copy of its datastore in two commands, without one from what the agents hold.

Last of the operations, since it makes the cluster anew.
"""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import operating as op
import pytest
from operating import operate, refused
from sitebed import ROOT, Bed, run_bed, until

RUNBOOK = (ROOT / "docs/runbooks/server-lost.md").read_text()
VOLUMES = "/var/lib/rancher/k3s/storage"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


WORDS = '"openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", "pass:of the test"'
# An encryption that every machine has: what is asked for is any command.
ENCRYPT, DECRYPT = f"[{WORDS}]", f'[{WORDS}, "-d"]'


def ready(bed: Bed) -> bool:
    status = bed.get("statefulset", "abaci-app", "-n", "abaci")["status"]
    return bool(status.get("readyReplicas") == status.get("replicas") == 3)


def auth_secret(bed: Bed) -> str:
    return base64.b64decode(bed.get("secret", "app-env", "-n", "abaci")["data"]["AUTH_SECRET"]).decode()


def place_of(bed: Bed, ordinal: int) -> str:
    return str(bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")["spec"]["nodeName"])


def agents(bed: Bed) -> list[str]:
    return [node for node in bed.nodes() if node != "server-0"]


def site(bed: Bed) -> str:
    """Run site.yml to its end; where the lost disk had the primary's volume, by the runbook's way."""
    run = bed.playbook()
    if run.rc:
        assert "promote.yml" in run.output, run.output[-4000:]
        first = operate(bed, "promote", backups=Path("/nonexistent"))
        match = re.search(r"promote_accept_loss_after=([0-9a-f]{16})", first.output)
        assert match, first.output[-3000:]
        run = bed.playbook("-e", f"promote_accept_loss_after={match[1]}", playbook="playbooks/promote.yml")
        assert run.rc == 0, run.output[-4000:]
        run = bed.playbook()
    assert run.rc == 0, run.output[-5000:]
    return run.output


def test_a_copy_of_the_datastore_is_encrypted_proven_and_known_to_site_yml(bed: Bed, kept: Path) -> None:
    refused(operate(bed, "cluster_backup", backups=kept), "cluster_backup_encrypt_command", "cluster_backup_plain")
    given = f'{{"cluster_backup_encrypt_command": {ENCRYPT}, "cluster_backup_decrypt_command": {DECRYPT}}}'
    where = ("-e", f"cluster_backup_directory={kept}/copies", "-e", given)
    began = time.monotonic()
    run = operate(bed, "cluster_backup", *where, backups=kept)
    assert run.rc == 0, run.output[-4000:]
    print(f"copied in {time.monotonic() - began:.0f} s")
    (manifest,) = op.manifests(kept / "copies")
    assert manifest["encrypted"] and manifest["read_back"] and manifest["rows"] > 100
    files = sorted((kept / "copies").iterdir())
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    assert auth_secret(bed).encode() not in b"".join(path.read_bytes() for path in files)
    assert "ls: cannot" in bed.node_exec("server-0", "sh", "-c", "ls -d /tmp/abaci-cluster-backup-* 2>&1 || true")
    again = bed.playbook()
    assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]
    assert "Cluster backup: 0 hours old" in re.sub(r"\s+", " ", again.output)


def test_a_timer_on_the_server_writes_the_same_to_a_mounted_path(bed: Bed, kept: Path) -> None:
    bed.node_exec("server-0", "mkdir", "-p", "/mnt/nas")
    given = f'{{"cluster_backup_encrypt_command": {ENCRYPT}, "cluster_backup_path": "/mnt/nas", '
    given += '"cluster_backup_schedule": "*-*-* 02:47:00"}'
    none = f'{{"cluster_backup_encrypt_command": {ENCRYPT}, "cluster_backup_schedule": ""}}'
    where = ("-e", f"cluster_backup_directory={kept}/others")
    run = operate(bed, "cluster_backup", *where, "-e", given, backups=kept)
    assert run.rc == 0, run.output[-4000:]
    bed.node_exec("server-0", "systemctl", "start", "abaci-cluster-backup.service")
    names = bed.node_exec("server-0", "ls", "/mnt/nas").split()
    assert len(names) == 2 and names[1].endswith(".tar.gz.encrypted"), names
    assert "server-0:/mnt/nas" in bed.node_exec("server-0", "cat", "/var/lib/abaci/cluster-backup.json")
    timers = bed.node_exec("server-0", "systemctl", "list-timers", "--all", "--no-pager")
    assert "abaci-cluster-backup.timer" in timers
    cron = given.replace("*-*-* 02:47:00", "17 3 * * *")
    refused(
        operate(bed, "cluster_backup", *where, "-e", cron, backups=kept),
        "cluster_backup_schedule 17 3 * * * is no time",
    )
    assert bed.node_exec("server-0", "systemctl", "list-timers", "--all", "--no-pager").count(
        "abaci-cluster-backup.timer"
    )
    run = operate(bed, "cluster_backup", *where, "-e", none, backups=kept)
    assert run.rc == 0, run.output[-4000:]
    assert "abaci-cluster-backup" not in bed.node_exec("server-0", "ls", "/etc/systemd/system")


def test_the_server_back_on_an_empty_disk_by_its_copy_in_two_commands(bed: Bed, kept: Path) -> None:
    op.post(bed, 20, "before the loss")
    before, rows, secret, record = op.agree(bed), op.rows(bed, 0), auth_secret(bed), op.record(bed)
    on_server = place_of(bed, int(record["primaryOrdinal"])) == "server-0"
    holding = {node: bed.node_exec(node, "ls", VOLUMES).split() for node in agents(bed)}
    run_bed("renew", bed.name, "--host", "server-0")

    lost = bed.playbook()
    text = re.sub(r"\s+", " ", lost.output)
    assert lost.rc != 0 and "playbooks/cluster_restore.yml" in text and "server-lost.md" in text, text[-3000:]
    assert any(name in text for names in holding.values() for name in names) and "rm -r" not in text
    assert {node: bed.node_exec(node, "ls", VOLUMES).split() for node in holding} == holding

    source = ("-e", f"cluster_restore_from={kept}/copies")
    refused(operate(bed, "cluster_restore", *source, backups=kept), "set cluster_restore_decrypt_command")
    began = time.monotonic()
    key = ("-e", f'{{"cluster_restore_decrypt_command": {DECRYPT}}}')
    run = operate(bed, "cluster_restore", *source, *key, backups=kept)
    assert run.rc == 0, run.output[-4000:]
    first = time.monotonic() - began
    site(bed)
    print(f"cluster_restore.yml {first:.0f} s, site.yml {time.monotonic() - began - first:.0f} s more; {on_server=}")
    until(lambda: ready(bed), 300, "all pods are ready")
    assert auth_secret(bed) == secret and op.record(bed)["clusterID"] == record["clusterID"]
    after = op.agree(bed)
    assert after[0] == before[0] and after[1] >= before[1]
    assert all(op.rows(bed, ordinal) == rows for ordinal in range(3)), (rows, op.rows(bed, 0))

    # Kubelets that were never restarted hear of what is new, and the edge finds it.
    ordinal = next(n for n in range(3) if place_of(bed, n) != "server-0" and str(n) != op.record(bed)["primaryOrdinal"])
    bed.kubectl("delete", "pod", f"abaci-app-{ordinal}", "-n", "abaci", timeout=120)
    until(lambda: ready(bed), 120, "a pod on an agent is made anew")
    op.post(bed, 1, "after the loss")
    assert op.agree(bed)[1] > after[1]
    assert bed.edge("GET", "/api/records").status == 200
    again = bed.playbook()
    assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]


def test_an_older_copy_needs_a_word_and_the_present_datastore_is_put_aside(bed: Bed, kept: Path) -> None:
    source = ("-e", f"cluster_restore_from={kept}/copies", "-e", f'{{"cluster_restore_decrypt_command": {DECRYPT}}}')
    run = operate(bed, "cluster_restore", *source, backups=kept)
    (manifest,) = op.manifests(kept / "copies")
    word = f"cluster_restore_accept_loss_after={manifest['revision']}"
    refused(run, f"-e {word}", "what was made in between")
    secret = auth_secret(bed)
    run = operate(bed, "cluster_restore", *source, "-e", word, backups=kept)
    assert run.rc == 0, run.output[-4000:]
    assert "server.before-" in bed.node_exec("server-0", "ls", "/var/lib/rancher/k3s")
    site(bed)
    until(lambda: ready(bed), 300, "all pods are ready")
    assert auth_secret(bed) == secret


def shell_blocks(section: str) -> list[str]:
    """The code blocks of a section of the runbook, as a person would paste them."""
    text = re.split(r"(?m)^## ", RUNBOOK)
    (found,) = [part for part in text if part.startswith(section)]
    return re.findall(r"(?s)```bash\n(.*?)```", found)


def test_the_server_lost_without_a_copy_and_the_rows_back_by_the_runbook(bed: Bed, kept: Path) -> None:
    op.post(bed, 20, "without a copy")
    before, rows = op.agree(bed), op.rows(bed, 0)
    names = agents(bed)
    run_bed("renew", bed.name, "--host", "server-0")

    leave, aside = shell_blocks("Put k3s aside")
    assert leave.splitlines()[-1] == "reboot"
    holding = {}
    for node in names:
        bed.node_exec(node, "sh", "-c", leave.removesuffix("reboot\n"))
        # As reboot does for a host; a container comes back on its own, too, but nobody sees when.
        bed.power_off(node)
        bed.power_on(node)
        until(lambda node=node: bed.node_exec(node, "true") == "", 60, f"{node} is up")
    run = operate(bed, "volumes_save", "-e", f"volumes_save_directory={kept}/saved", backups=kept)
    assert run.rc == 0, run.output[-4000:]
    best: dict[str, Any] = max(op.manifests(kept / "saved"), key=lambda one: one["txid"])
    assert (best["cluster_id"], best["txid"], best["checksum"]) == before and best["position_proven"]

    for node in names:
        holding[node] = bed.node_exec(node, "ls", VOLUMES).split()
        bed.node_exec(node, "sh", "-c", aside)
        assert bed.node_exec(node, "ls", VOLUMES).split() == holding[node]
    Path(bed.kubeconfig).unlink()
    run = bed.playbook()
    assert run.rc == 0, run.output[-5000:]
    file = ("-e", f"restore_from={kept}/saved/{best['file']}")
    run = operate(bed, "restore", *file, backups=kept)
    match = re.search(r"-e restore_overwrite_cluster_id=(\S+?)\.? ", run.output)
    assert run.rc != 0 and match, run.output[-3000:]
    run = operate(bed, "restore", *file, "-e", f"restore_overwrite_cluster_id={match[1]}", backups=kept)
    assert run.rc == 0, run.output[-4000:]
    until(lambda: ready(bed), 300, "all pods are ready")
    op.agree(bed)
    assert all(op.rows(bed, ordinal) == rows for ordinal in range(3)), (rows, op.rows(bed, 0))
