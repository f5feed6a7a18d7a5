"""Each of these faults makes check.yml name it and nothing else, and the command that it prints mends it, literally.

Where the cause lies outside of what a command of ours reaches (a registry that is away, a firewall, a clock), it is
taken away first, as whoever runs the hosts would, and then the command is run all the same.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import operating as op
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from publishing import application, publish
from sitebed import ROOT, Bed, until

pytestmark = pytest.mark.long
APP_IMAGE = "ghcr.io/antialias/soroban-abacus-flashcards:latest"
STATEFULSET = ("statefulset/abaci-app", "-n", "abaci")
# A line that Python runs at its start.
SLOW_CLOCK = "import time; time.time = lambda now=time.time: now() - 300"
STARTUP = "/usr/lib/python3/dist-packages/slow-clock.pth"
COPIED = "/var/lib/abaci/cluster-backup.json"


@dataclass(frozen=True)
class Fault:
    """``plant`` makes it, ``remove`` takes away what no command can; ``follow``: whether the bed has the command."""

    slug: str
    plant: Callable[[Bed], object]
    remove: Callable[[Bed], object] | None = None
    follow: bool = True


@pytest.fixture(scope="module")
def settings(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory with a scheduled backup, an archive and a copy of the cluster, so that nothing complains."""
    folder = tmp_path_factory.mktemp("well")
    variables = {
        "backup_directory": str(folder / "backups"),
        "backup_schedule": "17 3 * * *",
        "backup_image": APP_IMAGE,
        "backup_volume": {"hostPath": {"path": "/var/backups/abaci", "type": "DirectoryOrCreate"}},
        "archive_image": APP_IMAGE,
        "cluster_backup_directory": str(folder / "cluster"),
        "cluster_backup_plain": True,
    }
    added = bed.inventory / "planted_faults.yml"
    added.write_text(yaml.safe_dump({"all": {"vars": variables}}))
    try:
        for playbook in ("site.yml", "playbooks/backup.yml", "playbooks/cluster_backup.yml"):
            run = bed.playbook(playbook=playbook)
            assert run.rc == 0, run.output[-4000:]
        job_of(bed, "backup-first")
        bed.kubectl(
            "wait", "-n", "abaci", "--for=condition=complete", "job/backup-first", "--timeout=180s", timeout=200
        )
        shutil.rmtree(folder / "backups")  # what the controller keeps would make up for a job that is stale
        yield folder
    finally:
        added.unlink()
        bed.kubectl("delete", "cronjob", "abaci-app-backup", "-n", "abaci", "--ignore-not-found")
        assert bed.playbook("-e", "archive_state=absent", "-e", "archive_remove_data=true").rc == 0


def complaints(bed: Bed, folder: Path, *more: str) -> dict[str, dict[str, Any]]:
    """What check.yml complains of, by the slug of the check."""
    file = folder / "check.json"
    given = ("-e", "check_output=json", "-e", f"check_file={file}", "-e", "check_fails_at=never", *more)
    run = bed.playbook(*given, playbook="playbooks/check.yml")
    assert run.rc in (0, 4), run.output[-4000:]  # 4: a host is unreachable
    results = json.loads(file.read_text())["checks"]
    return {one["slug"]: one for one in results if one["mark"] in ("warn", "fail")}


def follow(command: str) -> None:
    """The advice, literally."""
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=900
    )
    print(f"  {command}: {done.returncode}")
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]} {done.stderr[-2000:]}"


def annotate(*notes: str) -> Callable[[Bed], object]:
    return lambda bed: bed.kubectl("annotate", *STATEFULSET, *notes, "--overwrite")


def patch(what: str, change: dict[str, Any], *more: str, namespace: str = "abaci") -> Callable[[Bed], object]:
    return lambda bed: bed.kubectl(
        "patch", *what.split("/"), "-n", namespace, "--type=merge", "-p", json.dumps(change), *more
    )


def scaled_away(deployment: str, namespace: str) -> Callable[[Bed], object]:
    def plant(bed: Bed) -> None:
        bed.kubectl("scale", "deployment", deployment, "-n", namespace, "--replicas=0")
        owned = ("get", "pods", "-n", namespace, "-o", "name")
        until(lambda: f"/{deployment}-" not in bed.kubectl(*owned), 90, f"{deployment} has ended")

    return plant


def certificate(days: int, name: str = "abaci.localhost") -> Callable[[Bed], object]:
    """Put a certificate that ends in so many days into the site's Secret."""

    def plant(bed: Bed) -> None:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), *(x509.DNSName(one) for one in bed.variables.get("app_extra_domains", []))]
        made = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days, hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        data = {"tls.crt": made.public_bytes(pem[0]).decode(), "tls.key": key.private_bytes(*pem).decode()}
        patch("secret/abaci-tls", {"stringData": data})(bed)

    return plant


