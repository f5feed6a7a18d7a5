"""A replica's node loses its power: each operation ends, with what it did and what it left. And a primary that crashes.

The tests go in their order: the node is off from the first on, and comes back before the last.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import operating as op
import pytest
from operating import operate, refused
from sitebed import Bed, PlaybookRun, until

GRACE_S = 45  # after which Kubernetes says that a node is away


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dead") / "backups"


def node_of(bed: Bed, ordinal: int) -> str:
    return str(bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")["spec"]["nodeName"])


@dataclass(frozen=True)
class Dead:
    """The replica whose node is off."""

    ordinal: int
    node: str

    @property
    def living(self) -> tuple[int, ...]:
        return tuple(n for n in (0, 1, 2) if n != self.ordinal)


@pytest.fixture(scope="module")
def dead(bed: Bed) -> Iterator[Dead]:
    """The API's server and the primary are elsewhere."""
    op.agree(bed, seconds=120)
    assert op.record(bed)["primaryOrdinal"] == "0"
    ordinal = next(n for n in (1, 2) if node_of(bed, n) not in ("server-0", node_of(bed, 0)))
    node = node_of(bed, ordinal)
    bed.power_off(node)
    try:
        until(lambda: not bed.ready(node), GRACE_S + 60, "the API knows that the node is away")
        yield Dead(ordinal, node)
    finally:
        bed.power_on(node)
        until(lambda: bed.ready(node), 180, "the node is back")


def timed(bed: Bed, playbook: str, *arguments: str, backups: Path) -> tuple[PlaybookRun, float]:
    began = time.monotonic()
    run = operate(bed, playbook, *arguments, backups=backups)
    seconds = time.monotonic() - began
    print(f"{playbook} {' '.join(arguments)}: rc {run.rc} after {seconds:.0f} s")
    return run, seconds


def test_backup_takes_a_copy_that_answers(bed: Bed, dead: Dead, backups: Path) -> None:
    op.post(bed, 5, "before the node died")
    run, seconds = timed(bed, "backup", backups=backups)
    assert run.rc == 0 and seconds < 180, run.output[-3000:]
    assert op.manifests(backups)[0]["pod"] != f"abaci-app-{dead.ordinal}"


def test_scale_down_stops_no_copy_that_runs_while_the_dead_one_stays(bed: Bed, dead: Dead, backups: Path) -> None:
    up, seconds = timed(bed, "scale", "-e", "scale_replicas=4", backups=backups)
    assert up.rc == 0 and seconds < 300, up.output[-3000:]
    assert f"Nobody waits for abaci-app-{dead.ordinal}" in up.output
    no, seconds = timed(bed, "scale", "-e", "scale_replicas=3", backups=backups)
    refused(no, f"abaci-app-{dead.ordinal} is on node {dead.node}, which is away", "would stop abaci-app-3, which runs")
    assert seconds < 120 and len(bed.pods()) == 4, "nothing was stopped"
    word = json.dumps({"scale_replicas": 3, "scale_lost_replicas": [dead.ordinal]})
    down, seconds = timed(bed, "scale", "-e", word, backups=backups)
    assert down.rc == 0 and seconds < 300, down.output[-3000:]
    assert f"Nobody waits for abaci-app-{dead.ordinal}" in down.output and len(bed.pods()) == 3


def test_site_yml_rolls_the_living_ones_and_comes_to_its_end(bed: Bed, dead: Dead) -> None:
    began = time.monotonic()
    run = bed.playbook("--tags", "app", "-e", '{"app_env": {"SINCE": "the node died"}}')
    print(f"site.yml: rc {run.rc} after {time.monotonic() - began:.0f} s")
    words = " ".join(run.output.split())
    assert run.rc == 0, run.output[-4000:]
    assert f"abaci-app-{dead.ordinal}" in words and "replica_reset_node_off" in words
    for ordinal in dead.living:
        assert "SINCE=the node died" in bed.in_pod(f"abaci-app-{ordinal}", "env"), ordinal
    assert bed.get("sts", "abaci-app", "-n", "abaci")["spec"]["updateStrategy"]["type"] == "RollingUpdate"


def test_restore_goes_on_without_it(bed: Bed, dead: Dead, backups: Path) -> None:
    source = backups / next(one["file"] for one in op.manifests(backups) if one["reason"] == "backup")
    op.post(bed, 3, "after the backup")
    run, seconds = timed(bed, "restore", "-e", f"restore_from={source}", backups=backups)
    assert run.rc == 0 and seconds < 300, run.output[-3000:]
    assert len({op.rows(bed, ordinal) for ordinal in dead.living}) == 1


def test_replica_reset_needs_the_word_that_the_node_is_off(bed: Bed, dead: Dead, backups: Path) -> None:
    node, kept = dead.node, set(op.volumes(bed))
    targets = ("-e", f"replica_reset_targets=[{dead.ordinal}]")
    no, seconds = timed(bed, "replica_reset", *targets, backups=backups)
    refused(no, f"on node {node}, which is away", f"replica_reset_node_off={node}")
    assert seconds < 120
    run, seconds = timed(bed, "replica_reset", *targets, "-e", f"replica_reset_node_off={node}", backups=backups)
    assert run.rc == 0 and seconds < 400, run.output[-4000:]
    assert node_of(bed, dead.ordinal) != node and kept < set(op.volumes(bed)), "the old volume is kept"
    op.agree(bed, seconds=60)
    again, _seconds = timed(bed, "replica_reset", *targets, "-e", f"replica_reset_node_off={node}", backups=backups)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-3000:]


def test_with_the_node_back_the_site_is_whole(bed: Bed, dead: Dead) -> None:
    bed.power_on(dead.node)
    until(lambda: bed.ready(dead.node), 240, "the node is back")
    run = bed.playbook("--tags", "app")
    assert run.rc == 0, run.output[-4000:]
    op.agree(bed, seconds=120)
    second = bed.playbook("--tags", "app")
    assert second.rc == 0 and second.total("changed") == 0, second.output[-4000:]


@pytest.mark.parametrize("crashing", [150])
def test_after_a_failed_migration_the_good_one_brings_writes_back_at_once(bed: Bed, crashing: int) -> None:
    """The primary sits in the kubelet's back-off, which grows to 5 minutes; it does not wait for that."""
    op.post(bed, 1, "before the migration")
    broken = bed.playbook("--tags", "app", "-e", "app_migrate_command='sh /nowhere/migrate.sh'")
    words = " ".join(broken.output.split())
    assert broken.rc != 0 and "ends again and again" in words and "Its last lines:" in words, broken.output[-3000:]
    print(words[words.index("ends again and again") :][:600])
    time.sleep(crashing)
    generation = bed.get("sts", "abaci-app", "-n", "abaci")["metadata"]["generation"]
    seen: dict[str, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set() and "back" not in seen:
            sts = bed.get("sts", "abaci-app", "-n", "abaci")
            if "applied" not in seen and sts["metadata"]["generation"] != generation:
                seen["applied"] = time.monotonic()
            if bed.edge("POST", "/api/records", b'{"body": "after"}', timeout=5).status == 201:
                seen["back"] = time.monotonic()
            stop.wait(0.5)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        good = bed.playbook("--tags", "app")
    finally:
        stop.set()
        thread.join()
    assert good.rc == 0, good.output[-4000:]
    print(f"writes are back {seen['back'] - seen['applied']:.1f} s after the good configuration was applied")
    assert seen["back"] - seen["applied"] <= 30
    op.agree(bed, seconds=120)
