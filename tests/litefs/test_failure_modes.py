"""Each cause in docs/failure-modes.md, made with the real LiteFS: what operations say.

A pod is a LiteFS node here. What Kubernetes adds (claims, volumes, the guard's message, a container that ended) is put
around its answers in the form in which the API has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import direct
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import backup
from ansible_collections.abaci.infra.plugins.module_utils.operations import situation as sit
from litefs_cluster import DATABASE, Cluster, MakeCluster, Node, until

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "plugins"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "operations"))
import deciding
import factory_objects as make

GROW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO records (body) SELECT hex(randomblob(500)) FROM n"
)
EVERY_FILE = {"path": "/b", "verified": True, "page_size": 4096, "journal_mode": "delete", "sha256": "ab" * 32}


def document(cluster: Cluster, recorded: str, said: str | None = None, ordinal: int = 0) -> dict[str, Any]:
    """The state document of the nodes as they are now; ``said`` is what the guard says of ordinal 0."""
    answers = {number: direct.node(cluster, number) for number in range(len(cluster.nodes))}
    pods = []
    for number, node in enumerate(cluster.nodes):
        if number == 0 and said is not None:
            pods.append(make.stopped(0, said))
        elif answers[number]["reachable"]:
            pods.append(make.pod(number))
        else:
            pods.append(ended(number, node))
    size = len(cluster.nodes)
    state: dict[str, Any] = make.living(
        answers,
        record=make.record("recorded", recorded, ordinal=ordinal),
        pods=pods,
        statefulset=make.statefulset(replicas=size),
        claims=[make.claim(number) for number in range(size)],
        volumes=[make.volume(number) for number in range(size)],
        nodes=[make.kube_node(f"node-{number}") for number in range(size)],
    )
    return state | {"rendered_ordinal": 0, "rendered_quiet": False}


def ended(number: int, node: Node) -> dict[str, Any]:
    """A pod whose container ended, with the end of its log as the termination message."""
    status = {
        "name": "app",
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": node.log()[-2000:]}},
    }
    pod: dict[str, Any] = make.pod(
        number, containerStatuses=[status], conditions=[{"type": "Ready", "status": "False"}]
    )
    return pod


def run_sql(node: Node, *statements: str) -> subprocess.CompletedProcess[str] | None:
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=2)\n"
        "for statement in sys.argv[2:]: db.execute(statement).fetchall()\n"
    )
    command = [sys.executable, "-c", code, str(node.mount / DATABASE), *statements]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return None


@pytest.fixture
def trio(make_cluster: MakeCluster) -> Cluster:
    """Three nodes with three rows, replicated."""
    cluster = make_cluster(3).start()
    cluster.primary.create()
    cluster.wait_replicated()
    return cluster


def start_primary(cluster: Cluster) -> None:
    cluster.primary.launch()
    cluster.primary.wait_up()
    until(lambda: cluster.primary.info()["isPrimary"], 10, "the primary runs")


def stop_primary(cluster: Cluster) -> None:
    cluster.primary.kill()
    cluster.primary.unmount()


def promoted(cluster: Cluster, state: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """What promote decides once it has looked into the volumes that it asks for."""
    first = deciding.promoted(state, parameters)
    seen = {}
    for volume in state["volumes"]:
        if volume["name"] in first["look"]:
            data = cluster.nodes[volume["ordinal"]].data
            files = sorted((data / "dbs" / DATABASE / "ltx").glob("*.ltx"), key=lambda file: file.stem[17:])
            identity = (data / "clusterid").read_text().strip()
            seen[volume["name"]] = {"cluster_id": identity, "txid": files[-1].stem[17:], "problem": None}
    assert seen.keys() == set(first["look"])
    return deciding.promoted(state, parameters, volumes=seen) if seen else first


def nobody_hears(cluster: Cluster, recorded: str, said: str | None = None) -> dict[str, Any]:
    """The state once the last word of the primary is so old that it cannot run any more."""
    until(
        lambda: "heard from" not in (deciding.promoted(document(cluster, recorded, said))["refusal"] or ""),
        15,
        "silence",
    )
    return document(cluster, recorded, said)


def settle(cluster: Cluster) -> None:
    """Let replicas notice: they try again every second, and a lag of 0 needs two looks."""
    until(lambda: all("different cluster id" in node.log() for node in cluster.replicas), 15, "the mismatch")


def nothing_goes(state: dict[str, Any]) -> None:
    """Neither reset nor scale touches anything here."""
    for targets in ("mismatched", [1], [2], [1, 2]):
        plan = deciding.reset(state, targets)
        assert plan["refusal"] and not plan["steps"], plan
    assert deciding.scaled(state, 1)["refusal"] and deciding.scaled(state, 5)["refusal"]


def test_empty_primary_volume(trio: Cluster) -> None:
    recorded, best = trio.primary.cluster_id(), trio.primary.position()[0]
    stop_primary(trio)
    trio.primary.empty_volume()
    start_primary(trio)
    trio.primary.create(rows=1)
    settle(trio)
    state = document(trio, recorded)
    nothing_goes(state)
    plan = deciding.reset(state, "mismatched")
    assert plan["cause"] == "primary-volume-empty"
    assert f"up to TXID {best}" in plan["refusal"] and "last good copies" in plan["refusal"]
    # promote stops the empty primary first; what was written to it meanwhile is exported.
    moved = deciding.promoted(state, {"accept_loss_after": best})
    assert moved["export"] == ["abaci-app-0", "abaci-app-1", "abaci-app-2"]
    assert [step["do"] for step in moved["steps"]][:2] == ["record", "stop"]
    back = deciding.restored(state, EVERY_FILE)
    assert back["cause"] == "primary-volume-empty" and back["refusal"].startswith("Nothing was restored. "), back
    assert f"up to TXID {best}" in back["refusal"] and not back["steps"], back


def test_the_primary_lost_only_its_id(trio: Cluster) -> None:
    recorded = trio.primary.cluster_id()
    stop_primary(trio)
    (trio.primary.data / "clusterid").unlink()
    start_primary(trio)
    settle(trio)
    state = document(trio, recorded)
    nothing_goes(state)
    plan = deciding.reset(state, "mismatched")
    assert (
        plan["cause"] == "cluster-id-missing"
        and "lost only its cluster id" in plan["refusal"]
        and recorded in plan["refusal"]
    )


def test_a_replicas_volume_is_of_another_cluster(trio: Cluster) -> None:
    recorded = trio.primary.cluster_id()
    for replica in trio.replicas:
        replica.kill()
        replica.unmount()
        (replica.data / "clusterid").write_text("LFSC0123456789ABCDEF\n")
        replica.launch()
        replica.wait_up()
    settle(trio)
    state = document(trio, recorded)
    plan = deciding.reset(state, "mismatched")
    assert plan["refusal"] is None and plan["cause"] == "replica-of-another-cluster" and plan["targets"] == [1, 2]
    assert plan["export"][1:] == ["abaci-app-1", "abaci-app-2"], "each copy of the other cluster is exported first"


def test_the_guard_holds_an_empty_primary_and_promote_states_the_tail(trio: Cluster) -> None:
    """A primary with an unreplicated tail is lost: the figure is what the replicas have."""
    recorded = trio.primary.cluster_id()
    for replica in trio.replicas:
        assert replica.process
        os.kill(replica.process.pid, signal.SIGSTOP)
    trio.primary.insert("only on the primary", "this one, too")
    tail = trio.primary.position()[0]
    stop_primary(trio)
    for replica in trio.replicas:
        assert replica.process
        os.kill(replica.process.pid, signal.SIGCONT)
    message = "abaci-app-0 refuses to start as primary: its volume is empty."
    # What was in the sockets may still arrive: the figure is read from the replicas, never computed.
    time.sleep(2)

    def planned() -> Any:
        """(state, plan) once the replicas answer again, which a busy machine delays."""
        state = nobody_hears(trio, recorded, message)
        plan = promoted(trio, state, {})
        return plan["loss"] and (state, plan)

    state, plan = until(planned, 15, "a plan that says what would be lost")
    figures = {node.position()[0] for node in trio.replicas}
    assert plan["refusal"] and plan["loss"]["after_txid"] == max(figures) <= tail
    # Its volume is readable and ahead: nothing is left behind without its name.
    accepted = {"accept_loss_after": plan["loss"]["after_txid"]}
    behind = [volume["name"] for volume in state["volumes"] if volume["ordinal"] == 0]
    if max(figures) < tail:
        assert behind[0] in promoted(trio, state, accepted)["refusal"]
    assert promoted(trio, state, accepted | {"give_up_volume": behind})["steps"]
    nothing_goes(state)


@pytest.fixture
def small_disk(make_cluster: MakeCluster) -> Iterator[tuple[Cluster, Node]]:
    """A cluster of two whose replica's volume is a tmpfs of 3 MB."""
    cluster = make_cluster(2)
    replica = cluster.replicas[0]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", replica.data], check=True)
    try:
        cluster.start()
        cluster.primary.create()
        cluster.wait_replicated()
        yield cluster, replica
    finally:
        replica.kill()
        replica.unmount()
        subprocess.run(["umount", "-l", replica.data], check=False)


