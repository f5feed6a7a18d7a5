"""The identity guard (roles/app/files/guard.sh) under busybox, asking real LiteFS nodes and reading real volumes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.guard import Exit
from litefs_cluster import DATABASE, REPOSITORY, Cluster, MakeCluster, Node

GUARD = REPOSITORY / "roles" / "app" / "files" / "guard.sh"
SERVICE = "abaci-app-headless.abaci.svc.cluster.local"


@dataclass
class Pods:
    """Nodes that have the addresses of pods; `listed` are those DNS knows."""

    cluster: Cluster
    folder: Path

    def __post_init__(self) -> None:
        self.identity = self.folder / "identity"
        self.identity.mkdir()
        self.listed = list(self.cluster.nodes)
        self.archive_port = 0

    def record(self, state: str, cluster_id: str = "", ordinal: int = 0) -> None:
        values = {"state": state, "clusterID": cluster_id, "primaryOrdinal": str(ordinal)}
        for name, value in values.items():
            (self.identity / name).unlink(missing_ok=True)
            if value:
                (self.identity / name).write_text(value)

    def busybox(self) -> Path:
        """busybox, but for what DNS says."""
        found = "".join(f"Name:\t{SERVICE}\nAddress: {node.host}\n" for node in self.listed)
        server = "Server:\t\t10.43.0.10\nAddress:\t10.43.0.10:53\n\n"
        archive = "Name:\tarchive\nAddress: 127.0.0.1\n" if self.archive_port else "** NXDOMAIN\n"
        command = self.folder / "busybox"
        command.write_text(
            f'#!/bin/sh\n[ "$1" = nslookup ] || exec busybox "$@"\n'
            f"case $3 in *-archive.*) cat <<END\n{server}{archive}END\nexit ;; esac\ncat <<END\n{server}{found}END\n"
        )
        command.chmod(0o755)
        return command

    def guard(self, node: Node, patience: int = 1) -> subprocess.Popen[str]:
        env = {
            "PATH": os.environ["PATH"],
            "POD_NAME": node.name,
            "POD_IP": node.host,
            "GUARD_SERVICE": SERVICE,
            "GUARD_PORT": str(node.api),
            "GUARD_DATABASE": DATABASE,
            "GUARD_DATA_DIR": str(node.data),
            "GUARD_IDENTITY_DIR": str(self.identity),
            "GUARD_RECORD": "abaci-app-litefs-identity",
            "GUARD_PATIENCE": str(patience),
            "GUARD_TERMINATION_LOG": str(self.folder / "termination"),
            "GUARD_BUSYBOX": str(self.busybox()),
            "GUARD_ARCHIVE_PORT": str(self.archive_port),
        }
        # As in the pod: root that has dropped every capability.
        without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        return subprocess.Popen([*without, "busybox", "sh", GUARD], env=env, stderr=subprocess.PIPE, text=True)

    def ask(self, node: Node, patience: int = 1) -> tuple[int, str]:
        """Exit code and log of a guard that ends."""
        process = self.guard(node, patience)
        _, log = process.communicate(timeout=30)
        return process.returncode, log

    def refusal(self, node: Node, patience: int = 1) -> str:
        """The termination message of a guard that has to refuse."""
        code, log = self.ask(node, patience)
        message = (self.folder / "termination").read_text()
        assert code in set(Exit), log
        assert "docs/runbooks/primary-refused.md" in message
        return message


@pytest.fixture
def pods(make_cluster: MakeCluster, tmp_path: Path) -> Pods:
    assert shutil.which("busybox"), "busybox is not installed: apt-get install busybox"
    return Pods(make_cluster(3).on_one_port(), tmp_path)


@pytest.fixture
def living(pods: Pods) -> Pods:
    """Three rows on three nodes, the record in place, and the primary stopped."""
    pods.cluster.start()
    pods.cluster.primary.create()
    pods.cluster.wait_replicated()
    pods.record("recorded", pods.cluster.primary.cluster_id())
    pods.cluster.primary.kill()
    pods.cluster.primary.unmount()
    return pods


def test_bootstrap_on_an_empty_volume_starts_while_nobody_holds_a_cluster(pods: Pods) -> None:
    pods.record("bootstrap")
    for node in pods.cluster.replicas:
        node.launch()
        node.wait_up()
    code, log = pods.ask(pods.cluster.primary)
    assert code == 0, log
    assert all(f"{node.host} - false -" in log for node in pods.cluster.replicas)


def test_the_primary_starts_on_its_own_volume_and_reads_its_replicas_positions(living: Pods) -> None:
    code, log = living.ask(living.cluster.primary)
    assert code == 0, log
    for node in living.cluster.replicas:
        assert f"{node.host} {node.cluster_id()} false {node.position()[0]}" in log


def test_replicas_start_whatever_is_on_their_volume(living: Pods) -> None:
    for node in living.cluster.replicas:
        assert living.ask(node)[0] == 0


def empty(pods: Pods) -> None:
    pods.cluster.primary.empty_volume()


def only_the_id(pods: Pods) -> None:
    identity = (pods.cluster.primary.data / "clusterid").read_text()
    empty(pods)
    (pods.cluster.primary.data / "clusterid").write_text(identity)


def no_id(pods: Pods) -> None:
    (pods.cluster.primary.data / "clusterid").unlink()


def foreign(pods: Pods) -> None:
    (pods.cluster.primary.data / "clusterid").write_text("LFSC0123456789ABCDEF")


def no_record(pods: Pods) -> None:
    pods.record("")


def bootstrap_again_on_an_empty_volume(pods: Pods) -> None:
    pods.record("bootstrap")
    empty(pods)


@pytest.mark.parametrize(
    "damage",
    [empty, only_the_id, no_id, foreign, no_record, bootstrap_again_on_an_empty_volume],
    ids=lambda damage: damage.__name__,
)
def test_the_primary_refuses_and_no_replica_loses_a_row(living: Pods, damage: Callable[[Pods], None]) -> None:
    damage(living)
    assert living.refusal(living.cluster.primary).startswith("abaci-app-0 refuses")
    for node in living.cluster.replicas:
        assert node.bodies() == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize("asked", ["while they wait for the primary", "while they are in a mismatch"])
def test_an_older_volume_is_refused_with_both_positions(living: Pods, asked: str) -> None:
    primary, replicas = living.cluster.primary, living.cluster.replicas
    older = primary.root / "older"
    shutil.copytree(primary.data, older)
    before = replicas[0].position()[0]
    primary.start()
    primary.insert("row 4")
    living.cluster.wait_replicated()
    after = replicas[0].position()[0]
    primary.kill()
    primary.unmount()
    if "mismatch" in asked:
        primary.empty_volume()
        primary.start()
        time.sleep(1)
        primary.kill()
        primary.unmount()
    primary.copy_volume(older)
    message = living.refusal(primary)
    assert before in message and after in message
    assert replicas[0].bodies()[-1] == "row 4"


def test_the_volume_with_the_newest_position_put_back_is_let_through(living: Pods) -> None:
    primary = living.cluster.primary
    kept = primary.root / "kept"
    primary.data.rename(kept)
    primary.data.mkdir()
    living.refusal(primary)
    primary.copy_volume(kept)
    code, log = living.ask(primary)
    assert code == 0, log
    primary.start()
    primary.insert("row 4")
    living.cluster.wait_replicated()


def test_it_waits_while_another_pod_says_that_it_is_primary_and_goes_on_when_that_ends(living: Pods) -> None:
    other = living.cluster.replicas[0]
    other.kill()
    other.unmount()
    other.settings.candidate = "true"
    other.start()
    process = living.guard(living.cluster.primary)
    time.sleep(3)
    assert process.poll() is None
    other.kill()
    other.unmount()
    other.settings.candidate = "false"
    other.launch()
    other.wait_up()
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    assert "says that it is primary" in log


def test_a_pod_that_cannot_be_asked_is_named_and_patience_is_kept(living: Pods) -> None:
    for node in living.cluster.replicas:
        node.kill()
    started = time.monotonic()
    code, log = living.ask(living.cluster.primary, patience=3)
    assert code == 0, log
    assert time.monotonic() - started >= 2
    for node in living.cluster.replicas:
        assert node.host in log.split("could not ask")[1]


def test_a_promoted_ordinal_is_the_primary_and_pod_0_a_replica(living: Pods) -> None:
    living.record("recorded", living.cluster.replicas[0].cluster_id(), ordinal=1)
    living.cluster.primary.empty_volume()
    assert living.ask(living.cluster.primary)[0] == 0
    assert living.ask(living.cluster.replicas[0])[0] == 0
