"""What an operation may not do twice is recorded: neither time nor a clock nor another operation removes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, act, holding, planning, runner
from ansible_collections.abaci.infra.plugins.module_utils.operations import progress as progress_of
from ansible_collections.abaci.infra.plugins.modules import operation
from fake_api import Cluster, database, run
from playing import DATABASE, ME, described, lease, operate

BACKUP = database("as it was backed up")
AGAIN = {"overwrite_cluster_id": "", "lost_volumes": [], "reimport": ""}


@pytest.fixture
def file(tmp_path: Path) -> dict[str, Any]:
    """A backup of the site's cluster."""
    path = tmp_path / "sqlite.db.20260101T000000Z.abaci-app-1.0000000000000003.sqlite"
    path.write_bytes(BACKUP)
    facts = described(path)
    return facts | {"cluster_id": make.A, "txid": f"{3:016x}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def site(**options: Any) -> Cluster:
    """A site that went on after the backup was taken."""
    return Cluster(content=database("as it was backed up", "and more"), **options)


def mismatch(api: Cluster, ordinal: int) -> None:
    api.node(ordinal).cluster = make.B


def written_since(api: Cluster) -> bytes:
    """Clients write, and are told that it is kept."""
    content = database("as it was backed up", "acknowledged")
    api.node(0).write(content)
    return content


def progress(api: Cluster) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(api.record().get("progress") or "{}")
    return kept


def test_a_replica_of_another_cluster_is_left_out_of_a_restore_which_ends_well(
    file: dict[str, Any], folder: Path
) -> None:
    api = site()
    mismatch(api, 2)
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc == 0, ended.msg
    assert any("abaci-app-2 holds the cluster" in line and "replica_reset.yml" in line for line in ended.said)
    assert api.node(1).checksum == api.node(0).checksum == file["imported_checksum"]


@pytest.mark.parametrize("between", ["nothing", "replica_reset", "scale", "hours", "a clock behind", "another machine"])
def test_what_clients_wrote_after_an_import_is_there_after_the_same_restore_again(
    file: dict[str, Any], folder: Path, between: str
) -> None:
    """The run died, or failed, after its import; clients write; whatever lies between, it is not imported again."""
    api = site()
    mismatch(api, 2)
    operate(api, "restore", AGAIN, folder, file=file, killed=lambda answer: "import" in str(answer.get("did")))
    assert len(api.node(0).imported) == 1
    acknowledged = written_since(api)
    me = ME
    if between == "replica_reset":
        ended = operate(api, "replica_reset", {"targets": [2], "lost_volumes": []}, folder)
        assert ended.rc == 0, ended.msg
        assert any("restore is not finished" in line for line in ended.said), "it says what another had begun"
        assert "replica_reset" not in progress(api) and "restore" in progress(api)
    elif between == "scale":
        assert operate(api, "scale", {"replicas": 2, "remove_volumes": False}, folder).rc == 0
    elif between == "hours":
        api.clock_ahead += 7 * 3600
    elif between == "a clock behind":
        api.clock_ahead -= 3600
    elif between == "another machine":
        me, api.clock_ahead = "bob@desk+00000000/7", 3600
    ended = operate(api, "restore", AGAIN, folder, file=file, me=me)
    assert ended.rc == 0, ended.msg
    assert len(api.node(0).imported) == 1 and api.node(0).content == acknowledged
    assert any("it is not imported again" in line for line in ended.said)
    assert "restore" not in progress(api), "it is finished"


def test_a_restore_that_ended_is_not_done_again_by_the_same_command(file: dict[str, Any], folder: Path) -> None:
    api = site()
    assert operate(api, "restore", AGAIN, folder, file=file).rc == 0
    acknowledged = written_since(api)
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc != 0 and "restore_reimport=0000000000000006" in ended.msg
    assert api.node(0).content == acknowledged
    word = AGAIN | {"reimport": f"{6:016x}"}
    assert operate(api, "restore", word, folder, file=file).rc == 0
    assert len(api.node(0).imported) == 2 and api.node(0).content == BACKUP
    acknowledged = written_since(api)
    assert operate(api, "restore", word, folder, file=file).rc != 0, "the word is good for once"
    assert api.node(0).content == acknowledged


def test_a_restore_that_is_called_off_by_name_keeps_only_its_import(file: dict[str, Any], folder: Path) -> None:
    api = site()
    operate(api, "restore", AGAIN, folder, file=file, killed=lambda answer: "import" in str(answer.get("did")))
    acknowledged = written_since(api)
    ended = operate(api, "restore", AGAIN, folder, call_off=True, me="eve@desk+00000000/9", timeout=1)
    assert ended.rc != 0 and "is at work here" in ended.msg, "the dead run's lock is asked for"
    lease(api)["spec"].pop("holderIdentity")
    ended = operate(api, "restore", AGAIN, folder, call_off=True)
    assert ended.rc == 0 and "is called off" in ended.did[0]
    assert "restore" not in progress(api)
    assert operate(api, "restore", AGAIN, folder, file=file).rc != 0
    assert api.node(0).content == acknowledged
    assert "nothing was called off" in operate(api, "restore", AGAIN, folder, call_off=True).did[0]


def test_a_promote_that_is_forgotten_by_name_is_still_said_to_be_under_way(folder: Path) -> None:
    """Its progress is not what stands between the successor and the role: that is the record itself."""
    api = site()
    before = {"from": 0, "fenced": [], "planned": False, "equal": False, "archive": f"{9:016x}", "also": {}}
    data = api.have("ConfigMap", "abaci-app-litefs-identity")["data"]
    data |= {"primaryOrdinal": "1", "fencedOrdinals": "0", "promote": json.dumps(before)}
    data["progress"] = json.dumps({"promote": {"begun": "2026-01-01T00:00:00Z", "holder": ME}})
    api.node(0).running = False
    (said,) = operate(api, "promote", {}, folder, call_off=True).did
    assert "is called off" in said and "-e promote_call_off=true" in said, said


def test_nothing_is_forgotten_by_a_run_that_lost_the_lock(file: dict[str, Any], folder: Path) -> None:
    api = site()
    operate(api, "restore", AGAIN, folder, file=file, killed=lambda answer: "import" in str(answer.get("did")))
    kept, before = progress(api), len(api.changes())
    about = {**DATABASE, "operation": "restore", "call_off": True, "holder": "eve@desk+00000000/9"}
    answer = run(operation, api, **about)
    assert answer["failed"] and f"held by {ME}" in answer["msg"]
    assert progress(api) == kept and len(api.changes()) == before


def test_a_check_run_forgets_nothing(file: dict[str, Any], folder: Path) -> None:
    api = site()
    operate(api, "restore", AGAIN, folder, file=file, killed=lambda answer: "import" in str(answer.get("did")))
    kept, before = progress(api), len(api.changes())
    run(operation, api, check=True, **DATABASE, operation="restore", file=file, call_off=True, holder=ME)
    assert "restore" in kept and progress(api) == kept and len(api.changes()) == before


@pytest.mark.parametrize("came", [True, False])
def test_a_run_that_died_in_the_import_itself_does_not_guess_whether_it_came(
    file: dict[str, Any], folder: Path, came: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = site()
    monkeypatch.setattr(act.Site, "wait", lambda *_arguments: (_ for _ in ()).throw(act.NotDone("it died here")))
    api.fail("POST", "LiteFS", how="timeout", after=came)
    assert operate(api, "restore", AGAIN, folder, file=file).rc != 0
    monkeypatch.undo()
    assert progress(api)["restore"]["state"] == "importing"
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc == 0 and len(api.node(0).imported) == 1, "nobody wrote, so the position tells"
    assert progress(api)["imported"][-1]["sha256"] == file["sha256"]

    api = site()
    monkeypatch.setattr(act.Site, "wait", lambda *_arguments: (_ for _ in ()).throw(act.NotDone("it died here")))
    api.fail("POST", "LiteFS", how="timeout", after=came)
    operate(api, "restore", AGAIN, folder, file=file)
    monkeypatch.undo()
    acknowledged = written_since(api)
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc != 0 and "nobody knows whether the file came" in ended.msg
    assert api.node(0).content == acknowledged


def test_a_refused_import_is_not_recorded(file: dict[str, Any], folder: Path) -> None:
    api = site()
    api.fail("POST", "LiteFS", how=500)
    assert operate(api, "restore", AGAIN, folder, file=file).rc != 0
    written_since(api)
    assert operate(api, "restore", AGAIN, folder, file=file).rc == 0 and api.node(0).content == BACKUP


def test_an_import_is_recorded_though_the_api_is_away_for_a_moment_right_after_it(
    file: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = site()
    monkeypatch.setattr("time.sleep", lambda _seconds: None)

    def away(request: Any) -> None:
        if request.path.startswith("/import"):
            api.fail("PUT", "ConfigMap", times=3)

    api.after.append(away)
    assert operate(api, "restore", AGAIN, folder, file=file).rc == 0
    assert progress(api)["imported"][-1]["txid"] == f"{6:016x}"


def test_a_replica_whose_node_died_after_the_import_does_not_hold_the_restore_up(
    file: dict[str, Any], folder: Path
) -> None:
    api = site()
    operate(api, "restore", AGAIN, folder, file=file, killed=lambda answer: "import" in str(answer.get("did")))
    api.stop(2)
    written_since(api)
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc == 0, ended.msg
    assert any("abaci-app-2 is on node node-2, which is away: bring the node back, or" in line for line in ended.said)


def test_an_older_schema_restarts_the_primary_and_then_the_replicas(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "older.sqlite"
    path.write_bytes(database("as it was", user_version=0))
    file = described(path) | {"cluster_id": make.A}
    api = site()
    before = {name: pod["metadata"]["uid"] for name in api.litefs if (pod := api.have("Pod", name))}
    ended = operate(api, "restore", AGAIN, folder, file=file)
    assert ended.rc == 0, ended.msg
    deleted = [one.name for one in api.of("DELETE", "Pod")]
    assert deleted == ["abaci-app-0", "abaci-app-1", "abaci-app-2"]
    assert [one.uid for one in api.of("DELETE", "Pod")] == list(before.values())
    assert any("whose migrations run then" in line for line in ended.did)
    assert len(api.node(0).imported) == 1


def test_hazard_no_file_comes_in_whose_restart_could_not_start_for_the_registry_is_away(
    tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "older.sqlite"
    path.write_bytes(database("as it was", user_version=0))
    file = described(path) | {"cluster_id": make.A}
    api = site()
    statefulset = api.have("StatefulSet", make.NAME)
    assert statefulset is not None
    spec = statefulset["spec"]["template"]["spec"]
    spec["initContainers"] = [
        {"name": "pull", "image": spec["containers"][0]["image"], "command": ["litefs", "version"]}
    ]
    tried: list[str] = []

    def pull(one: dict[str, Any], error: str | None) -> dict[str, Any]:
        tried.append(one["node"])
        return {**one, "digest": None, "error": error}

    away = operate(api, "restore", AGAIN, folder, file=file, pull=lambda one: pull(one, "connection refused"))
    assert away.rc == 2 and "connection refused" in away.msg and "keel_action=freeze" in away.msg
    assert tried == ["node-0"], "a registry that is away is waited for once"
    assert api.node(0).imported == [] and api.of("DELETE", "Pod") == []
    ended = operate(api, "restore", AGAIN, folder, file=file, pull=lambda one: pull(one, None))
    assert ended.rc == 0 and len(api.node(0).imported) == 1, ended.msg
    assert tried[1:] == ["node-0", "node-1", "node-2"]


def test_the_same_schema_restarts_nothing(file: dict[str, Any], folder: Path) -> None:
    api = site()
    assert operate(api, "restore", AGAIN, folder, file=file).rc == 0
    assert api.of("DELETE", "Pod") == []


def test_the_proof_of_a_scale_down_outlives_another_operation_and_a_day(folder: Path) -> None:
    api = site()
    parameters = {"replicas": 2, "remove_volumes": True}
    claim = (api.have("PersistentVolumeClaim", "litefs-data-abaci-app-2") or {})["metadata"]["uid"]
    operate(api, "scale", parameters, folder, killed=lambda answer: "scale down" in str(answer.get("did")))
    assert progress(api)["scale"]["volumes"]["2"]["uid"] == claim
    operate(api, "replica_reset", {"targets": "mismatched", "lost_volumes": []}, folder)
    api.clock_ahead += 86400
    ended = operate(api, "scale", parameters, folder)
    assert ended.rc == 0, ended.msg
    assert [(one.name, one.uid) for one in api.of("DELETE", "PersistentVolumeClaim")] == [
        ("litefs-data-abaci-app-2", claim)
    ]
    assert "scale" not in progress(api)


def test_a_replica_that_was_re_seeded_by_a_run_that_died_is_not_re_seeded_by_one_with_other_parameters(
    folder: Path,
) -> None:
    api = site()
    mismatch(api, 1)
    mismatch(api, 2)
    died = {"targets": "mismatched", "lost_volumes": []}
    operate(
        api, "replica_reset", died, folder, killed=lambda answer: "delete pod abaci-app-1" in str(answer.get("did"))
    )
    claim = (api.have("PersistentVolumeClaim", "litefs-data-abaci-app-1") or {})["metadata"]["uid"]
    api.clock_ahead += 7 * 3600
    assert operate(api, "replica_reset", {"targets": [1, 2], "lost_volumes": []}, folder).rc == 0
    assert (api.have("PersistentVolumeClaim", "litefs-data-abaci-app-1") or {})["metadata"]["uid"] == claim
    assert api.node(2).cluster == make.A and "replica_reset" not in progress(api)


def test_a_reset_of_one_replica_keeps_what_another_run_had_done_to_another(folder: Path) -> None:
    api = site()
    mismatch(api, 1)
    mismatch(api, 2)
    one = {"targets": [1], "lost_volumes": []}
    operate(api, "replica_reset", one, folder, killed=lambda answer: "delete pod abaci-app-1" in str(answer.get("did")))
    replaced = progress(api)["replica_reset"]["claims"]
    assert set(replaced) == {"1"}
    assert operate(api, "replica_reset", {"targets": [2], "lost_volumes": []}, folder).rc == 0
    assert progress(api)["replica_reset"]["claims"] == replaced
    assert operate(api, "replica_reset", one, folder).rc == 0 and "replica_reset" not in progress(api)


def test_a_replica_that_an_unfinished_run_did_not_come_to_and_that_is_well_again_is_left_alone(folder: Path) -> None:
    api = site()
    mismatch(api, 1)
    mismatch(api, 2)
    died = {"targets": "mismatched", "lost_volumes": []}
    operate(
        api, "replica_reset", died, folder, killed=lambda answer: "delete pod abaci-app-1" in str(answer.get("did"))
    )
    assert set(progress(api)["replica_reset"]["claims"]) == {"1", "2"}
    claim = (api.have("PersistentVolumeClaim", "litefs-data-abaci-app-2") or {})["metadata"]["uid"]
    api.node(2).cluster = make.A
    assert operate(api, "replica_reset", died, folder).rc == 0
    assert (api.have("PersistentVolumeClaim", "litefs-data-abaci-app-2") or {})["metadata"]["uid"] == claim
    assert "replica_reset" not in progress(api)


@pytest.mark.parametrize(("after", "left"), [(5, {"promote"}), (6, {"promote", "restore", "imported"})])
def test_a_promote_that_gives_an_import_up_removes_it(after: int, left: set[str], monkeypatch: Any) -> None:
    api = site()
    imported = {"sha256": "ab" * 32, "cluster_id": make.A, "txid": f"{6:016x}"}
    api.record()["progress"] = json.dumps({"restore": imported, "imported": [imported]})
    step = planning.step("record", "record", primary_ordinal=1, fenced=[0], promote=None)
    plan = planning.plan(None, [step], loss={"after_txid": f"{after:016x}", "pod": "abaci-app-1", "seconds": None})
    monkeypatch.setattr(OPERATIONS["promote"], "decide", lambda _request: plan)
    here = act.Site(api, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)
    runner.step(here, "", "promote", planning.Request(), 1)
    assert api.record()["primaryOrdinal"] == "1" and set(progress(api)) == left


def test_a_progress_that_nobody_can_read_stops_every_operation(folder: Path) -> None:
    api = site()
    api.record()["progress"] = "{"
    ended = operate(api, "scale", {"replicas": 2, "remove_volumes": False}, folder)
    assert ended.rc != 0 and "no JSON object" in ended.msg
    assert api.of("PUT", "StatefulSet") == []


def test_the_lock_is_renewed_while_a_step_lasts_and_a_stolen_one_is_seen_before_the_next_act() -> None:
    api = site()
    here = act.Site(api, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)
    api.put(
        {
            "kind": "Lease",
            "metadata": {"name": "abaci-app-operation"},
            "spec": {"holderIdentity": ME, "renewTime": "2020-01-01T00:00:00.000000Z"},
        }
    )
    with holding.Holding(here, ME, pause=0.05) as held:
        deadline = 100
        while "2020" in lease(api)["spec"]["renewTime"] and (deadline := deadline - 1):
            __import__("time").sleep(0.02)
        assert "2020" not in lease(api)["spec"]["renewTime"]
        lease(api)["spec"]["holderIdentity"] = "bob@desk/7"
        with pytest.raises(act.NotDone, match="held by bob@desk/7"):
            held.renew()
    writes = len(api.changes())
    __import__("time").sleep(0.2)
    assert len(api.changes()) == writes, "nothing is renewed afterwards"


def test_what_continues_an_unfinished_operation_is_a_whole_command(folder: Path) -> None:
    """The run died after its first act; whoever finds it knows nothing of what it was run with."""
    api = site(replicas=3)
    given = {"replicas": 1, "remove_volumes": True, "lost_replicas": []}
    operate(api, "scale", given, folder, killed=lambda answer: bool(answer.get("did")))
    (one,) = progress(api).values()
    assert one["given"] == {"replicas": 1, "remove_volumes": True}
    said = """run playbooks/scale.yml -e '{"scale_remove_volumes": true, "scale_replicas": 1}' afterwards"""
    assert said in progress_of.others({"scale": one})[0]
    assert progress_of.again("replica_reset", {}) == "playbooks/replica_reset.yml"