def test_full_disk_of_a_replica(small_disk: tuple[Cluster, Node]) -> None:
    cluster, replica = small_disk
    recorded = cluster.primary.cluster_id()
    run_sql(cluster.primary, GROW)
    assert replica.exit_code(20) == 99
    state = document(cluster, recorded)
    assert sit.sign(state["pods"][1]) == "disk-full"
    plan = deciding.reset(state, [1])
    assert plan["refusal"] is None and plan["cause"] == "disk-full", "a new volume is a way out; the old one is kept"
    choice, _problem = backup.choose(state)
    assert choice and choice["pod"] == "abaci-app-0" and choice["at_primary"]
    # After space is made it recovers by itself, and there is nothing to reset.
    subprocess.run(["mount", "-o", "remount,size=64m", replica.data], check=True)
    replica.unmount()
    replica.start()
    cluster.wait_replicated(20)
    until(lambda: deciding.reset(document(cluster, recorded), [1])["steps"] == [], 10, "nothing to do")


def test_full_disk_of_the_primary_in_wal_mode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    primary = cluster.primary
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", primary.data], check=True)
    try:
        cluster.start()
        primary.create("wal")
        cluster.wait_replicated()
        recorded = primary.cluster_id()
        for _write in range(80):
            if primary.process is None or primary.process.poll() is not None:
                break
            run_sql(primary, GROW.replace("3000", "60"))
        assert primary.exit_code(20) == 99
        state = document(cluster, recorded)
        plan = deciding.reset(state, "mismatched")
        assert plan["refusal"] and plan["cause"] == "disk-full", plan
        figure = cluster.replicas[0].position()[0]
        behind = [volume["name"] for volume in state["volumes"] if volume["ordinal"] == 0]
        state = nobody_hears(cluster, recorded)
        moved = promoted(cluster, state, {"accept_loss_after": figure, "give_up_volume": behind})
        assert moved["cause"] == "disk-full" and [step["do"] for step in moved["steps"]][:2] == ["record", "stop"]
    finally:
        primary.kill()
        primary.unmount()
        subprocess.run(["umount", "-l", primary.data], check=False)