def job_of(bed: Bed, name: str) -> None:
    bed.kubectl("create", "job", "-n", "abaci", "--from=cronjob/abaci-app-backup", name)


def failed_job(bed: Bed) -> None:
    """A run of the scheduled backup that could not be made, as when its target has no room."""
    job = json.loads(
        bed.kubectl(
            *("create", "job", "-n", "abaci", "--from=cronjob/abaci-app-backup", "backup-bad"),
            *("--dry-run=client", "-o", "json"),
        )
    )
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0] |= {"command": ["python3", "-c", "raise SystemExit('no room')"], "args": []}
    job["spec"]["backoffLimit"] = 0
    bed.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    bed.kubectl("wait", "-n", "abaci", "--for=condition=failed", "job/backup-bad", "--timeout=120s", timeout=150)


def stale(bed: Bed) -> None:
    """The last run that succeeded is months ago; the controller would take a Job that is there for a newer one."""
    bed.kubectl("delete", "jobs", "--all", "-n", "abaci", timeout=120)
    long_ago = dict.fromkeys(("lastSuccessfulTime", "lastScheduleTime"), "2026-01-01T00:00:00Z")
    patch("cronjob/abaci-app-backup", {"status": long_ago}, "--subresource=status")(bed)


def fence(bed: Bed) -> None:
    patch("configmap/abaci-app-litefs-identity", {"data": {"fencedOrdinals": "2"}})(bed)
    bed.kubectl("delete", "pod", "abaci-app-2", "-n", "abaci", timeout=120)
    until(lambda: op.guard_says(bed, 2), 90, "the guard stops what is fenced")


def stuck_reader(bed: Bed) -> None:
    """A replica that waits for a transaction of its application which does not end."""
    hold = "import sqlite3,time;d=sqlite3.connect('/litefs/sqlite.db');d.execute('begin');"
    hold += "d.execute('select count(*) from records').fetchall();time.sleep(900)"
    bed.in_pod("abaci-app-2", "sh", "-c", f"nohup python3 -c {shlex.quote(hold)} >/dev/null 2>&1 & sleep 3")
    op.post(bed, 3, "not applied")
    until(lambda: len(set(op.positions(bed).values())) == 2, 30, "the replica is behind")


def kept_out(bed: Bed) -> list[str]:
    """The node and the folder of transactions of replica 2."""
    node = bed.get("pod", "abaci-app-2", "-n", "abaci")["spec"]["nodeName"]
    volume = bed.get("pvc", "litefs-data-abaci-app-2", "-n", "abaci")["spec"]["volumeName"]
    spec = bed.get("pv", volume)["spec"]
    return [node, (spec.get("hostPath") or spec["local"])["path"] + "/dbs/sqlite.db/ltx"]


def read_only_transactions(bed: Bed) -> None:
    """Replica 2 starts on a volume where it may write no transaction, and the primary has one that it lacks."""
    node, folder = kept_out(bed)
    bed.node_exec(node, "mount", "--bind", folder, folder)
    bed.node_exec(node, "mount", "-o", "remount,bind,ro", folder)
    # The one that is there got the folder before it was read-only.
    bed.kubectl("delete", "pod", "abaci-app-2", "-n", "abaci", timeout=120)
    until(lambda: bed.litefs("abaci-app-2"), 120, "LiteFS answers again")
    op.post(bed, 3, "never applied")


def writable_again(bed: Bed) -> None:
    node, folder = kept_out(bed)
    bed.node_exec(node, "umount", folder)


def no_agent(bed: Bed) -> None:
    bed.power_off("agent-2")
    until(lambda: not bed.ready("agent-2"), 120, "the API sees that the node is away")


def agent_back(bed: Bed) -> None:
    bed.power_on("agent-2")
    until(lambda: bed.ready("agent-2"), 180, "the node is back")
    ready = "{.status.readyReplicas}"
    until(lambda: bed.kubectl("get", *STATEFULSET, "-o", f"jsonpath={ready}") == "3", 180, "its pod is back")


