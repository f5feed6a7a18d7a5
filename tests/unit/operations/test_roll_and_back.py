"""A rollout and the way back: what is decided, and the steps on an API whose pods may not come up."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import cases
import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_image, app_plan, clock, edge, kube, rollout
from ansible_collections.abaci.infra.plugins.module_utils.operations import replacing
from fake_api import Cluster, database
from playing import Ended, operate

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = make.IMAGE.rpartition(":")[0]
NODES = ["node-0", "node-1", "node-2"]
GIVEN: dict[str, Any] = {"image": "", "restart": False, "order": "primary_last", "backup": False}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trouble counts when it is seen."""
    monkeypatch.setattr(rollout, "_CRASH", 0)


def site(*builds: str, image: str = make.IMAGE, **parts: Any) -> dict[str, Any]:
    """A site whose pods run these builds, 0 first."""
    pods = []
    for ordinal, build in enumerate(builds or (A, A, A)):
        pod = make.pod(ordinal)
        pod["status"]["containerStatuses"][0]["imageID"] = f"{NAME}@{build}"
        pods.append(pod)
    applied = make.statefulset()
    applied["spec"]["template"]["spec"]["containers"][0]["image"] = image
    applied["metadata"]["annotations"] |= parts.pop("annotations", {})
    state = cases.site(**{"pods": pods, "statefulset": applied, **parts})
    return state | {"revisions": []}


def pulled(image: str, *builds: str | None, error: str | None = None) -> list[dict[str, Any]]:
    return [
        {"image": image, "node": node, "digest": build, "error": error}
        for node, build in zip(NODES, builds, strict=False)
    ]


def decided(state: dict[str, Any], tried: Any = (), **given: Any) -> Any:
    request = deciding.planning.Request(GIVEN | given, pulled=tried, state=state)
    module: Any = deciding.OPERATIONS["rollout"]
    checkpoint = module.progress(request)
    plan = module.decide(dataclasses.replace(request, checkpoint=checkpoint))
    return plan, checkpoint


REFUSED = [
    ({"image": "a b"}, site(), (), "name an image with its tag"),
    ({"image": f"{NAME}@sha256:12"}, site(), (), "64 digits"),
    ({"image": "x:1", "restart": True}, site(), (), "rollout_image and rollout_restart are both set"),
    ({"order": "sideways"}, site(), (), "primary_first or primary_last"),
    ({}, site(image="other:1"), pulled("other:1", B, B, None), "different builds"),
    # A template that named it by what no node says would be that of an image that is not there.
    ({"image": "x:2"}, site(), pulled("x:2", None, None, None), "none is named"),
    ({}, site(image=f"{NAME}@{A}", annotations={}), (), None),
    ({}, cases.guarded(), (), "No running primary"),
    ({"image": "x:2"}, site(), pulled("x:2", B, A, B), "The nodes got different builds under the tag"),
    (
        {"image": "x:2"},
        site(),
        pulled("x:2", None, None, None, error="The image x:2 cannot be pulled: not found."),
        "cannot be pulled",
    ),
    (
        {"restart": True},
        site(pods=[make.pod(0), make.pod(1), make.pod(2, conditions=[])]),
        pulled(make.IMAGE, A, A, A),
        "abaci-app-2 is not ready",
    ),
    (
        {"restart": True},
        site(
            record=make.record("recorded", make.A)
            | {"data": {**make.record("recorded", make.A)["data"], "progress": '{"rollback": {}}'}}
        ),
        (),
        "playbooks/rollback.yml again first",
    ),
]


@pytest.mark.parametrize(("given", "state", "tried", "words"), REFUSED)
def test_what_is_refused(given: Any, state: Any, tried: Any, words: str | None) -> None:
    plan, _checkpoint = decided(state, tried, **given)
    if words is None:
        assert plan["refusal"] is None
    else:
        assert words in str(plan["refusal"]), plan


@pytest.mark.parametrize(
    ("given", "state", "image", "digest", "text", "again", "by_hand"),
    [
        ({}, site(), make.IMAGE, B, make.IMAGE, True, False),
        ({"restart": True}, site(), make.IMAGE, A, make.IMAGE, True, False),
        ({"image": f"{NAME}:v5"}, site(), f"{NAME}:v5", B, f"{NAME}:v5@{B}", False, True),
        ({"image": B}, site(), f"{make.IMAGE}@{B}", B, f"{make.IMAGE}@{B}", False, True),
        ({"image": make.IMAGE}, site(), make.IMAGE, B, make.IMAGE, True, False),
        # Frozen: the newest behind the tag stays pinned.
        ({}, site(image=f"{make.IMAGE}@{A}"), make.IMAGE, B, f"{make.IMAGE}@{B}", False, True),
    ],
)
def test_what_the_template_names(
    given: Any, state: Any, image: str, digest: str, text: str, again: bool, by_hand: bool
) -> None:
    tried: Any = ()
    first, _ = decided(state, **given)
    assert [one["node"] for one in first["pull"]] == NODES and {one["image"] for one in first["pull"]} == {image}
    tried = pulled(image, digest, digest, digest)
    plan, checkpoint = decided(state, tried, **given)
    assert plan["refusal"] is None
    assert (checkpoint["image"], checkpoint["again"]) == (text, again)
    assert (checkpoint["policy"] == "never", bool(checkpoint["rolled_out"])) == (by_hand, by_hand)


