"""The primary's volume is gone: the role moves to the best replica, with at most the stated tail missing."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import operating as op
import pytest
from operating import operate, refused
from sitebed import Bed, until


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("promote") / "backups"


@pytest.fixture(scope="module")
def lost_volumes() -> list[str]:
    """The volumes that primaries lost here, the newest last: other kept ones of ordinal 0 may stand beside them."""
    return []


def test_a_healthy_primary_is_not_replaced(bed: Bed, backups: Path) -> None:
    op.agree(bed)
    refused(operate(bed, "promote", backups=backups), "there is nothing to promote")


def test_the_volume_is_destroyed_with_an_unreplicated_tail_and_promote_brings_the_site_back(
    bed: Bed, backups: Path, lost_volumes: list[str]
) -> None:
    op.post(bed, 30, "before the loss")
    place, rows = op.agree(bed), op.rows(bed, 0)
    old = int(op.record(bed)["primaryOrdinal"])
    assert old == 0
    # The tail: the replicas hear nothing any more while the primary acknowledges three more writes.
    for replica in (1, 2):
        address = bed.get("pod", f"abaci-app-{replica}", "-n", "abaci")["status"]["podIP"]
        node = bed.get("pod", "abaci-app-0", "-n", "abaci")["spec"]["nodeName"]
        for direction in ("-s", "-d"):
            bed.node_exec(node, "iptables", "-I", "FORWARD", direction, address, "-j", "DROP")
    op.post(bed, 3, "the tail")
    with_tail = op.rows(bed, 0)
    assert with_tail != rows
    lost = op.lose_volume(bed, 0)
    lost_volumes.append(lost)
    for replica in (1, 2):
        address = bed.get("pod", f"abaci-app-{replica}", "-n", "abaci")["status"]["podIP"]
        for direction in ("-s", "-d"):
            bed.node_exec(node, "iptables", "-D", "FORWARD", direction, address, "-j", "DROP")
    until(lambda: "refuses to start as primary" in op.guard_says(bed, 0), 180, "the guard holds pod-0")
    before = set(op.volumes(bed))

    shown = operate(bed, "promote", backups=backups)
    refused(shown, f"at TXID {place[1]}", "is lost")
    figure = re.search(r"promote_accept_loss_after=([0-9a-f]{16})", shown.output)
    assert figure and figure[1] == place[1], "the figure is the best replica's position"
    refused(operate(bed, "promote", "-e", "promote_accept_loss_after=yes", backups=backups), "give the figure back")

    wish = ("-e", f"promote_accept_loss_after={figure[1]}", "-e", f"promote_successor={away_from_the_api(bed)}")
    acts = op.until_done(bed, "promote", *wish, backups=backups)
    print(acts)
    data = op.record(bed)
    assert data["primaryOrdinal"] != "0" and data["heldOrdinals"] == "0" and data["clusterID"] == place[0]
    new = int(data["primaryOrdinal"])
    assert op.agree(bed, (1, 2), 120)[0] == place[0]
    assert op.rows(bed, new) == rows, "everything up to the stated transaction is there"
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "after"}').status == 201, 60, "writes again")
    assert before <= set(op.volumes(bed)), "no volume is gone"
    assert {one["pod"] for one in op.manifests(backups)} >= {"abaci-app-1", "abaci-app-2"}, "every copy was exported"
    assert op.volumes(bed)[lost] == "Released"

    site = bed.playbook("--tags", "app", "-e", "app_rollout_timeout=20")
    assert op.record(bed)["primaryOrdinal"] == str(new), site.output[-2000:]


def test_an_old_primary_that_returns_is_held_until_its_database_is_exported(
    bed: Bed, backups: Path, lost_volumes: list[str]
) -> None:
    """As a replica, its unreplicated tail would be thrown away by a snapshot without a word."""
    from test_60_scale_and_reset import give_back

    lost = lost_volumes[-1]
    give_back(bed, lost)
    until(lambda: "is held back" in op.guard_says(bed, 0), 180, "the old primary is held back")
    op.agree(bed, (1, 2), 120)
    run = operate(bed, "replica_reset", "-e", "replica_reset_targets=[0]", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    saved = next(one for one in op.manifests(backups) if one.get("volume") == lost)
    assert saved["verified"] and saved["position_proven"]
    with sqlite3.connect(f"file:{backups / saved['file']}?mode=ro&immutable=1", uri=True) as db:
        tail = db.execute("SELECT count(*) FROM records WHERE body LIKE 'the tail-%'").fetchone()[0]
    assert tail == 3, "what only the old primary had is in the export"
    op.agree(bed, seconds=120)
    assert "heldOrdinals" not in op.record(bed)
    assert lost in op.volumes(bed), "its volume is kept, too"


def away_from_the_api(bed: Bed) -> int:
    """The ordinal of a replica on an agent, whose node can be switched off while the API answers."""
    return next(n for n in (1, 2) if node_of(bed, n).startswith("agent-"))


def node_of(bed: Bed, ordinal: int) -> str:
    return str(bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")["spec"]["nodeName"])


def test_the_primarys_node_loses_its_power_and_comes_back(bed: Bed, backups: Path) -> None:
    """Ordinal 0 is primary again afterwards, as the other tests expect it."""
    primary = int(op.record(bed)["primaryOrdinal"])
    node, replicas = node_of(bed, primary), tuple({0, 1, 2} - {primary})
    op.post(bed, 10, "before the power cut")
    place, rows = op.agree(bed), op.rows(bed, primary)
    wish = ("-e", f"promote_accept_loss_after={place[1]}", "-e", "promote_successor=0")
    bed.power_off(node)
    try:
        until(lambda: not bed.ready(node), 120, "the API knows that the node is away")
        refused(operate(bed, "promote", *wish, backups=backups), "may still run and write", f"promote_node_off={node}")
        assert op.record(bed)["primaryOrdinal"] == str(primary)
        off = (*wish, "-e", f"promote_node_off={node}")
        run = operate(bed, "promote", *off, backups=backups)
        assert run.rc == 0, run.output[-4000:]
        assert op.agree(bed, replicas, 120)[0] == place[0]
        assert [op.rows(bed, ordinal) for ordinal in replicas] == [rows] * 2
        again = operate(bed, "promote", *off, backups=backups)
        assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]
        op.post(bed, 1, "without the node")
    finally:
        bed.power_on(node)
    until(lambda: "is held back" in op.guard_says(bed, primary), 300, "the old primary is held back")
    run = operate(bed, "replica_reset", "-e", f"replica_reset_targets=[{primary}]", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    assert op.agree(bed, seconds=120)[0] == place[0]
    assert op.record(bed)["primaryOrdinal"] == "0" and "heldOrdinals" not in op.record(bed)
    # With the node back, the rolling update that it had held up goes on.
    bed.kubectl("rollout", "status", "sts/abaci-app", "-n", "abaci", "--timeout=240s", timeout=260)
    op.agree(bed, seconds=120)
