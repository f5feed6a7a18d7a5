"""Keel frozen, thawed, and asked why it did not update."""

from __future__ import annotations

import json
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_image, app_plan, keel
from ansible_collections.abaci.infra.plugins.module_utils.operations import act
from ansible_collections.abaci.infra.plugins.modules import keel_action
from fake_api import Cluster, Request, run

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FOLLOWED = {"keel.sh/policy": "force", "keel.sh/match-tag": "true", "keel.sh/trigger": "poll"}
LOG = f'time="2026-01-01T00:00:00Z" level=info msg="new watch tag digest job added" image="{make.IMAGE}"\n'
SITE = {"namespace": make.NAMESPACE, "name": make.NAME, "database": make.DATABASE}


def facts(*builds: str, image: str = make.IMAGE, annotations: Any = None, **more: Any) -> keel.Facts:
    pods = []
    for ordinal, build in enumerate(builds or (A, A, A)):
        pod = make.pod(ordinal)
        pod["status"]["containerStatuses"][0]["imageID"] = f"app@{build}"
        pods.append(pod)
    applied = make.statefulset()
    applied["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return keel.Facts(
        make.living(pods=pods, statefulset=applied), annotations or FOLLOWED, **{"log": LOG, "digest": A, **more}
    )


def error(words: str) -> str:
    return f'{LOG}time="2026-01-01T00:02:00Z" level=error msg="trigger.poll: failed to check" error="{words}"\n'


@pytest.mark.parametrize(
    ("found", "number", "mark", "words", "cure"),
    [
        (facts(), 0, "ok", "Keel follows", ""),
        (facts(annotations=FOLLOWED | {"keel.sh/policy": "never"}), 0, "warn", "frozen", "keel_action=thaw"),
        (facts(annotations={"keel.sh/policy": "force", "keel.sh/trigger": "poll"}), 0, "fail", "match-tag", "site.yml"),
        (
            facts(annotations={"keel.sh/policy": "force", "keel.sh/matchTag": "true", "keel.sh/trigger": "poll"}),
            0,
            "ok",
            "Keel follows",
            "",
        ),
        (facts(image=f"{make.IMAGE}@{A}"), 0, "fail", "name a digest", "site.yml"),
        (facts(log=None, log_error="there is none"), 0, "fail", "there is none", "--tags keel"),
        (facts(log="new watch repository tags job added"), 0, "fail", "names of tags", "site.yml"),
        (facts(log="nothing"), 0, "warn", "does not say", "rollout restart deployment keel"),
        (facts(unfinished=("rollout",)), 0, "warn", "not finished", "playbooks/rollout.yml"),
        (facts(), 1, "ok", "no error", ""),
        (facts(log=None), 1, "fail", "does not run", "--tags keel"),
        (facts(log=error("401 Unauthorized")), 1, "fail", "401", "app_registry_token"),
        (facts(log=error("dial tcp: no such host")), 1, "fail", "no such host", "tries again"),
        (facts(log=error("the object has been modified")), 1, "fail", "conflict", "playbooks/rollout.yml"),
        (facts(), 2, "ok", "nothing newer", "CI pushed"),
        (facts(digest=B), 2, "warn", f"{B}, and the pods run {A}", "playbooks/rollout.yml"),
        (facts(A, A, B), 2, "warn", f"{A}, {B}", "playbooks/rollout.yml"),
        (facts(digest=None, error="cannot be pulled: not found."), 2, "fail", "not found", ""),
    ],
)
def test_the_three_answers(found: keel.Facts, number: int, mark: str, words: str, cure: str) -> None:
    line = keel.why(found)[number]
    assert line.mark == mark and cure in line.cure, line
    assert words in line.said, line


@pytest.fixture
def api() -> Cluster:
    made = Cluster()
    noted(made).update(FOLLOWED)
    return made


def noted(api: Cluster) -> dict[str, str]:
    found = api.have("StatefulSet", make.NAME)
    assert found is not None
    kept: dict[str, str] = found["metadata"]["annotations"]
    return kept


def test_a_freeze_and_a_thaw_change_one_annotation_once_and_are_noted(api: Cluster) -> None:
    for action, policy in (("freeze", "never"), ("thaw", "force")):
        assert run(keel_action, api, check=True, **SITE, action=action)["changed"]
        assert noted(api)["keel.sh/policy"] != policy
        assert run(keel_action, api, **SITE, action=action, by="ann")["changed"]
        assert not run(keel_action, api, **SITE, action=action)["changed"]
        assert noted(api)["keel.sh/policy"] == policy
    log = (api.have("ConfigMap", f"{make.NAME}-audit") or {})["data"]["log"].splitlines()
    assert [(line["holder"], line["parameters"]["action"]) for line in map(json.loads, log)] == [
        ("ann", "freeze"),
        ("ann", "thaw"),
    ]


def test_site_keeps_what_a_person_set(api: Cluster) -> None:
    noted(api)["abaci.infra/last-applied-keel-policy"] = "force"
    run(keel_action, api, **SITE, action="freeze")
    state = act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202).look()
    assert app_plan.keel(state, "force")[0]["keel.sh/policy"] == "never"


@pytest.mark.parametrize(
    ("before", "after"), [("minor", "minor"), ("never", "force"), ("", "force")], ids=["minor", "frozen", "none"]
)
def test_a_thaw_gives_back_the_policy_from_before_a_rollout_and_forgets_its_image(
    api: Cluster, before: str, after: str
) -> None:
    kept = app_image.RolledOut("app@sha256:1", make.IMAGE, before).text()
    noted(api).update({"keel.sh/policy": "never", "abaci.infra/rolled-out": kept})
    assert run(keel_action, api, **SITE, action="thaw")["changed"]
    assert noted(api)["keel.sh/policy"] == after and "abaci.infra/rolled-out" not in noted(api)


def test_what_cannot_be_is_refused_in_a_sentence(api: Cluster) -> None:
    api.record()["progress"] = '{"rollout": {"stamp": "x"}}'
    assert "playbooks/rollout.yml" in run(keel_action, api, **SITE, action="thaw")["msg"]
    del noted(api)["keel.sh/policy"]
    assert "nothing can freeze" in run(keel_action, api, **SITE, action="freeze")["msg"]
    assert "There is no StatefulSet" in run(keel_action, api, **SITE | {"name": "other"})["msg"]
    assert api.changes() == []


def test_somebody_who_changes_it_at_this_moment_is_not_overwritten(api: Cluster) -> None:
    api.fail("PUT", "StatefulSet", how=409)
    assert run(keel_action, api, **SITE, action="freeze")["failed"]
    assert noted(api)["keel.sh/policy"] == "force"


def test_why_reads_keels_own_log_and_changes_nothing(api: Cluster) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "keel-1", "namespace": "keel", "labels": {"app": "keel"}}, "spec": {}}
    api.put(pod)
    read: list[Request] = []
    plain = api._plain

    def log(request: Request) -> tuple[int, Any]:
        if request.subresource == "log":
            read.append(request)
            return 200, LOG.encode()
        answer: tuple[int, Any] = plain(request)
        return answer

    api._plain = log  # type: ignore[method-assign]
    answer = run(keel_action, api, **SITE, digest=B)
    assert [line[0] for line in answer["said"]] == ["√", "√", "!"] and answer["image"] == make.IMAGE
    assert [one.name for one in read] == ["keel-1"] and api.changes() == []
