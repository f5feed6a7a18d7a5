"""The API of the tests itself: what it stands in for has to be as the real one."""

from __future__ import annotations

from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act
from fake_api import Cluster, FakeApi, database

MAP: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "abaci"}}


def site(api: FakeApi) -> act.Site:
    return act.Site(api, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)


def status(call: Any) -> int | None:
    with pytest.raises(kube.KubeError) as caught:
        call()
    code: int | None = caught.value.status
    return code


def test_preconditions_hold() -> None:
    api = FakeApi()
    made = api.create(MAP | {"data": {"a": "1"}})
    assert status(lambda: api.create(MAP)) == 409
    api.replace("v1", "ConfigMap", made | {"data": {"a": "2"}}, "me")
    assert status(lambda: api.replace("v1", "ConfigMap", made | {"data": {"a": "3"}}, "me")) == 409
    assert status(lambda: api.delete("v1", "ConfigMap", "m", "abaci", uid="another")) == 409
    assert api.delete("v1", "ConfigMap", "m", "abaci", uid=made["metadata"]["uid"])
    assert not api.delete("v1", "ConfigMap", "m", "abaci") and api.get("v1", "ConfigMap", "m", "abaci") is None
    assert [one.method for one in api.changes()] == ["POST", "POST", "PUT", "PUT", "DELETE", "DELETE", "DELETE"]


@pytest.mark.parametrize(("how", "code"), [("timeout", None), ("half", None), (410, 410), (503, 503)])
def test_a_fault_is_met_as_often_as_it_was_asked_for(how: str | int, code: int | None) -> None:
    api = FakeApi(make.pod(0))
    api.fail("GET", "Pod", how=how, skip=1)
    assert len(api.list("v1", "Pod", "abaci")) == 1
    assert status(lambda: api.list("v1", "Pod", "abaci")) == code
    assert len(api.list("v1", "Pod", "abaci")) == 1


def test_an_answer_that_is_lost_was_a_request_that_is_done() -> None:
    api = FakeApi()
    api.fail("POST", "ConfigMap", after=True)
    assert status(lambda: api.create(MAP)) is None
    assert api.have("ConfigMap", "m") is not None


def test_away_for_one_look_and_back_for_the_next() -> None:
    api = Cluster()
    api.away()
    assert status(site(api).look) is None
    assert len(site(api).look()["pods"]) == 3


def test_a_pod_that_is_deleted_comes_back_on_its_volume_and_without_its_claim_on_an_empty_one() -> None:
    api = Cluster(content=database("one"))
    before = site(api).look()
    assert [pod["litefs"]["is_primary"] for pod in before["pods"]] == [True, False, False]
    claim = before["claims"][2]
    site(api).delete_claim(claim["name"], claim["uid"])
    assert site(api).look()["claims"][2]["deleting"], "while its pod runs"
    for ordinal in (0, 2):
        site(api).delete_pod(f"abaci-app-{ordinal}", before["pods"][ordinal]["uid"])
    after = site(api).look()
    assert after["claims"][0]["uid"] == before["claims"][0]["uid"] and after["claims"][2]["uid"] != claim["uid"]
    assert {pod["litefs"]["databases"]["sqlite.db"]["checksum"] for pod in after["pods"]} == {api.node(0).checksum}
    assert [volume["kept"] for volume in after["volumes"]] == [False, False, True, False]


@pytest.mark.parametrize("ahead", [-7200, 0, 7200])
def test_the_time_is_the_servers(ahead: float) -> None:
    api = FakeApi(clock_ahead=ahead)
    difference = abs((_moment(api.server_time()) - api.time()).total_seconds())
    assert difference < 2
    api.clock_ahead += 60
    api.list("v1", "Pod")
    assert abs((_moment(api.server_time()) - api.time()).total_seconds()) < 2


def _moment(text: str) -> Any:
    import datetime

    return datetime.datetime.fromisoformat(text)
