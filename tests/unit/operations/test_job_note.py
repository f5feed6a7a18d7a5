"""A scheduled backup that is not made is said by whoever looks, and so is a database that no backup has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_plan, litefs
from ansible_collections.abaci.infra.plugins.module_utils.operations import backup
from ansible_collections.abaci.infra.plugins.modules import litefs_backup, litefs_info, operation
from cases import site
from factory_objects import desired
from fake_api import Cluster, database, run
from playing import DATABASE

NOW = "2026-01-02T12:00:00Z"


def job(scheduled: str | None, successful: str | None, suspended: bool = False) -> dict[str, Any]:
    times = {"lastScheduleTime": scheduled, "lastSuccessfulTime": successful}
    return {
        "metadata": {"name": "abaci-app-backup"},
        "spec": {"schedule": "17 3 * * *", "suspend": suspended},
        "status": {key: value for key, value in times.items() if value},
    }


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (None, None),
        (job(None, None), None),
        (job("2026-01-02T03:17:00Z", "2026-01-02T03:18:00Z"), None),
        (job("2026-01-02T11:30:00Z", "2026-01-01T03:18:00Z"), None),  # at work
        (job("2026-01-02T03:17:00Z", "2026-01-01T03:18:00Z"), "did not succeed; the last one that did was 33 h ago"),
        (job("2026-01-02T03:17:00Z", None), "the last one that did was never"),
        (job("2026-01-02T03:17:00Z", "2026-01-02T03:18:00Z", suspended=True), "is suspended"),
    ],
    ids=["no job", "not yet", "well", "at work", "failed", "always failed", "suspended"],
)
def test_a_backup_that_is_not_made_is_said(item: Any, words: str | None) -> None:
    document = site(backup_job=item, gathered_at=NOW)
    note = backup.job_note(document)
    assert (note is None) is (words is None) and (words or "") in (note or "")
    assert (note in app_plan.plan(document, desired())["notes"]) is (note is not None)


def test_site_yml_and_backup_yml_read_it_from_the_cluster(tmp_path: Any) -> None:
    api = Cluster(content=database("one"))
    api.put(job("2026-01-02T03:17:00Z", "2026-01-01T03:18:00Z") | {"kind": "CronJob"})
    assert backup.job_note(run(litefs_info, api, **DATABASE)["state"])
    answer = run(litefs_backup, api, **DATABASE, directory=str(tmp_path))
    assert "did not succeed" in str(answer["warnings"])


@pytest.mark.parametrize("primary", [True, False], ids=["on the primary", "on a replica, the primary is away"])
def test_a_database_that_no_backup_has_is_said(primary: bool) -> None:
    document = site()
    if not primary:
        document["pods"][0]["litefs"] = litefs.unreachable("its node is away")
    assert backup.other_databases_note(document) is None
    held = document["pods"][0 if primary else 1]["litefs"]["databases"]
    held["cache.db"] = dict(held["sqlite.db"])
    held["empty.db"] = {**held["sqlite.db"], "txid": "0" * 16}
    note = backup.other_databases_note(document)
    assert note is not None and note.startswith("cache.db is in /litefs, too, and in no backup") and "empty" not in note
    assert "sqlite.db (app_database)" in note
    assert note in app_plan.plan(document, desired())["notes"]


def test_site_yml_backup_yml_and_the_plans_that_bring_data_back_say_it(tmp_path: Any) -> None:
    api = Cluster(content=database("one"))
    primary, own = api.node(0), api.node(0).answer

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status, said = own(method, path, body)
        if path == "/debug/vars":
            found = json.loads(said)
            found["store"]["dbs"]["cache.db"] = found["store"]["dbs"]["sqlite.db"] | {"name": "cache.db"}
            return status, json.dumps(found).encode()
        return status, said

    primary.answer = answer  # type: ignore[method-assign]
    words = "cache.db is in /litefs, too, and in no backup"
    assert words in str(backup.other_databases_note(run(litefs_info, api, **DATABASE)["state"]))
    assert words in str(run(litefs_backup, api, **DATABASE, directory=str(tmp_path))["warnings"])
    for name, parameters, says in (("promote", {"to": "1"}, True), ("scale", {"replicas": 2}, False)):
        plan = run(operation, api, **DATABASE, operation=name, parameters=parameters, file={})
        assert (words in str(plan["said"])) is says, plan


def test_site_yml_says_which_operation_is_not_finished() -> None:
    document = site()
    document["record"]["raw"]["progress"] = '{"restore": {"begun": "2026-01-01T00:00:00Z", "holder": "ann@ops/1"}}'
    notes = app_plan.plan(document, desired())["notes"]
    assert any("restore is not finished" in note and "operation_call_off=restore" in note for note in notes)


def test_a_promote_is_called_off_by_its_own_word_which_gives_the_role_back() -> None:
    document = site()
    document["record"]["raw"]["progress"] = '{"promote": {"begun": "2026-01-01T00:00:00Z", "holder": "ann@ops/1"}}'
    (note,) = [one for one in app_plan.plan(document, desired())["notes"] if "promote is not finished" in one]
    assert "-e promote_call_off=true." in note and "operation_call_off" not in note
