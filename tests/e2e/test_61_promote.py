"""The primary's volume is gone: the role moves to the best replica, with at most the stated tail missing."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path

import operating as op
import pytest
from operating import operate, refused, without_registry
from sitebed import Bed, until
from writer import Writer, compare, list_records, read_ledger


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
    assert op.record(bed)["primaryOrdinal"] == "0"
    # The tail: the replicas hear nothing any more while the primary acknowledges three more writes. Its address stays
    # cut off, because the kernel sends what it had not delivered until the pod's network is gone.
    pod = bed.get("pod", "abaci-app-0", "-n", "abaci")
    node, address = pod["spec"]["nodeName"], pod["status"]["podIP"]
    replicas = [bed.get("pod", f"abaci-app-{number}", "-n", "abaci")["status"]["podIP"] for number in (1, 2)]
    cut = [rule for peer in replicas for rule in (("-s", address, "-d", peer), ("-s", peer, "-d", address))]
    for rule in cut:
        bed.node_exec(node, "iptables", "-I", "FORWARD", *rule, "-j", "DROP")
    op.post(bed, 3, "the tail")
    with_tail, tail = op.rows(bed, 0), op.positions(bed, (0,))[0]
    assert with_tail != rows
    more = int(tail[1], 16) - int(place[1], 16)
    lost = op.lose_volume(bed, 0)
    lost_volumes.append(lost)
    until(lambda: "refuses to start as primary" in op.guard_says(bed, 0), 180, "the guard holds pod-0")
    for rule in cut:
        bed.node_exec(node, "iptables", "-D", "FORWARD", *rule, "-j", "DROP")
    before = set(op.volumes(bed))

    # The old primary's volume is kept, readable and ahead: promote says so and does not go past it without a word.
    shown = operate(bed, "promote", "-e", f"promote_accept_loss_after={place[1]}", backups=backups)
    refused(shown, f"Volume {lost} is readable", f"{more} transactions more than", "bring it back first")
    assert op.record(bed)["primaryOrdinal"] == "0" and "fencedOrdinals" not in op.record(bed)
    left = ("-e", json.dumps({"promote_give_up_volume": [lost]}))
    shown = operate(bed, "promote", *left, backups=backups)
    refused(shown, f"at TXID {place[1]}", "is lost")
    figure = re.search(r"promote_accept_loss_after=([0-9a-f]{16})", shown.output)
    assert figure and figure[1] == place[1], "the figure is the best replica's position"
    refused(
        operate(bed, "promote", *left, "-e", "promote_accept_loss_after=yes", backups=backups), "give the figure back"
    )

    successor = away_from_the_api(bed)
    arguments = [*left, "-e", f"promote_accept_loss_after={figure[1]}", "-e", f"promote_successor={successor}"]
    # Nothing of the inventory is needed: what is wrong in it does not stop a run that has moved the record.
    arguments += [
        "-e",
        "app_tls=provided",
        "-e",
        "app_tls_certificate_file=/nowhere",
        "-e",
        "app_image=no.such/image:1",
    ]
    acts = op.until_done(bed, "promote", *arguments, backups=backups)
    print(acts)
    data = op.record(bed)
    assert data["primaryOrdinal"] != "0" and data["fencedOrdinals"] == "0" and data["clusterID"] == place[0]
    new = int(data["primaryOrdinal"])
    assert op.agree(bed, (1, 2), 120)[0] == place[0]
    assert op.rows(bed, new) == rows, "everything up to the stated transaction is there"
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "after"}').status == 201, 60, "writes again")
    assert before <= set(op.volumes(bed)), "no volume is gone"
    assert {one["pod"] for one in op.manifests(backups)} >= {"abaci-app-1", "abaci-app-2"}, "every copy was exported"
    assert op.volumes(bed)[lost] == "Released"

    site = bed.playbook("--tags", "app")
    assert site.rc == 0, site.output[-3000:]
    assert "abaci-app-0 is fenced" in site.output and "promote_to=0" in site.output
    assert op.record(bed)["primaryOrdinal"] == str(new) and op.record(bed)["fencedOrdinals"] == "0"


def test_an_old_primary_that_returns_is_fenced_until_its_database_is_exported(
    bed: Bed, backups: Path, lost_volumes: list[str]
) -> None:
    """As a replica, its unreplicated tail would be thrown away by a snapshot without a word."""
    from test_60_scale_and_reset import give_back

    lost = lost_volumes[-1]
    give_back(bed, lost)
    until(lambda: "is fenced" in op.guard_says(bed, 0), 180, "the old primary is fenced")
    op.agree(bed, (1, 2), 120)
    run = operate(bed, "replica_reset", "-e", "replica_reset_targets=[0]", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    saved = next(one for one in op.manifests(backups) if one.get("volume") == lost)
    assert saved["verified"] and saved["position_proven"]
    with sqlite3.connect(f"file:{backups / saved['file']}?mode=ro&immutable=1", uri=True) as db:
        tail = db.execute("SELECT count(*) FROM records WHERE body LIKE 'the tail-%'").fetchone()[0]
    assert tail == 3, "what only the old primary had is in the export"
    op.agree(bed, seconds=120)
    assert "fencedOrdinals" not in op.record(bed)
    assert lost in op.volumes(bed), "its volume is kept, too"


def away_from_the_api(bed: Bed) -> int:
    """The ordinal of a replica on an agent, whose node can be switched off while the API answers."""
    return next(n for n in (1, 2) if node_of(bed, n).startswith("agent-"))


def node_of(bed: Bed, ordinal: int) -> str:
    return str(bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")["spec"]["nodeName"])


def test_a_promote_that_only_began_is_called_off_when_the_node_comes_back(bed: Bed, backups: Path) -> None:
    primary = int(op.record(bed)["primaryOrdinal"])
    node = node_of(bed, primary)
    op.post(bed, 5, "before the call off")
    place, rows = op.agree(bed), op.rows(bed, primary)
    arguments = ("-e", f"promote_accept_loss_after={place[1]}", "-e", f"promote_node_off={node}")
    bed.power_off(node)
    try:
        until(lambda: not bed.ready(node), 120, "the API knows that the node is away")
        run = operate(bed, "promote", *arguments, backups=backups, interrupt="act")
        assert "INTERRUPTED after ['record ordinal" in run.output, run.output[-3000:]
        assert op.record(bed)["fencedOrdinals"] == str(primary)
    finally:
        bed.power_on(node)
    until(lambda: "is fenced" in op.guard_says(bed, primary), 300, "the old primary is fenced")
    run = operate(bed, "promote", "-e", "promote_call_off=true", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    data = op.record(bed)
    assert data["primaryOrdinal"] == str(primary) and not {"fencedOrdinals", "promote"} & set(data)
    assert op.agree(bed, seconds=120) == place and op.rows(bed, primary) == rows
    again = operate(bed, "promote", "-e", "promote_call_off=true", backups=backups)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "called off"}').status == 201, 60, "writes again")


def test_the_primarys_node_loses_its_power_and_comes_back(bed: Bed, backups: Path) -> None:
    """Ordinal 0 is primary again afterwards, as the other tests expect it."""
    primary = int(op.record(bed)["primaryOrdinal"])
    node, replicas = node_of(bed, primary), tuple({0, 1, 2} - {primary})
    op.post(bed, 10, "before the power cut")
    place, rows = op.agree(bed), op.rows(bed, primary)
    arguments = ("-e", f"promote_accept_loss_after={place[1]}", "-e", "promote_successor=0")
    bed.power_off(node)
    try:
        # The API calls the node Ready for 40 s more; nothing was heard from it for 15.
        time.sleep(20)
        refused(
            operate(bed, "promote", *arguments, backups=backups), "may still run and write", f"promote_node_off={node}"
        )
        until(lambda: not bed.ready(node), 120, "the API knows that the node is away")
        refused(
            operate(bed, "promote", *arguments, backups=backups), "may still run and write", f"promote_node_off={node}"
        )
        assert op.record(bed)["primaryOrdinal"] == str(primary)
        off = (*arguments, "-e", f"promote_node_off={node}")
        run = operate(bed, "promote", *off, backups=backups)
        assert run.rc == 0, run.output[-4000:]
        assert op.agree(bed, replicas, 120)[0] == place[0]
        assert [op.rows(bed, ordinal) for ordinal in replicas] == [rows] * 2
        again = operate(bed, "promote", *off, backups=backups)
        assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]
        op.post(bed, 1, "without the node")
    finally:
        bed.power_on(node)
    until(lambda: "is fenced" in op.guard_says(bed, primary), 300, "the old primary is fenced")
    run = operate(bed, "replica_reset", "-e", f"replica_reset_targets=[{primary}]", backups=backups)
    assert run.rc == 0, run.output[-4000:]
    assert op.agree(bed, seconds=120)[0] == place[0]
    assert op.record(bed)["primaryOrdinal"] == "0" and "fencedOrdinals" not in op.record(bed)
    # With the node back, the rolling update that it had held up goes on.
    bed.kubectl("rollout", "status", "sts/abaci-app", "-n", "abaci", "--timeout=240s", timeout=260)
    op.agree(bed, seconds=120)


def test_the_role_moves_as_planned_and_back_under_a_writer_and_nothing_is_lost(
    bed: Bed, backups: Path, tmp_path: Path
) -> None:
    op.agree(bed, seconds=120)
    assert op.record(bed)["primaryOrdinal"] == "0"
    ledger = tmp_path / "ledger"
    writer = Writer(bed.site(), ledger, seconds=900, rate=20).start()

    def goes_on() -> None:
        seen = writer.report().acknowledged
        until(lambda: writer.report().acknowledged > seen + 50, 60, "writes go on")

    for target in ("1", "0"):
        goes_on()
        run = operate(bed, "promote", "-e", f"promote_to={target}", backups=backups)
        assert run.rc == 0, run.output[-4000:]
        data = op.record(bed)
        assert data["primaryOrdinal"] == target and not {"fencedOrdinals", "promote"} & set(data)
    goes_on()
    report = writer.stop()
    print(f"planned move there and back: longest gap in acknowledged writes {report.longest_gap} s, {report}")
    assert report.empty_2xx == 0 and report.fly_replay == 0
    op.agree(bed, seconds=120)
    found = compare(*read_ledger(ledger), list_records(bed.site()))
    assert found["ok"], {key: value for key, value in found.items() if key != "missing"}
    again = operate(bed, "promote", "-e", "promote_to=0", backups=backups)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]


def test_hazard_while_the_registry_is_away_a_primary_that_is_well_stays_and_the_advice_is_a_way(
    bed: Bed, backups: Path
) -> None:
    op.agree(bed, seconds=120)
    with without_registry(bed):
        before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in bed.pods()}
        refused(operate(bed, "promote", "-e", "promote_to=1", backups=backups), "that fails now", "keel_action=freeze")
        assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in bed.pods()} == before
        assert op.record(bed)["primaryOrdinal"] == "0" and "promote" not in op.record(bed)
        for playbook, given in (("playbooks/keel.yml", ("-e", "keel_action=freeze")), ("site.yml", ())):
            run = bed.playbook(*given, playbook=playbook)
            assert run.rc == 0, run.output[-4000:]
        for target in ("1", "0"):
            run = operate(bed, "promote", "-e", f"promote_to={target}", backups=backups)
            assert run.rc == 0 and op.record(bed)["primaryOrdinal"] == target, run.output[-4000:]
    for playbook, given in (("playbooks/keel.yml", ("-e", "keel_action=thaw")), ("site.yml", ())):
        run = bed.playbook(*given, playbook=playbook)
        assert run.rc == 0, run.output[-4000:]
    op.agree(bed, seconds=120)
