"""The modules' main() on an API that is away, slow, in conflict, or somebody else's."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, backup, holding
from ansible_collections.abaci.infra.plugins.modules import (
    backup_file,
    litefs_backup,
    litefs_info,
    operation,
    operation_lock,
    volume_export,
)
from fake_api import Cluster, database, run
from playing import DATABASE, ME, WHERE, described, lease, operate

OTHER = "bob@desk+00000000/7"
LOCK = {**WHERE, "holder": ME, "operation": "scale"}


@pytest.fixture
def api() -> Cluster:
    return Cluster(content=database("one"))


def held_by(api: Cluster, holder: str, seconds_ago: float = 60) -> None:
    """The lock in somebody's hand, renewed so long ago by the server's clock."""
    when = (api.time() - datetime.timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 900, "acquireTime": when, "renewTime": when}
    api.put({"kind": "Lease", "metadata": {"name": "abaci-app-operation"}, "spec": spec})


# litefs_info: what every decision is made on


@pytest.mark.parametrize("how", ["timeout", "half", 503])
@pytest.mark.parametrize("kind", ["", "StatefulSet", "ConfigMap", "PersistentVolume", "Pod"])
def test_hazard_an_api_that_does_not_answer_is_never_an_empty_cluster(api: Cluster, how: Any, kind: str) -> None:
    api.fail("GET", kind, how=how)
    answer = run(litefs_info, api, **DATABASE)
    assert answer["failed"] and "state" not in answer
    assert run(litefs_info, api, **DATABASE)["state"]["statefulset"]["exists"]


def test_hazard_an_api_that_is_away_for_one_look_is_never_an_empty_cluster(api: Cluster) -> None:
    api.away()
    assert run(litefs_info, api, **DATABASE)["failed"]
    assert run(litefs_info, api, **DATABASE)["state"]["record"]["state"] == "recorded"


def test_only_a_check_run_goes_on_without_a_cluster_and_says_so(api: Cluster) -> None:
    api.away()
    answer = run(litefs_info, api, check=True, **DATABASE)
    assert "does not answer" in answer["state"]["api"]["error"] and not answer["state"]["statefulset"]["exists"]
    api.fail("GET", "StatefulSet", how=500)
    assert run(litefs_info, api, check=True, **DATABASE)["failed"], "it answers, and badly"


# operation_lock


@pytest.mark.parametrize("seconds", [0, 60, 239])
def test_hazard_a_lock_that_ends_between_two_renewals_is_refused(api: Cluster, seconds: int) -> None:
    """Somebody else would take it in the middle of an act."""
    answer = run(operation_lock, api, **LOCK, seconds=seconds)
    assert answer["failed"] and f"operation_lock_seconds is {seconds}, and has to be at least 240" in answer["msg"]
    assert api.changes() == []
    assert run(operation_lock, api, **LOCK, seconds=240)["holder"] == ME
    assert 4 * holding.PAUSE <= 240


@pytest.mark.parametrize("clock_ahead", [-7200, 0, 7200])
def test_a_living_lock_is_refused_and_one_that_ended_is_taken_whatever_this_machines_clock_says(
    clock_ahead: float,
) -> None:
    api = Cluster(clock_ahead=clock_ahead)
    held_by(api, OTHER, 60)
    refused = run(operation_lock, api, **LOCK)
    assert refused["failed"] and OTHER in refused["msg"] and f"operation_take_over={OTHER}" in refused["msg"]
    assert lease(api)["spec"]["holderIdentity"] == OTHER
    held_by(api, OTHER, 901)
    assert run(operation_lock, api, **LOCK)["holder"] == ME
    renewed = datetime.datetime.fromisoformat(lease(api)["spec"]["renewTime"])
    assert abs((renewed - api.time()).total_seconds()) < 3


@pytest.mark.parametrize(("process", "free"), [(os.getpid(), False), (4194305, True)], ids=["lives", "is dead"])
def test_a_process_of_this_machine_keeps_its_lock_while_it_lives(api: Cluster, process: int, free: bool) -> None:
    held_by(api, f"ann@ops+c0ffee00/{process}")
    assert bool(run(operation_lock, api, **LOCK).get("failed")) is not free


def test_what_somebody_else_took_over_is_neither_given_back_nor_renewed(api: Cluster) -> None:
    held_by(api, OTHER)
    before = json.dumps(lease(api))
    answer = run(operation_lock, api, **LOCK, state="released")
    assert answer["holder"] == OTHER and not answer.get("failed")
    assert run(operation_lock, api, **LOCK, state="renewed")["failed"]
    assert json.dumps(lease(api)) == before and api.changes() == []


def test_the_lock_is_taken_renewed_and_given_back_with_two_lines_in_the_audit_log(api: Cluster) -> None:
    assert run(operation_lock, api, **LOCK)["holder"] == ME
    assert not run(operation_lock, api, **LOCK, state="renewed").get("failed")
    assert run(operation_lock, api, **LOCK, state="released", result="done")["holder"] == ""
    assert "holderIdentity" not in lease(api)["spec"]
    log = (api.have("ConfigMap", "abaci-app-audit") or {})["data"]["log"].splitlines()
    assert [(line["event"], line["result"]) for line in map(json.loads, log)] == [("begun", ""), ("ended", "done")]


def test_a_run_without_audit_leaves_no_line_and_a_check_run_nothing(api: Cluster) -> None:
    assert run(operation_lock, api, check=True, **LOCK)["holder"] == ME
    assert api.changes() == []
    for state in ("held", "released"):
        run(operation_lock, api, **LOCK, state=state, audit=False)
    assert api.have("ConfigMap", "abaci-app-audit") is None


def test_two_who_take_it_at_one_moment_are_told_apart(api: Cluster) -> None:
    held_by(api, OTHER, 901)
    api.fail("PUT", "Lease", how=409)
    assert "at this very moment" in run(operation_lock, api, **LOCK)["msg"]
    api.fail("GET", "Lease", how="timeout")
    assert "does not answer" in run(operation_lock, api, **LOCK)["msg"]


def test_in_a_namespace_that_does_not_exist_there_is_nothing_to_lock(api: Cluster) -> None:
    api.fail("POST", "Lease", how=404)
    answer = run(operation_lock, api, **LOCK)
    assert not answer.get("failed") and answer["holder"] == ""


# operation, and the steps that cannot be undone


def test_an_operation_without_the_lock_does_nothing(api: Cluster) -> None:
    held_by(api, OTHER)
    about = {**DATABASE, "operation": "scale", "parameters": {"replicas": 2, "remove_volumes": False}, "act": True}
    answer = run(operation, api, **about, holder=ME)
    assert answer["failed"] and f"held by {OTHER}" in answer["msg"]
    assert api.changes() == []


def test_a_check_run_says_what_would_be_done_and_does_nothing(api: Cluster, tmp_path: Path) -> None:
    about = {**DATABASE, "operation": "scale", "parameters": {"replicas": 2, "remove_volumes": False}}
    answer = run(operation, api, check=True, **about)
    assert answer["changed"] and "scale down from 3 to 2" in answer["said"][0] and api.changes() == []
    answer = run(litefs_backup, api, check=True, **DATABASE, directory=str(tmp_path / "new"))
    assert answer["changed"] and not (tmp_path / "new").exists()
    assert answer["said"] == [f"Taken from that pod because {answer['why']}."]


def test_done_is_proven_a_replica_that_is_behind_fails_the_run(api: Cluster, tmp_path: Path) -> None:
    api.node(2).follows, api.node(2).txid = None, 4
    ended = operate(api, "scale", {"replicas": 3, "remove_volumes": False}, tmp_path)
    assert ended.rc != 0 and "abaci-app-2 is at TXID 0000000000000004" in ended.msg


def test_a_replica_of_another_history_fails_the_proof(api: Cluster, tmp_path: Path) -> None:
    api.node(2).follows, api.node(2).checksum = None, "bad0000000000000"
    ended = operate(api, "scale", {"replicas": 3, "remove_volumes": False}, tmp_path)
    assert ended.rc != 0 and "abaci-app-2" in ended.msg


def importing(api: Cluster, path: Path, **changed: Any) -> tuple[act.Site, dict[str, Any], dict[str, Any]]:
    path.write_bytes(database("restored"))
    held_by(api, ME)
    one = {"pod": "abaci-app-0", "cluster_id": make.A, "exported": None} | changed
    site = act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)
    return site, one, described(path)


def do_import(site: act.Site, one: dict[str, Any], file: dict[str, Any]) -> str:
    return deciding.do(site, {"do": "import", **one}, ME, file=file)


@pytest.mark.parametrize(
    ("changed", "content", "words"),
    [
        ({}, database("another"), "changed since it was checked"),
        ({}, b"", "is no SQLite database"),
        ({"pod": "abaci-app-1"}, None, "is not the one primary any more"),
        ({"cluster_id": make.B}, None, "holds another cluster"),
    ],
)
def test_hazard_only_the_file_that_was_checked_goes_into_the_primary_that_was_decided_on(
    api: Cluster, tmp_path: Path, changed: dict[str, Any], content: bytes | None, words: str
) -> None:
    path = tmp_path / "a.sqlite"
    site, one, file = importing(api, path, **changed)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(act.NotDone, match=words):
        do_import(site, one, file)
    assert api.node(0).imported == [] and "progress" not in api.record()


def test_hazard_a_run_whose_lock_was_taken_over_while_it_read_the_file_imports_nothing(
    api: Cluster, tmp_path: Path
) -> None:
    site, one, file = importing(api, tmp_path / "a.sqlite")
    held_by(api, OTHER)
    with pytest.raises(act.NotDone, match=f"held by {re.escape(OTHER)}"):
        do_import(site, one, file)
    assert api.node(0).imported == [] and "progress" not in api.record()


def test_what_was_written_between_export_and_import_is_counted(api: Cluster, tmp_path: Path) -> None:
    site, one, file = importing(api, tmp_path / "a.sqlite", exported=f"{5:016x}")
    api.node(0).write()
    api.node(0).write()
    said = do_import(site, one, file)
    assert "the 2 transactions after 0000000000000005" in said and "1 rows in records" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"primary": False}, "is not the one primary"),
        ({"cluster": None}, "is not the one primary with a cluster id"),
        ({"checksum": "bad0000000000000"}, "does not hold the restored content"),
    ],
)
def test_only_the_restored_content_is_recorded(api: Cluster, change: dict[str, Any], words: str) -> None:
    api.record()["state"] = "restore"
    site = act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)
    file = {"imported_checksum": api.node(0).checksum}
    for key, value in change.items():
        setattr(api.node(0), key, value)
    with pytest.raises(act.NotDone, match=words):
        deciding.do(site, {"do": "record_id", "ordinal": 0}, file=file)
    assert api.changes() == []


def test_a_failed_wait_after_the_import_leaves_it_recorded(api: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(database("restored"))
    file = described(path) | {"cluster_id": make.A}

    def stuck(request: Any) -> None:
        if request.path.startswith("/import"):
            api.node(1).follows, api.node(1).txid = None, 4

    api.after.append(stuck)
    parameters = {"overwrite_cluster_id": "", "lost_volumes": [], "reimport": ""}
    first = operate(api, "restore", parameters, tmp_path, file=file)
    assert first.rc != 0 and "abaci-app-1" in first.msg
    assert "holderIdentity" not in lease(api)["spec"], "the lock is given back"
    api.node(0).write(database("restored", "acknowledged"))
    api.node(1).follows = api.node(0)
    assert operate(api, "restore", parameters, tmp_path, file=file).rc == 0
    assert len(api.node(0).imported) == 1


# backup_file: which backup of a folder


def stored(folder: Path, name: str, **changed: Any) -> None:
    """A backup as litefs_backup keeps it."""
    folder.mkdir(exist_ok=True)
    content = database(name)
    (folder / f"{name}.sqlite").write_bytes(content)
    facts = described(folder / f"{name}.sqlite")
    manifest = {key: facts[key] for key in ("sha256", "checksum", "page_size", "pages", "journal_mode")} | {
        "schema": 1,
        "time": "2026-01-01T00:00:00Z",
        "reason": "backup",
        "verified": True,
        "size": len(content),
        "file": f"{name}.sqlite",
        "namespace": make.NAMESPACE,
        "statefulset": make.NAME,
        "database": make.DATABASE,
        "cluster_id": make.A,
        "txid": f"{3:016x}",
    }
    (folder / f"{name}.manifest.json").write_text(json.dumps(manifest | changed))


OWN = {**WHERE, "database": make.DATABASE}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"namespace": "other"}, "it is of the namespace other"),
        ({"statefulset": "shop"}, "it is of the statefulset shop"),
        ({"database": "b.db"}, "it is of the database b.db"),
        ({"cluster_id": make.B}, "it is of the cluster LFSCB"),
        ({"verified": False}, "does not say that it was verified"),
        ({"size": 5}, "not as long as its manifest says"),
        ({"file": "gone.sqlite"}, "is missing"),
        ({"time": "2099-01-01T00:00:00Z"}, "later than now"),
        ({"time": "yesterday"}, "no time at all"),
    ],
)
def test_of_a_folder_only_this_applications_sound_newest_backup_is_taken_and_what_was_passed_over_is_said(
    api: Cluster, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    folder = tmp_path / "shared"
    stored(folder, "own")
    stored(folder, "newer", **{"time": "2026-02-01T00:00:00Z"} | changed)
    stored(folder, "exported", time="2026-03-01T00:00:00Z", reason="before restore")
    answer = run(backup_file, api, path=str(folder), **OWN)
    assert answer["file"]["path"].endswith("own.sqlite") and answer["file"]["verified"]
    assert "own.sqlite of 2026-01-01T00:00:00Z was taken" in answer["said"][0]
    assert why in answer["said"][1] and len(answer["said"]) == 2
    (folder / "own.manifest.json").unlink()
    answer = run(backup_file, api, path=str(folder), **OWN)
    assert answer["failed"] and "name a file" in answer["msg"] and why in answer["msg"]


@pytest.mark.parametrize(
    ("time", "taken"),
    [("2026-03-01T12:04:59Z", True), ("2026-03-01T12:05:01Z", False), ("2026-03-02T00:00:00Z", False)],
)
def test_a_clock_may_have_been_ahead_by_minutes_and_not_by_hours(time: str, taken: bool) -> None:
    """What was stamped by a wrong clock would be the newest for a year, and its rows are of who knows when."""
    own = {"namespace": make.NAMESPACE, "statefulset": make.NAME, "database": make.DATABASE}
    there = {
        "reason": "backup",
        "verified": True,
        "whole": True,
        "cluster_id": make.A,
        "file": "a",
        "time": time,
        **own,
    }
    found, passed = backup.newest([there], own, make.A, "2026-03-01T12:00:00Z")
    assert (found is not None, passed == []) == (taken, taken)


def test_the_newest_of_its_own_is_taken_though_this_machines_clock_is_behind(tmp_path: Path) -> None:
    api = Cluster(clock_ahead=7200)
    soon = (api.time() - datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    stored(tmp_path / "f", "older")
    stored(tmp_path / "f", "new", time=soon)
    assert run(backup_file, api, path=str(tmp_path / "f"), **OWN)["file"]["path"].endswith("new.sqlite")


def test_a_strangers_backup_is_refused_without_the_word_that_would_import_it(api: Cluster, tmp_path: Path) -> None:
    stored(tmp_path / "f", "shop", statefulset="shop", cluster_id=make.B)
    file = described(tmp_path / "f/shop.sqlite")
    ended = operate(
        api, "restore", {"overwrite_cluster_id": "", "lost_volumes": [], "reimport": ""}, tmp_path, file=file
    )
    assert ended.rc != 0 and "another application (statefulset shop)" in ended.msg
    assert "restore_overwrite_cluster_id" not in ended.msg


def test_hazard_a_volume_whose_litefs_runs_is_not_copied_beneath_it(api: Cluster, tmp_path: Path) -> None:
    asked = {**OWN, "claim_template": "litefs-data", "port": 20202, "image": "busybox", "ordinals": [1]}
    answer = run(volume_export, api, **asked, directory=str(tmp_path))
    assert answer["failed"] and "LiteFS runs in pod abaci-app-1: export it with litefs_backup" in answer["msg"]
    assert not api.changes() and list(tmp_path.iterdir()) == []
