"""One step: what was decided before a wait is decided again after it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    act,
    lock,
    planning,
    runner,
)
from cases import B, export, file, gone, site

PARAMETERS = {"targets": [1, 2], "lost_volumes": []}
ME = "me@here/1"
ARRIVED = {
    "claims": [make.claim(0), make.claim(1, uid="new"), make.claim(2)],
    "volumes": [make.volume(0), make.volume(1, claim_uid="new"), make.volume(2)],
}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


class Site(act.Site):  # type: ignore[misc]
    """A site that looks like ``before`` until somebody waited, and like ``after`` from then on."""

    deleted: list[str]

    def __init__(self, before: dict[str, Any], after: dict[str, Any], meanwhile: Callable[[dict[str, Any]], None]):
        super().__init__(self, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)  # type: ignore[arg-type]
        self.documents, self.meanwhile, self.deleted = [before, after], meanwhile, []
        self.lease, _note, _refusal = lock.take(
            lock.render("abaci", "abaci-app"), ME, "replica_reset", 900, self.server_time(), alive=True
        )
        begun = deciding.replaced(site({1: make.node(B), 2: make.node(B)}), [1, 2])
        for document in self.documents:
            document["record"]["raw"] = {"progress": json.dumps({"replica_reset": begun})}

    def get(self, *_: Any) -> dict[str, Any] | None:
        return self.lease

    def put_lease(self, lease: dict[str, Any]) -> None:
        self.lease = lease

    def server_time(self) -> str:
        return now()

    def write_record(self, changes: dict[str, Any]) -> None: ...

    def look(self) -> dict[str, Any]:
        return self.documents[0]

    def wait_pod(self, ordinal: int, seconds: int) -> None:
        assert self.lease
        self.documents = self.documents[1:] or self.documents
        self.meanwhile(self.lease)

    def wait_replicated(self, seconds: int, without: Any = ()) -> None: ...

    def delete_claim(self, name: str, uid: str) -> None:
        self.deleted.append(name)


def arriving(answers: dict[int, Any]) -> dict[str, Any]:
    return site({1: make.node(None, database=None, never_synced=True), 2: make.node(B), **answers}, **ARRIVED)


def step(living: Site) -> dict[str, Any]:
    made = [{**export(), "time": now()}, {**export(B), "time": now()}]
    answer: Any = runner.step(living, ME, "replica_reset", planning.Request(PARAMETERS, made), 60)
    return answer


def test_after_a_wait_the_next_act_is_decided_anew() -> None:
    living = Site(arriving({}), arriving({1: make.node()}), lambda _lease: None)
    assert step(living)["changed"] and living.deleted == ["litefs-data-abaci-app-2"]


def test_hazard_the_primary_that_died_during_a_wait_stops_the_next_act() -> None:
    living = Site(arriving({}), arriving({0: gone(), 1: make.node()}), lambda _lease: None)
    with pytest.raises(runner.Refused, match="No running primary"):
        step(living)
    assert living.deleted == []


def test_a_primary_that_a_rolling_update_restarts_during_a_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the node of a replica comes back after a promote: only then does the update get to the primary."""
    restarts = arriving({0: gone(), 1: make.node()})
    restarts["statefulset"] |= {"current_revision": "r1", "update_revision": "r2"}
    living = Site(arriving({}), restarts, lambda _lease: None)

    def sleep(_seconds: float) -> None:
        living.documents = [arriving({1: make.node()})]

    monkeypatch.setattr(runner.time, "sleep", sleep)
    assert step(living)["changed"] and living.deleted == ["litefs-data-abaci-app-2"]


def test_hazard_the_lock_that_was_taken_over_during_a_wait_stops_the_next_act() -> None:
    def taken_over(lease: dict[str, Any]) -> None:
        lease["spec"]["holderIdentity"] = "bob@desk/7"

    living = Site(arriving({}), arriving({1: make.node()}), taken_over)
    with pytest.raises(act.NotDone, match="held by bob@desk/7"):
        step(living)
    assert living.deleted == []


def test_a_pod_that_could_not_be_exported_is_named_with_the_reason_and_nothing_is_done() -> None:
    seed = site({2: make.node(B, txid=9)})
    living = Site(seed, seed, lambda _lease: None)
    made = [{**export(), "time": now()}, {"pod": "abaci-app-2", "problem": "The export is not sound."}]
    with pytest.raises(act.NotDone, match=r"abaci-app-2 could not be exported.*The export is not sound"):
        runner.step(living, ME, "replica_reset", planning.Request(PARAMETERS, made), 60)
    assert living.deleted == []


def test_hazard_a_pod_that_is_never_at_rest_is_not_exported_for_ever() -> None:
    seed = site({2: make.node(B, txid=9)})
    living = Site(seed, seed, lambda _lease: None)
    made = [{**export(B), "time": now(), "pod": "abaci-app-2"}] * 3
    with pytest.raises(act.NotDone, match="abaci-app-2 was exported 3 times"):
        made = [{**export(), "time": now()}, *made]
        runner.step(living, ME, "replica_reset", planning.Request(PARAMETERS, made), 60)


def test_a_plan_says_first_what_comes_first() -> None:
    plan = deciding.restored(site(), file(), {}, [], None)
    assert runner.said(plan)[:3] == [
        "first, export from abaci-app-0",
        "import /backups/one.sqlite into abaci-app-0",
        "wait until every replica has what abaci-app-0 has",
    ]
    assert runner.said(deciding.scaled(site(), 3)) == ["nothing is left to do"]