def test_split_brain(trio: Cluster) -> None:
    recorded = trio.primary.cluster_id()
    second = trio.replicas[0]
    second.kill()
    second.unmount()
    second.settings.candidate = "true"
    second.launch()
    until(lambda: second.info()["isPrimary"], 10, "a second primary")
    second.insert("only here")
    state = document(trio, recorded)
    nothing_goes(state)
    for plan in (deciding.reset(state, "mismatched"), deciding.promoted(state), deciding.restored(state, EVERY_FILE)):
        assert plan["refusal"] and plan["cause"] == "two-primaries", plan


def test_the_primary_is_an_older_copy(trio: Cluster, tmp_path: Path) -> None:
    """Connected replicas are rolled back at once without an error (0.5): the guard and this look come before that."""
    recorded = trio.primary.cluster_id()
    stop_primary(trio)
    old = tmp_path / "old"
    subprocess.run(["cp", "-a", trio.primary.data, old], check=True)
    start_primary(trio)
    trio.primary.wait_ready()
    trio.primary.insert("newer")
    trio.wait_replicated()
    for replica in trio.replicas:
        replica.kill()
        replica.unmount()
    stop_primary(trio)
    trio.primary.copy_volume(old)
    start_primary(trio)
    elsewhere = trio.primary.api
    trio.primary.api = 1  # the replicas do not reach it yet: they show what they have
    try:
        for replica in trio.replicas:
            replica.launch()
            replica.wait_up()
    finally:
        trio.primary.api = elsewhere
    state = document(trio, recorded)
    nothing_goes(state)
    for plan in (deciding.reset(state, [1]), deciding.scaled(state, 1), deciding.restored(state, EVERY_FILE)):
        assert plan["cause"] == "older-volume", plan
    choice, _problem = backup.choose(state)
    assert choice and choice["pod"] != "abaci-app-0", "a backup is taken from the best copy"


