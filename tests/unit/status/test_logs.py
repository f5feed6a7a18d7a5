"""Logs of several containers in one order."""

from __future__ import annotations

from typing import Any

import factory_objects as make
import pytest
import well
from ansible_collections.abaci.infra.plugins.module_utils.status import logs
from ansible_collections.abaci.infra.plugins.modules import site_logs
from fake_api import LiteFS, run

SAID = {
    f"{make.NAME}-0": "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:03Z error: three\n",
    f"{make.NAME}-1": "2026-01-01T00:00:02Z two \x1b[31mred\n",
    "keel-7f9c-x": "2026-01-01T00:00:04Z looked\n",
}


def site() -> well.Site:
    api = well.Site(2)
    for pod, said in SAID.items():
        node = api.litefs.get(pod) or LiteFS()
        node.log = said
        api.litefs[pod] = node
    for pod in api.all("Pod"):
        pod["spec"].setdefault("containers", [{"name": "keel"}])
    return api


def read(api: well.Site, **given: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(site_logs, api, namespace=make.NAMESPACE, name=make.NAME, **given)
    return answer


def test_lines_stand_in_the_order_of_their_times_and_obey_no_terminal() -> None:
    api = site()
    assert read(api)["shown"] == [
        "2026-01-01T00:00:01 abaci-app-0/app: one",
        "2026-01-01T00:00:02 abaci-app-1/app: two  [31mred",
        "2026-01-01T00:00:03 abaci-app-0/app: error: three",
    ]
    asked = [one for one in api.requests if one.subresource == "log"]
    assert [one.query["sinceSeconds"] for one in asked] == ["600", "600"]
    assert api.changes() == []


def test_parts_beside_the_application_are_found_by_their_owner() -> None:
    assert read(site(), of=["keel"])["shown"] == ["2026-01-01T00:00:04 keel-7f9c-x/keel: looked"]


def test_a_filter_pods_and_the_last_lines() -> None:
    assert read(site(), filter="error|looked", of=["app", "keel"])["shown"][0].endswith("error: three")
    assert len(read(site(), lines=1)["shown"]) == 1
    assert {line.split()[1] for line in read(site(), pods=["abaci-app-1"])["shown"]} == {"abaci-app-1/app:"}


def test_a_log_that_is_not_there_is_told_and_holds_nobody_up() -> None:
    api = site()
    api.fail("GET", "Pod", f"{make.NAME}-0", how=400)
    answer = read(api)
    assert len(answer["shown"]) == 1
    assert answer["unread"][0].startswith("abaci-app-0/app could not be read: ")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"since": "soon"}, "'soon' is no duration: write it as 90, 10m, 2h or 1d."),
        ({"filter": "("}, "The filter '(' is no regular expression"),
        ({"pods": ["abaci-app-9"]}, "There is no pod abaci-app-9 of app: there are abaci-app-0, abaci-app-1."),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    answer = read(site(), **given)
    assert answer["failed"] and answer["msg"].startswith(sentence)


def test_an_api_that_is_away_is_a_sentence() -> None:
    api = site()
    api.fail("GET", "Pod")
    assert "does not answer" in read(api)["msg"]


@pytest.mark.parametrize(("text", "wanted"), [("90", 90), ("10m", 600), ("2 h", 7200), ("1d", 86400), ("5min", 300)])
def test_durations(text: str, wanted: int) -> None:
    assert logs.seconds(text) == wanted