def forget_image(bed: Bed) -> None:
    """A replica begins anew on a node that lost its images, while the registry is away."""
    subprocess.run(["docker", "stop", f"abaci-{bed.name}-registry"], check=True, capture_output=True)
    pod = bed.get("pod", "abaci-app-2", "-n", "abaci")
    node, image = pod["spec"]["nodeName"], pod["status"]["containerStatuses"][0]["imageID"]
    bed.kubectl("delete", "pod", "abaci-app-2", "-n", "abaci", "--wait=false")
    digest = image.partition("@")[2]
    ctr = "k3s ctr -n k8s.io images"
    names = f"$({ctr} ls | grep {digest} | cut -d' ' -f1)"
    bed.node_exec(node, "sh", "-c", f"{ctr} rm --sync {names}")
    if not pull_fails(bed):
        bed.kubectl("delete", "pod", "abaci-app-2", "-n", "abaci", timeout=120)
    until(lambda: pull_fails(bed), 120, "the image cannot be pulled")


def pull_fails(bed: Bed) -> bool:
    status = bed.get("pod", "abaci-app-2", "-n", "abaci")["status"]
    every = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    return any("Pull" in (one["state"].get("waiting") or {}).get("reason", "") for one in every)


def registry_back(bed: Bed) -> None:
    subprocess.run(["docker", "start", f"abaci-{bed.name}-registry"], check=True, capture_output=True)


def full_disk(bed: Bed) -> None:
    """82 % of the node's disk; the bed's nodes share that of the machine."""
    words = bed.node_exec("agent-1", "df", "-B1", "--output=used,avail", "/var/lib/kubelet").split()
    used, free = int(words[-2]), int(words[-1])
    size = int(0.82 * (used + free)) - used
    assert size > 0, "the machine's disk is full already"
    bed.node_exec("agent-1", "fallocate", "-l", str(size), "/var/lib/kubelet/planted")


def room_again(bed: Bed) -> None:
    bed.node_exec("agent-1", "rm", "-f", "/var/lib/kubelet/planted")


def slow_clock(bed: Bed) -> None:
    bed.node_exec("agent-1", "sh", "-c", f"printf '%s\\n' '{SLOW_CLOCK}' >{STARTUP}")


def right_clock(bed: Bed) -> None:
    bed.node_exec("agent-1", "rm", "-f", STARTUP)


def second_database(bed: Bed) -> None:
    primary = f"abaci-app-{op.record(bed)['primaryOrdinal']}"
    scaled_away("abaci-app-archive", "abaci")(bed)  # it would have it
    bed.in_pod(primary, "sqlite3", "/litefs/jobs.db", "create table if not exists job (id integer primary key)")


def removed_database(bed: Bed) -> None:
    op.agree(bed)
    bed.in_pod(f"abaci-app-{op.record(bed)['primaryOrdinal']}", "rm", "/litefs/sqlite.db")


def port(verb: str, name: str) -> Callable[[Bed], object]:
    """Close, or open, a port of agent-1 to agent-2."""

    def change(bed: Bed) -> None:
        rule = ("INPUT", "-s", bed.node_address("agent-2"), "-p", "tcp", "--dport", name, "-j", "DROP")
        bed.node_exec("agent-1", "iptables", verb, *rule)

    return change


def archive_cut_off(verb: str) -> Callable[[Bed], object]:
    """The network between the archive and all LiteFS is cut, or mended."""

    def change(bed: Bed) -> None:
        (pod,) = bed.get("pods", "-n", "abaci", "-l", "app.kubernetes.io/component=archive")["items"]
        rule = ("FORWARD", "-s", pod["status"]["podIP"], "-p", "tcp", "--dport", "20202", "-j", "DROP")
        bed.node_exec(pod["spec"]["nodeName"], "iptables", verb, *rule)

    return change


def killed_reset(bed: Bed) -> None:
    op.mismatch(bed, 2)
    run = op.operate(bed, "replica_reset", backups=Path("/nowhere"), interrupt="act")
    assert "INTERRUPTED" in run.output, run.output[-3000:]


def died(bed: Bed) -> None:
    """A run that took the lock two hours ago, and its machine is gone."""
    ago = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    times = {"acquireTime": ago, "renewTime": ago}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "abaci-app-operation",
            "namespace": "abaci",
            "annotations": {"abaci.infra/operation": "site"},
        },
        "spec": {"holderIdentity": "ann@gone/1", "leaseDurationSeconds": 900, **times},
    }
    bed.kubectl("apply", "-f", "-", stdin=json.dumps(lease))


def old_copy(bed: Bed) -> None:
    known = json.loads(bed.node_exec("server-0", "cat", COPIED))
    known["time"] = float(known["time"]) - 20 * 86400
    bed.node_exec("server-0", "sh", "-c", f"printf %s {shlex.quote(json.dumps(known))} >{COPIED}")


def volume_that_goes(bed: Bed) -> None:
    volume = bed.get("pvc", "litefs-data-abaci-app-1", "-n", "abaci")["spec"]["volumeName"]
    bed.kubectl("patch", "pv", volume, "-p", json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}))