def test_the_newest_that_runs_already_is_nothing_to_do_and_a_restart_is() -> None:
    tried = pulled(f"{NAME}:v5", A, A, A)
    plan, _ = decided(site(image=f"{NAME}:v5@{A}"), tried, image=f"{NAME}:v5")
    assert plan["steps"] == [] and "already" in plan["notes"][0]
    plan, _ = decided(site(), pulled(make.IMAGE, A, A, A))
    assert plan["steps"] == [] and "already" in plan["notes"][0], "the newest behind the tag, too"
    plan, _ = decided(site(), pulled(make.IMAGE, A, A, A), restart=True)
    assert [step["do"] for step in plan["steps"]][:2] == ["wait_replicated", "template"]


def test_a_backup_comes_before_anything_is_changed_unless_it_is_left_out() -> None:
    tried = pulled("x:2", B, B, B)
    assert decided(site(), tried, image="x:2", backup=True)[0]["export"] == ["abaci-app-2"]
    assert decided(site(), tried, image="x:2")[0]["export"] == []


def old(*ready: bool, order: Any = "primary_last", current: set[str] | None = None) -> list[int]:
    pods = [make.pod(n, conditions=[{"type": "Ready", "status": str(well)}]) for n, well in enumerate(ready)]
    return [pod["ordinal"] for pod in replacing.to_replace(cases.site(pods=pods), 0, order, current or set())]


@pytest.mark.parametrize(
    ("ready", "order", "ordinals"),
    [
        ((True, True, True), "primary_last", [2, 1, 0]),
        ((True, True, True), "primary_first", [0, 2, 1]),
        ((False, True, True), "primary_last", [0, 2, 1]),
        ((True, False, True), "primary_last", [1, 2, 0]),
        ((False, False, True), "primary_first", [0, 1, 2]),
    ],
)
def test_the_order(ready: Any, order: str, ordinals: list[int]) -> None:
    assert old(*ready, order=order) == ordinals


# The steps


@pytest.fixture
def api() -> Cluster:
    made = Cluster(content=database("one"))
    statefulset = made.have("StatefulSet", make.NAME)
    assert statefulset is not None
    statefulset["metadata"]["annotations"]["keel.sh/policy"] = "force"
    made.builds |= {f"{NAME}:v5": B}
    return made


def rolled(api: Cluster, tmp_path: Path, **more: Any) -> Ended:
    given = GIVEN | {"image": f"{NAME}:v5"} | more.pop("given", {})
    return play(api, "rollout", given, tmp_path, **more)


def play(api: Cluster, name: str, given: Any, tmp_path: Path, **more: Any) -> Ended:
    def pull(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "digest": one["image"].partition("@")[2] or api.builds[one["image"]], "error": None}

    # As in real life a run does not begin within the second of another one: their stamps are of the server's seconds.
    api.clock_ahead += 1
    return operate(api, name, given, tmp_path, pull=pull, **more)


def statefulset(api: Cluster) -> dict[str, Any]:
    found = api.have("StatefulSet", make.NAME)
    assert found is not None
    return found


def image(api: Cluster) -> str:
    return str(statefulset(api)["spec"]["template"]["spec"]["containers"][0]["image"])


def builds(api: Cluster) -> list[str]:
    return [pod["status"]["containerStatuses"][0]["imageID"].partition("@")[2] for pod in api.all("Pod")]


def deleted(api: Cluster) -> list[str]:
    return [one.name for one in api.of("DELETE", "Pod")]


@pytest.mark.parametrize(
    ("order", "names"), [("primary_last", [2, 1, 0]), ("primary_first", [0, 2, 1])], ids=["last", "first"]
)
def test_pod_by_pod_and_then_rolling_updates_are_the_controllers_again(
    api: Cluster, tmp_path: Path, order: str, names: list[int]
) -> None:
    ended = rolled(api, tmp_path, given={"order": order})
    assert ended.rc == 0, ended.msg
    assert deleted(api) == [f"{make.NAME}-{n}" for n in names] and builds(api) == [B, B, B]
    assert all(one.uid for one in api.of("DELETE", "Pod"))
    found = statefulset(api)
    assert found["spec"]["updateStrategy"]["type"] == "RollingUpdate" and image(api) == f"{NAME}:v5@{B}"
    assert found["metadata"]["annotations"]["keel.sh/policy"] == "never"
    assert "rollout" not in json.loads(api.record().get("progress", "{}"))
    again = rolled(api, tmp_path, given={"order": order})
    assert again.rc == 0 and again.did == [] and len(deleted(api)) == 3