def test_replica_that_cannot_apply(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create("wal")
    cluster.wait_replicated()
    recorded, replica = cluster.primary.cluster_id(), cluster.replicas[0]
    run_sql(cluster.primary, "PRAGMA journal_mode=DELETE", "INSERT INTO records (body) VALUES ('x')")
    assert replica.exit_code() == 99
    state = document(cluster, recorded)
    plan = deciding.reset(state, [1])
    assert plan["refusal"] is None and plan["cause"] == "replica-cannot-apply" and plan["targets"] == [1]


def test_vacuum_in_wal_mode_ends_the_primary(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2).start()
    cluster.primary.create("wal")
    cluster.wait_replicated()
    recorded = cluster.primary.cluster_id()
    for statement in (GROW, "DELETE FROM records WHERE id > 3", "VACUUM"):
        run_sql(cluster.primary, statement)
    until(lambda: "fuse: panic in handler" in cluster.primary.log(), 10, "the panic")
    choice, _problem = backup.choose(document(cluster, recorded))
    assert choice and choice["pod"] == "abaci-app-1", "an export of the panicked primary would hang"
    stop_primary(cluster)
    # While it cannot start, or is kept from it, nothing is reset, and a replica can take over.
    state = document(cluster, recorded)
    plan = deciding.reset(state, "mismatched")
    assert plan["refusal"] and "does not run as primary" in plan["refusal"] and not plan["steps"]
    figure = cluster.replicas[0].position()[0]
    behind = [volume["name"] for volume in state["volumes"] if volume["ordinal"] == 0]
    moved = promoted(cluster, nobody_hears(cluster, recorded), {"accept_loss_after": figure, "give_up_volume": behind})
    assert moved["steps"], "a replica is at the last good transaction"


def test_stuck_replica_is_behind_and_a_reset_is_not_needed_once_its_transaction_ends(trio: Cluster) -> None:
    recorded, replica = trio.primary.cluster_id(), trio.replicas[0]
    with replica.database() as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM records").fetchall()
        trio.primary.insert("row 4")
        time.sleep(4)
        state = document(trio, recorded)
        choice, _problem = backup.choose(state)
        assert choice and choice["pod"] == "abaci-app-2", "a replica that is behind is not backed up"
        position = make.litefs.primary_position(state, DATABASE)
        assert position
        problems = make.litefs.replicated(state, position, DATABASE)["problems"]
        assert len(problems) == 1 and "behind the primary" in problems[0]
        assert sit.look(state).leader["name"] == "abaci-app-0"
        db.execute("COMMIT")
    trio.wait_replicated()
    assert deciding.reset(document(trio, recorded), [1, 2])["steps"] == []


@pytest.mark.parametrize("ordinal", [0, 1])
def test_kill_9_of_any_node_is_nothing_to_act_on_once_it_is_back(trio: Cluster, ordinal: int) -> None:
    recorded, node = trio.primary.cluster_id(), trio.nodes[ordinal]
    trio.primary.insert("before the kill")
    trio.wait_replicated()
    node.kill()
    state = document(trio, recorded)
    if ordinal == 0:
        nothing_goes(state)
    node.launch()
    node.wait_ready()
    trio.wait_replicated()
    until(lambda: all(direct.node(trio, n)["never_synced"] is False for n in (1, 2)), 10, "in sync")
    state = document(trio, recorded)
    assert deciding.reset(state, "mismatched")["steps"] == []
    assert deciding.promoted(state)["refusal"]
    assert trio.nodes[2].bodies()[-1] == "before the kill"


def test_a_healthy_cluster_is_backed_up_from_a_replica(trio: Cluster) -> None:
    state = document(trio, trio.primary.cluster_id())
    choice, problem = backup.choose(state)
    assert problem is None and choice and choice["at_primary"] and choice["pod"] in ("abaci-app-1", "abaci-app-2")


def test_fact_a_start_puts_a_wal_that_does_not_fit_aside_under_another_name_and_it_stays(
    make_cluster: MakeCluster,
) -> None:
    """So an export from the files tries the database without it and with it, and the checksum decides."""
    primary = make_cluster(1).start().primary
    primary.create("wal")
    for statement in (GROW, "DELETE FROM records WHERE id > 3", "VACUUM"):
        run_sql(primary, statement)
    until(lambda: "fuse: panic in handler" in primary.log(), 10, "the panic")
    primary.kill()
    primary.unmount()
    primary.start()
    names = {path.name for path in (primary.data / "dbs" / DATABASE).iterdir()}
    assert "wal.removed" in names and "wal" not in names, names