FAULTS: dict[str, Fault] = {
    "wrong identity": Fault("same-cluster", lambda bed: op.mismatch(bed, 2)),
    "fenced ordinal": Fault("fenced", fence),
    "lagging replica": Fault("replicas-follow", stuck_reader),
    "never synced replica": Fault("replicas-synced", read_only_transactions, writable_again),
    "volume that goes with its claim": Fault("volumes-retain", volume_that_goes),
    "unfinished operation": Fault("unfinished", killed_reset),
    "run that died": Fault("lock-returned", died),
    "frozen Keel": Fault("keel-frozen", annotate("keel.sh/policy=never")),
    "missing annotation": Fault("keel-annotations", annotate("keel.sh/match-tag-")),
    "Keel down": Fault("keel", scaled_away("keel", "keel")),
    "expired certificate": Fault("certificate-lasts", certificate(-2)),
    "certificate that ends soon": Fault("certificate-lasts", certificate(5)),
    "certificate of another name": Fault("certificate-names", certificate(90, "other.localhost")),
    "no certificate": Fault(
        "certificate-lasts", lambda bed: bed.kubectl("delete", "secret", "abaci-tls", "-n", "abaci")
    ),
    "wrong route": Fault(
        "write-path",
        patch(
            "service/abaci-app-primary", {"spec": {"selector": {"statefulset.kubernetes.io/pod-name": "abaci-app-2"}}}
        ),
    ),
    # The stand-in for k3s has no crictl.
    "full disk": Fault("nodes-room", full_disk, room_again, follow=False),
    "node away": Fault("nodes-ready", no_agent, agent_back),
    "cordoned node": Fault("nodes-schedulable", lambda bed: bed.kubectl("cordon", "agent-1")),
    "clock off": Fault("hosts-clocks-agree", slow_clock, right_clock),
    # Its nodes have no ufw.
    "closed port": Fault("ports-between-hosts", port("-I", "10250"), port("-D", "10250"), follow=False),
    "CoreDNS down": Fault("dns", scaled_away("coredns", "kube-system")),
    "Redis down": Fault("redis", scaled_away("redis", "abaci")),
    "registry away": Fault("images-pulled", forget_image, registry_back),
    "suspended backup": Fault("backup-scheduled", patch("cronjob/abaci-app-backup", {"spec": {"suspend": True}})),
    "failed backup": Fault("backup-runs", failed_job),
    "stale backup": Fault("backup-fresh", stale),
    "old copy of the cluster": Fault("cluster-backup", old_copy),
    "archive cut off": Fault("archive-follows", archive_cut_off("-I"), archive_cut_off("-D")),
    "archive down": Fault("archive-runs", scaled_away("abaci-app-archive", "abaci")),
    "database that was removed": Fault("one-primary", removed_database),
    "kubeconfig for everybody": Fault("kubeconfig-private", lambda bed: Path(bed.kubeconfig).chmod(0o644)),
}


def test_a_site_in_order_gives_no_cause_for_complaint(bed: Bed, settings: Path) -> None:
    assert {slug: one["cause"] for slug, one in complaints(bed, settings).items()} == {}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_alone_and_its_command_mends_it(bed: Bed, settings: Path, name: str) -> None:
    fault = FAULTS[name]
    found: dict[str, dict[str, Any]] = {}

    def told() -> bool:
        found.clear()
        found.update(complaints(bed, settings))
        return fault.slug in found

    try:
        fault.plant(bed)
        until(told, 150, f"{fault.slug} complains", every=5)
    finally:
        if fault.remove is not None:
            fault.remove(bed)
    causes = {slug: one["cause"] for slug, one in found.items()}
    print(f"\n  {name}: {causes}")
    if fault.follow:
        follow(found[fault.slug]["command"])
    assert list(found) == [fault.slug], causes
    last: dict[str, str] = {}

    def well() -> bool:
        last.clear()
        last.update({slug: one["cause"] for slug, one in complaints(bed, settings).items()})
        return not last

    until(well, 240, f"all is well after {name}: {last}", every=5)


def test_a_database_that_no_backup_has_is_named_and_the_archive_then_has_it(
    bed: Bed, settings: Path, tmp_path: Path
) -> None:
    """Last, since the database stays: no advice of ours removes one."""
    publish(bed, application(), "library/python:3.13-alpine", tmp_path)
    second_database(bed)
    assert list(complaints(bed, settings)) == ["archive-runs"]
    # As on a site that asks for no archive.
    found = complaints(bed, settings, "-e", "archive_image=")
    assert list(found) == ["other-databases"], found
    follow(found["other-databases"]["command"])
    until(lambda: not complaints(bed, settings), 240, "the archive has it", every=5)
