"""The module: a summary or one sentence, whatever it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
import well
from ansible_collections.abaci.infra.plugins.module_utils.operations import drill
from ansible_collections.abaci.infra.plugins.module_utils.status import observe
from ansible_collections.abaci.infra.plugins.modules import site_status
from fake_api import LiteFS, run

PAGE = str(Path(__file__).parents[3] / "roles/status/templates/status.html.j2")
HOSTS = {f"node-{n}": f"192.0.2.{10 + n}" for n in range(3)}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_certificates", lambda _api, _asked: {})


def status(api: well.Site, **given: Any) -> dict[str, Any]:
    where = {"namespace": make.NAMESPACE, "name": make.NAME, "database": make.DATABASE, "tls": False}
    answer = run(site_status, api, **where, **{"inventory_hosts": HOSTS, **given})
    return answer


def test_what_is_known_comes_as_json_and_the_module_changes_nothing() -> None:
    api = well.Site()
    answer = status(api, output="json")
    document = json.loads(answer["shown"])
    assert document["summary"]["code"] == answer["code"]
    assert [pod["role"] for pod in document["facts"]["pods"]] == ["primary", "replica", "replica"]
    assert document["checks"] == answer["checks"]
    assert answer["changed"] is False and api.changes() == []


def test_the_page_is_made_from_the_roles_template() -> None:
    assert status(well.Site(), output="html", template=PAGE)["shown"].startswith("<!doctype html>")


def test_a_kubeconfig_of_another_cluster_is_a_summary() -> None:
    answer = status(well.Site(), inventory_hosts={"other-1": "198.51.100.7"})
    assert answer["code"] == 2
    assert "has none of this inventory's hosts" in answer["sentence"]
    marks = {one["slug"]: one["mark"] for one in answer["checks"]}
    assert marks["one-primary"] == "unknown", "nothing is said of somebody else's site"


def test_a_kubeconfig_that_is_not_there_is_a_summary(tmp_path: Path) -> None:
    answer = run(site_status, None, kubeconfig=str(tmp_path / "none"))
    assert answer["code"] == 2 and "There is no kubeconfig at" in answer["sentence"]


@pytest.mark.parametrize("how", ["timeout", "half", 500, 403])
def test_an_api_that_fails_is_a_summary(how: str | int) -> None:
    api = well.Site()
    api.fail("GET", how=how, times=99)
    answer = status(api)
    assert answer["code"] == 2
    assert answer["sentence"].count("\n") == 0 and "Traceback" not in answer["sentence"]


def test_a_pod_that_does_not_answer_holds_nobody_up() -> None:
    api = well.Site()
    api.fail("GET", "LiteFS", f"{make.NAME}-1", times=9)
    answer = status(api)
    assert answer["code"] == 1
    (bad,) = [one for one in answer["checks"] if one["mark"] == "fail"]
    assert bad["slug"] == "pods-answer"


def test_an_empty_cluster_is_no_site() -> None:
    api = well.Site()
    api.objects = {key: item for key, item in api.objects.items() if item["kind"] == "Node"}
    answer = status(api)
    assert answer["code"] == 2
    assert "There is no StatefulSet abaci-app in namespace abaci." in answer["sentence"]


def test_backups_that_this_machine_keeps_count_in_the_place_of_a_schedule(tmp_path: Path) -> None:
    def backups(hours: float) -> tuple[str, dict[str, Any]]:
        api = well.Site()
        api.drop("CronJob", f"{make.NAME}-backup")
        owner = {"namespace": make.NAMESPACE, "statefulset": make.NAME, "database": make.DATABASE, "cluster_id": make.A}
        facts = {"schema": 1, "reason": "backup", "verified": True, "file": "a.db", "size": 4, "txid": "0" * 15 + "5"}
        (tmp_path / "a.db").write_text("1234")
        manifest = {**owner, **facts, "time": api.ago(hours * 3600)}
        (tmp_path / "a.manifest.json").write_text(json.dumps(manifest))
        answer = status(api, backup_directory=str(tmp_path), output="json")
        (said,) = [one for one in answer["checks"] if one["slug"] == "backup-scheduled"]
        return said["mark"], json.loads(answer["shown"])["facts"]["backup"]

    mark, kept = backups(3)
    assert (mark, kept["kept_hours"], kept["kept"]) == ("ok", 3.0, str(tmp_path / "a.db"))
    assert backups(99)[0] == "warn"


def test_the_result_of_a_drill_beside_the_backups_is_read(tmp_path: Path) -> None:
    one = {"which": "newest", "txid": "0" * 15 + "5", "problem": "It is altered."}
    owner = {"namespace": make.NAMESPACE, "statefulset": make.NAME, "database": make.DATABASE}
    made = {"schema": 1, "time": "2026-01-01T00:00:00Z", "ok": False, "moments": [one], **owner}
    drill.write(tmp_path, made)  # type: ignore[arg-type]
    answer = status(well.Site(), backup_directory=str(tmp_path))
    (said,) = [one for one in answer["checks"] if one["slug"] == "restore-drill"]
    assert said["mark"] == "fail" and said["cause"].endswith("000000000000005, cannot be had: It is altered.")
    drill.path_of(tmp_path, *owner.values()).write_text("{")
    assert {one["slug"]: one["mark"] for one in status(well.Site())["checks"]}["restore-drill"] == "ok"


@pytest.mark.parametrize("copied", ["", "{", "[]", '{"time": "yesterday"}'])
def test_a_note_of_the_cluster_backup_that_cannot_be_read_is_none(copied: str) -> None:
    answer = status(well.Site(), cluster_copied=copied)
    assert {one["slug"]: one["mark"] for one in answer["checks"]}["cluster-backup"] == "warn"


def test_a_group_that_nobody_knows_is_refused() -> None:
    answer = status(well.Site(), groups=["edge", "egde"])
    assert answer["failed"]
    assert answer["msg"].startswith("There is no group of checks egde: choose among k3s, inventory, hosts,")


def test_only_the_groups_that_are_asked_for() -> None:
    assert {one["group"] for one in status(well.Site(), groups=["redis"])["checks"]} == {"redis"}


def test_what_the_archive_says_is_read_through_its_pod() -> None:
    api = well.Site()
    api.put(well.part(f"{make.NAME}-archive", make.NAMESPACE))
    point = {"txid": "0000000000000005", "time": "2026-01-01T00:00:00Z"}
    of = {"cluster": make.A, "database": make.DATABASE, "received": point, "verified": point, "behind_seconds": 0.5}
    # What it has of a cluster that was before says nothing of this one.
    before = {**of, "cluster": make.B, "verified": point | {"txid": "0000000000000009"}, "gaps": [{}]}
    said = {"primary": {"connected": True, "error": ""}, "databases": [before, {**of, "gaps": []}], "alarms": []}

    class Archive(LiteFS):  # type: ignore[misc]
        def answer(self, _method: str, path: str, _body: bytes) -> tuple[int, bytes]:
            return (200, json.dumps(said).encode()) if path == "/status" else (404, b"")

    api.litefs[f"{make.NAME}-archive-7f9c-x"] = Archive()
    answer = json.loads(status(api, output="json")["shown"])
    assert answer["facts"]["archive"]["connected"] and answer["facts"]["archive"]["verified"] == point["txid"]
    assert answer["facts"]["archive"]["gaps"] == 0
    api.litefs[f"{make.NAME}-archive-7f9c-x"].running = False
    bad = [one["slug"] for one in status(api)["checks"] if one["mark"] == "fail"]
    assert bad == ["archive-follows"]