@pytest.mark.parametrize("order", ["primary_last", "primary_first"])
def test_killed_after_each_act_it_is_continued(api: Cluster, tmp_path: Path, order: str) -> None:
    for runs in itertools.count(1):
        ended = rolled(api, tmp_path, given={"order": order}, killed=lambda answer: bool(answer.get("did")))
        if not ended.did:
            break
        assert runs < 9
    assert ended.rc == 0 and builds(api) == [B, B, B] and len(deleted(api)) == 3
    assert statefulset(api)["spec"]["updateStrategy"]["type"] == "RollingUpdate"


def test_a_lost_answer_of_each_change_is_made_good_by_the_next_run(api: Cluster, tmp_path: Path) -> None:
    for kind, method in (
        ("StatefulSet", "PUT"),
        ("Pod", "DELETE"),
        ("ConfigMap", "PUT"),
        ("ControllerRevision", "PUT"),
    ):
        api.fail(method, kind, after=True)
        rolled(api, tmp_path)
    assert rolled(api, tmp_path).rc == 0 and builds(api) == [B, B, B] and len(deleted(api)) == 3


def test_at_the_first_pod_that_does_not_come_up_it_pauses_with_the_cause_and_names_the_way_back(
    api: Cluster, tmp_path: Path
) -> None:
    api.crashing.add(B)
    api.node(2).log = "starting\nTypeError: no such table: users\n"
    ended = rolled(api, tmp_path)
    assert ended.rc == 2 and deleted(api) == [f"{make.NAME}-2"]
    for words in ("Paused at abaci-app-2", "no such table: users", "playbooks/rollback.yml"):
        assert words in ended.msg, ended.msg
    assert builds(api) == [A, A, B]
    # Nothing goes on behind its back: not the controller, not site.yml.
    assert statefulset(api)["spec"]["updateStrategy"]["type"] == "OnDelete"
    state = deciding.act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202).look()
    plan = app_plan.plan(state, make.desired())
    assert "playbooks/rollback.yml" in str(plan["refusal"])
    assert rolled(api, tmp_path).rc == 2 and deleted(api) == [f"{make.NAME}-2"]
    other = rolled(api, tmp_path, given={"image": "x:7"})
    assert other.rc == 2 and "is not finished" in other.msg


