"""Every playbook of the operations, killed before each task that finds something changed: `make interrupts`.

Long, so not in `make test`. After each kill the same command is run again and has to come to its end with nothing lost.
tests/e2e/test_60 to 64 do the part next to the destructive calls, test_60 also at three points chosen by a printed
seed: `make test` runs test_60, `make operations` test_60 to 64.

Pairs: an operation is killed after each of its acts, and each time another one is run to its end before it goes on.
One alone: pytest tests/e2e/interrupts_all.py -k restore-replica_reset
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import asking
import operating as op
import pytest
from operating import operate
from sitebed import PLAYBOOK_TIMEOUT_S, ROOT, Bed, PlaybookRun, until


def standing(bed: Bed, backups: Path) -> tuple[object, ...]:
    """What an operation can have changed: objects, pods, volumes, positions, exports. The lock is a Lease, and ends."""
    objects = bed.get("statefulsets,configmaps,secrets,persistentvolumeclaims,jobs", "-n", "abaci")["items"]
    versions = {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in (*objects, *bed.get("persistentvolumes")["items"])
    }
    ready = {}
    for pod in bed.pods():
        if "deletionTimestamp" not in pod["metadata"] and all(
            status["ready"] for status in pod["status"].get("containerStatuses", [{"ready": False}])
        ):
            ready[int(pod["metadata"]["name"].rpartition("-")[2])] = pod["metadata"]["uid"]
    return versions, ready, op.positions(bed, tuple(sorted(ready))), sorted(str(path) for path in backups.rglob("*"))


def each_boundary(
    bed: Bed, playbook: str, prepare: Callable[[], tuple[str, ...]], check: Callable[[], None], backups: Path
) -> int:
    """Kill before each task that finds something changed, until a run ends by itself; the number of boundaries.

    A run pauses before each task. Where nothing differs from the start, a second run would begin from the same, so it
    goes on; else it dies there, the same command comes to its end, and the next run asks from the task after that one.
    For the cluster a run that pauses and one that was killed are the same: modules do not run between tasks, and what
    they left behind (a Job, a pod that ends) goes on in both cases.
    """

    def differs(start: tuple[object, ...]) -> bool:
        return standing(bed, backups) != start

    arguments, before, first, runs = prepare(), standing(bed, backups), 1, 0
    while True:
        run = asking.run(
            op.operation(bed, playbook, *arguments, backups=backups),
            op.INTERRUPTIBLE,
            ROOT,
            first,
            functools.partial(differs, before),
            PLAYBOOK_TIMEOUT_S,
        )
        runs += 1
        if not run.died:
            assert run.rc == 0, run.output[-4000:]
            check()
            boundaries = max(run.last, first - 1)
            print(f"{playbook}: {boundaries} boundaries, {runs - 1} of them with something to continue")
            return boundaries
        second = operate(bed, playbook, *arguments, backups=backups)
        assert second.rc == 0, (run.died, second.output[-4000:])
        check()
        arguments, before, first = prepare(), standing(bed, backups), run.died + 1


def same_rows(bed: Bed, rows: str) -> None:
    op.agree(bed, seconds=180)
    assert [op.rows(bed, ordinal) for ordinal in (0, 1, 2)] == [rows] * 3


def test_scale(bed: Bed, tmp_path: Path) -> None:
    rows = op.rows(bed, 0)

    def up() -> tuple[str, ...]:
        operate(bed, "scale", "-e", "scale_replicas=3", "-e", "scale_remove_volumes=true", backups=tmp_path)
        return ("-e", "scale_replicas=4")

    each_boundary(bed, "scale", up, lambda: same_rows(bed, rows), tmp_path)

    def down() -> tuple[str, ...]:
        operate(bed, "scale", "-e", "scale_replicas=4", backups=tmp_path)
        return ("-e", "scale_replicas=3", "-e", "scale_remove_volumes=true")

    each_boundary(bed, "scale", down, lambda: same_rows(bed, rows), tmp_path)


def test_backup(bed: Bed, tmp_path: Path) -> None:
    def whole() -> None:
        made = op.manifests(tmp_path)
        assert made and all(one["verified"] for one in made)
        for one in made:
            assert (tmp_path / one["file"]).stat().st_size == one["stored_size"]

    each_boundary(bed, "backup", tuple, whole, tmp_path)


def test_replica_reset(bed: Bed, tmp_path: Path) -> None:
    rows = op.rows(bed, 0)

    def prepare() -> tuple[str, ...]:
        op.mismatch(bed, 1)
        return ()

    each_boundary(bed, "replica_reset", prepare, lambda: same_rows(bed, rows), tmp_path)


def test_restore(bed: Bed, tmp_path: Path) -> None:
    assert operate(bed, "backup", backups=tmp_path).rc == 0
    (manifest,) = op.manifests(tmp_path)
    rows = op.rows(bed, 0)

    def prepare() -> tuple[str, ...]:
        op.post(bed, 3, "taken back")
        op.agree(bed)
        return ("-e", f"restore_from={tmp_path / manifest['file']}", *once_more(bed))

    each_boundary(bed, "restore", prepare, lambda: same_rows(bed, rows), tmp_path)


def test_promote(bed: Bed, tmp_path: Path) -> None:
    rows = op.rows(bed, 0)

    def prepare() -> tuple[str, ...]:
        place = op.agree(bed, seconds=180)
        primary = int(op.record(bed)["primaryOrdinal"])
        op.lose_volume(bed, primary)
        until(lambda: "refuses to start as primary" in op.guard_says(bed, primary), 180, "the guard holds it")
        return ("-e", f"promote_accept_loss_after={place[1]}")

    def check() -> None:
        fenced = op.record(bed)["fencedOrdinals"]
        run = operate(bed, "replica_reset", "-e", f"replica_reset_targets=[{fenced}]", backups=tmp_path)
        assert run.rc == 0, run.output[-4000:]
        same_rows(bed, rows)

    each_boundary(bed, "promote", prepare, check, tmp_path)


def test_rollout_and_rollback(bed: Bed, tmp_path: Path) -> None:
    rows = op.rows(bed, 0)

    def again() -> tuple[str, ...]:
        return ("-e", "rollout_restart=true", "-e", "rollout_backup=false")

    each_boundary(bed, "rollout", again, lambda: same_rows(bed, rows), tmp_path)

    def forward() -> tuple[str, ...]:
        assert operate(bed, "rollout", *again(), backups=tmp_path).rc == 0
        return ()

    each_boundary(bed, "rollback", forward, lambda: same_rows(bed, rows), tmp_path)


# Pairs


def once_more(bed: Bed) -> tuple[str, ...]:
    """The word by which the file of the last import is imported again."""
    imported = json.loads(op.record(bed).get("progress", "{}")).get("imported") or []
    return ("-e", f"restore_reimport={imported[-1]['txid']}") if imported else ()


def taken(bed: Bed, backups: Path) -> Path:
    """A backup made now."""
    assert operate(bed, "backup", backups=backups).rc == 0
    return (
        backups
        / max((one for one in op.manifests(backups) if one["reason"] == "backup"), key=lambda one: str(one["time"]))[
            "file"
        ]
    )


def begin_scale(bed: Bed, backups: Path) -> tuple[str, ...]:
    assert operate(bed, "scale", "-e", "scale_replicas=4", backups=backups).rc == 0
    return ("-e", "scale_replicas=3", "-e", "scale_remove_volumes=true")


def begin_replica_reset(bed: Bed, _backups: Path) -> tuple[str, ...]:
    op.mismatch(bed, 1)
    return ()


def begin_restore(bed: Bed, backups: Path) -> tuple[str, ...]:
    file = taken(bed, backups)
    op.post(bed, 3, "taken back")
    op.agree(bed)
    return ("-e", f"restore_from={file}")


def begin_promote(bed: Bed, _backups: Path) -> tuple[str, ...]:
    place = op.agree(bed, seconds=180)
    primary = int(op.record(bed)["primaryOrdinal"])
    op.lose_volume(bed, primary)
    until(lambda: "refuses to start as primary" in op.guard_says(bed, primary), 180, "the guard holds it")
    return ("-e", f"promote_accept_loss_after={place[1]}")


FIRST = {
    "scale": begin_scale,
    "replica_reset": begin_replica_reset,
    "restore": begin_restore,
    "promote": begin_promote,
}


def other_run(bed: Bed, name: str, backups: Path) -> PlaybookRun:
    """The operation in between, to its end: each does something where it may."""
    if name == "site":
        return bed.playbook("--tags", "app")
    if name == "scale":
        arguments = len(bed.pods()) + 1
        return operate(bed, "scale", "-e", f"scale_replicas={arguments}", backups=backups)
    if name == "restore":
        return operate(bed, "restore", "-e", f"restore_from={taken(bed, backups)}", backups=backups)
    return operate(bed, name, backups=backups)


OTHERS = ("backup", "scale", "replica_reset", "restore", "site")


# An operation between its own runs is what until_done() does.
@pytest.mark.parametrize(("first", "other"), [pair for pair in itertools.product(FIRST, OTHERS) if pair[0] != pair[1]])
def test_pair(bed: Bed, tmp_path: Path, first: str, other: str) -> None:
    arguments = FIRST[first](bed, tmp_path)
    acknowledged: list[str] = []
    for number in range(20):
        run = operate(bed, first, *arguments, backups=tmp_path, interrupt="act")
        act = re.search(r"INTERRUPTED after (\[.*?\])", run.output)
        if act is None:
            assert run.rc == 0, run.output[-4000:]
            break
        # With the old primary stopped nobody can write, and every other operation has to say so and change nothing.
        writable = first != "promote"
        if writable:
            op.post(bed, 2, f"{first}-{other}-{number}")
            acknowledged.append(f"{first}-{other}-{number}")
        between = other_run(bed, other, tmp_path)
        print(f"{first} killed after {act[1]}; {other}: rc {between.rc}")
        assert between.rc == 0 or not writable, between.output[-4000:]
    else:
        raise AssertionError(f"{first} does not end")
    assert acknowledged or first == "promote"
    fenced = op.record(bed).get("fencedOrdinals", "")
    if fenced:
        reset = operate(bed, "replica_reset", "-e", f"replica_reset_targets=[{fenced}]", backups=tmp_path)
        assert reset.rc == 0, reset.output[-4000:]
    back = operate(bed, "scale", "-e", "scale_replicas=3", "-e", "scale_remove_volumes=true", backups=tmp_path)
    assert back.rc == 0, back.output[-4000:]
    op.agree(bed, seconds=180)
    for ordinal in (0, 1, 2):
        for prefix in acknowledged:
            query = f"select count(*) from records where body in ('{prefix}-0', '{prefix}-1')"
            assert bed.rows(f"abaci-app-{ordinal}", query) == "2", (ordinal, prefix)
    assert first not in json.loads(op.record(bed).get("progress", "{}")), "it is finished"
