"""What a person or a program is shown: the same facts everywhere, one screen, nothing that is taken for markup."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
import test_checks as planted
import well
from ansible_collections.abaci.infra.plugins.module_utils.status import checks, facts, view

TEMPLATE = (Path(__file__).parents[3] / "roles/status/templates/status.html.j2").read_text()


def shown(found: facts.Facts) -> tuple[str, str, dict[str, Any]]:
    """The facts as text, HTML and JSON."""
    results = checks.run(found)
    summary = checks.summary(found, results)
    parts = (found, results, summary)
    return view.text(*parts), view.page(TEMPLATE, *parts), json.loads(json.dumps(view.document(*parts)))


SITES = ["well", "lagging replica", "fenced ordinal", "unfinished operation", "API away", "no StatefulSet"]


def site(name: str) -> facts.Facts:
    api = well.Site()
    if name != "well":
        planted.ON_THE_API[name][1](api)
    return well.look(api)


@pytest.mark.parametrize(
    ("ending", "said", "at"),
    [
        (".715669463 +0000 UTC m=+93784.123456789", "updated it 2 h ago", True),
        (".7 -0500 EST", "updated it 7 h ago", True),
        (" yesterday", "Keel follows it", False),
    ],
)
def test_when_keel_updated_the_application_is_read_as_keel_writes_it(ending: str, said: str, at: bool) -> None:
    api = well.Site()
    living = api.have("StatefulSet", make.NAME)
    assert living is not None
    noted = api.ago(2 * 3600 if "-05" not in ending else 12 * 3600).replace("T", " ").removesuffix("Z") + ending
    living["spec"]["template"]["metadata"]["annotations"] = {"keel.sh/update-time": noted}
    found = well.look(api)
    text, _page, document = shown(found)
    line = next(line for line in text.splitlines() if "Keel follows it" in line)
    assert line.endswith(said)
    updated = document["facts"]["delivery"]["updated_at"]
    assert bool(updated and updated.endswith("Z")) is at


@pytest.mark.parametrize("name", SITES)
def test_the_three_outputs_tell_the_same_facts(name: str) -> None:
    found = site(name)
    text, page, document = shown(found)
    read = html.unescape(re.sub(r"<[^>]+>", " ", page))
    said = json.dumps(document)
    squeezed = " ".join(text.split())
    for pod in document["facts"]["pods"]:
        row = next(line for line in text.splitlines() if line.strip().startswith(f"{pod['name']} "))
        for value in (pod["txid"], pod["node"], str(pod["restarts"]), pod["identity"]):
            assert str(value or "-") in row and str(value or "-") in read
    for node in document["facts"]["nodes"]:
        assert f"{node['name']}" in text and node["version"] in text and node["version"] in read
    for check in document["checks"]:
        if check["mark"] in ("warn", "fail"):
            assert check["command"] in text and check["command"] in read and check["cause"] in read
    assert document["summary"]["sentence"] in squeezed and document["summary"]["sentence"] in read
    for table in view.sections(found, checks.run(found)):
        for row_ in table.rows:
            for cell in row_:
                assert cell in text and " ".join(cell.split()) in " ".join(read.split())
    assert make.B not in said


def test_one_screen_whatever_happens() -> None:
    crowded = well.look(well.Site(9))
    many = tuple(facts.Unfinished(name, "2026-01-01T00:00:00Z", "ann", f"playbooks/{name}.yml") for name in "abcdefgh")
    lines = (facts.AuditLine("2026-01-01T00:00:00Z", "ann", "scale", "ended", "done"),) * 5
    stopped = tuple(dataclasses.replace(pod, running=False, role="none", stopped="it crashed") for pod in crowded.pods)
    crowded = dataclasses.replace(crowded, unfinished=many, audit=lines, pods=stopped, other_databases=("a.db",))
    text, _page, _document = shown(crowded)
    assert len(text.splitlines()) <= view.LINES
    assert "more, see status_output=json" in text
    for name in SITES:
        assert len(shown(site(name))[0].splitlines()) <= view.LINES


def test_a_screen_of_a_site_that_is_well() -> None:
    text, _page, _document = shown(site("well"))
    assert text.startswith("Well: abaci-app-0 is primary")
    assert "Do this" not in text
    assert re.search(r"abaci-app-0 +primary +0{15}5 +- +ok", text), text
    assert re.search(r"abaci-app-1 +replica +0{15}5 +0\.2 s +ok", text), text
    assert "  writes   answered by the primary, through 192.0.2.10:443\n" in text


def test_what_others_said_is_no_markup_and_no_terminal_command() -> None:
    evil = '<script>alert("x")</script>\x1b[2J'
    found = well.look()
    pods = tuple(dataclasses.replace(pod, node=evil, running=False, role="none", stopped=evil) for pod in found.pods)
    event = facts.Event("2026-01-01T00:00:00Z", evil, evil, evil, 1)
    audit = (facts.AuditLine("2026-01-01T00:00:00Z", evil, evil, evil, evil),)
    found = dataclasses.replace(found, pods=pods, events=(event,), audit=audit)
    text, page, _document = shown(found)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in text and "\x1b" not in view.lines(checks.run(found), checks.Summary(1, "degraded", "x"))
    assert not re.search(r"(?:src|href)=", page), "it loads nothing"
    ET.fromstring(view.junit(checks.run(found)))


def test_the_checks_have_a_line_each_with_the_mark_first() -> None:
    results = checks.run(site("lagging replica"))
    said = view.lines(results, checks.summary(site("well"), results))
    marked = [line for line in said.splitlines() if line.startswith("  ") and line[2] in view.MARKS.values()]
    assert len(marked) == len(results)
    assert "  ! replicas follow without lag (replicas-follow)\n      why: abaci-app-2 is 42 s behind" in said
    assert "      more: docs/failure-modes.md#replica-away\n" in said


def test_junit_counts_what_is_not_well() -> None:
    results = checks.run(site("lagging replica"))
    suites = ET.fromstring(view.junit(results)).findall("testsuite")
    assert [suite.get("name") for suite in suites] == list(dict.fromkeys(one.group for one in results))
    (failure,) = ET.fromstring(view.junit(results)).iter("failure")
    assert failure.get("type") == "warn"
    assert sum(int(suite.get("tests") or 0) for suite in suites) == len(results)


def test_a_group_can_be_looked_at_alone() -> None:
    assert {one.group for one in checks.run(site("well"), ["edge", "redis"])} == {"edge", "redis"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [("lagging replica", 1), ("frozen Keel", 1), ("a guard that holds the primary", 2), ("API away", 2)],
)
def test_the_summary_has_a_code(fault: str, code: int) -> None:
    found = site(fault)
    summary = checks.summary(found, checks.run(found))
    assert summary.code == code
    assert "\n" not in summary.sentence


def test_before_anything_is_installed_the_summary_is_about_the_hosts_alone() -> None:
    hosts = (facts.Host("node-1", "192.0.2.1", True, {}),)
    found = dataclasses.replace(well.look(), cluster_asked=False, hosts_asked=True, hosts=hosts)
    results = checks.run(found)
    assert {one.group for one in results} == {"inventory", "hosts", "fuse", "network"}
    assert checks.summary(found, results).sentence == "Well: nothing stands in the way of site.yml."
    small = dataclasses.replace(found, hosts=(facts.Host("node-1", "192.0.2.1", True, {"size": ("it is small.",)}),))
    summary = checks.summary(small, checks.run(small))
    assert (summary.code, summary.sentence) == (2, "Not ready for site.yml: node-1: it is small.")