@pytest.mark.parametrize("order", ["primary_last", "primary_first"])
@pytest.mark.parametrize("killed", [False, True])
def test_the_way_back_replaces_only_the_pod_that_hangs_and_gives_keel_its_policy_back(
    api: Cluster, tmp_path: Path, order: str, killed: bool
) -> None:
    api.crashing.add(B)
    assert rolled(api, tmp_path, given={"order": order}).rc == 2
    hangs = deleted(api)
    for _run in range(9):
        ended = play(api, "rollback", {"to": ""}, tmp_path, killed=lambda answer: killed and bool(answer.get("did")))
        if not ended.did:
            break
    assert ended.rc == 0, ended.msg
    assert deleted(api) == hangs * 2 and builds(api) == [A, A, A] and image(api) == make.IMAGE
    found = statefulset(api)
    assert found["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    assert found["metadata"]["annotations"]["keel.sh/policy"] == "force"
    assert "abaci.infra/rolled-out" not in found["metadata"]["annotations"]
    assert "progress" not in api.record()
    again = play(api, "rollback", {"to": ""}, tmp_path)
    assert again.rc == 0 and again.did == [] and len(deleted(api)) == 2, "it goes back once"


def test_where_the_tag_is_the_bad_build_by_now_the_way_back_names_what_ran(api: Cluster, tmp_path: Path) -> None:
    """As Keel leaves it: the template is made anew under the same tag, and the highest pod hangs."""
    api.builds[make.IMAGE] = B
    api.crashing.add(B)
    found = statefulset(api)
    found["spec"]["template"]["metadata"]["annotations"] = {"keel.sh/update-time": "now"}
    api.replace("apps/v1", "StatefulSet", found, "keel")
    api.delete("v1", "Pod", f"{make.NAME}-2", make.NAMESPACE)
    ended = play(api, "rollback", {"to": ""}, tmp_path)
    assert ended.rc == 0, ended.msg
    assert builds(api) == [A, A, A] and image(api) == f"{make.IMAGE}@{A}"
    assert deleted(api)[1] == f"{make.NAME}-2", "the one that hangs is the first"
    kept = json.loads(statefulset(api)["metadata"]["annotations"]["abaci.infra/rolled-out"])
    assert kept == {"image": f"{make.IMAGE}@{A}", "over": make.IMAGE, "keel_policy": "force"}


def test_what_was_rolled_out_is_known_afterwards_by_its_build(
    api: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where both begin at the same time."""
    now = clock.micro(api.time())
    monkeypatch.setattr(kube.Client, "server_time", lambda _client: now)
    assert rolled(api, tmp_path).rc == 0
    ended = play(api, "rollback", {"to": "1"}, tmp_path)
    assert ended.rc == 0 and builds(api) == [A, A, A] and image(api) == make.IMAGE, ended.msg


@pytest.mark.parametrize(
    ("to", "words"),
    [("7", "There is no revision 7"), ("sha256:12", "64 digits"), ("", "There is no revision to go back to")],
)
def test_a_revision_that_is_gone_is_refused_with_those_that_are_there(
    api: Cluster, tmp_path: Path, to: str, words: str
) -> None:
    ended = play(api, "rollback", {"to": to}, tmp_path)
    assert ended.rc == 2 and words in ended.msg and api.of("PUT", "StatefulSet") == []


def test_hazard_the_way_back_is_never_to_a_template_that_was_gone_back_from() -> None:
    """No pod is ready, so nothing but the note on it tells that it was bad."""

    def revision(number: int, left: str | None = None) -> dict[str, Any]:
        name = "r1" if number == 3 else f"old-{number}"
        return {"name": name, "number": number, "image": f"{NAME}@{A}", "build": None, "left": left}

    state = site(pods=[make.pod(n, conditions=[]) for n in range(3)])
    assert state["statefulset"]["update_revision"] == "r1"
    known = [revision(3), revision(2, left="2026-01-01T11:00:00Z"), revision(1)]
    plan = deciding.decide("rollback", state | {"revisions": known}, {"to": ""})
    assert "revision 1, " in plan["steps"][0]["say"]
    plan = deciding.decide("rollback", state | {"revisions": known[:2]}, {"to": ""})
    assert "There is no revision to go back to" in plan["refusal"]


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (cases.guarded(), "primary-volume-empty"),
        (cases.guarded(cases.OLDER), "older-volume"),
        (cases.site({1: make.node(primary=True)}), "two-primaries"),
        (cases.dead_node(), "primary-node-gone"),
    ],
)
def test_hazard_no_pod_is_replaced_for_an_older_template_while_the_data_is_in_danger(state: Any, cause: str) -> None:
    plan = deciding.decide("rollback", state, {"to": B})
    assert plan["cause"] == cause and plan["refusal"].startswith("Nothing was rolled back. ")
    assert not plan["steps"] and not plan["pull"]


def test_a_tag_of_which_nobody_knows_the_build_is_refused(api: Cluster, tmp_path: Path) -> None:
    found = statefulset(api)
    found["spec"]["template"]["metadata"]["annotations"] = {"keel.sh/update-time": "now"}
    api.replace("apps/v1", "StatefulSet", found, "keel")
    for n in range(3):
        api.delete("v1", "Pod", f"{make.NAME}-{n}", make.NAMESPACE)
    ended = play(api, "rollback", {"to": ""}, tmp_path)
    assert ended.rc == 2 and "rollback_to=sha256:" in ended.msg


def test_writes_that_do_not_get_through_pause_it(api: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"status": 503, "headers": [], "length": 3, "error": ""}
    monkeypatch.setattr(edge, "send", lambda _request: answer)
    asked = {"domains": ["a.test"], "address": "127.0.0.1", "https_port": 443, "edge_https_port": 443}
    asked |= {"edge_http_port": 80, "verify": False, "health_path": "/", "verify_path": "/none"}
    ended = rolled(api, tmp_path, inventory={"edge": asked})
    assert ended.rc == 2 and "Paused" in ended.msg and "503" in ended.msg and len(deleted(api)) == 1


# What site.yml makes of it


@pytest.mark.parametrize(
    ("living", "over", "inventory", "text"),
    [
        (f"{NAME}:v5@{B}", make.IMAGE, make.IMAGE, f"{NAME}:v5@{B}"),
        (f"{NAME}:v5@{B}", make.IMAGE, f"{NAME}:v6", f"{NAME}:v6"),
        ("edited:by-hand", make.IMAGE, make.IMAGE, make.IMAGE),
    ],
    ids=["it keeps it", "app_image changed since", "the template changed since"],
)
def test_site_keeps_what_was_rolled_out_by_hand_until_app_image_changes(
    living: str, over: str, inventory: str, text: str
) -> None:
    kept = app_image.RolledOut(f"{NAME}:v5@{B}", over, "force").text()
    state = site(B, B, B, image=living, annotations={"abaci.infra/rolled-out": kept})
    choice = app_image.choose(state, inventory, False, 0)
    assert choice.text == text and ("rolled out by hand" in choice.note) == (text == living)
