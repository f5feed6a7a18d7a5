"""An image is tried beside the site: what it lacks is named, the site notices nothing, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from publishing import images
from sitebed import Bed

CHOSEN = "app.kubernetes.io/component=image-try"


def tried(bed: Bed, folder: Path, **settings: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the lines by their slugs."""
    report = folder / "try.json"
    given = {"try_image_output": "json", "try_image_file": str(report), **settings}
    run = bed.playbook("-e", json.dumps(given), playbook="playbooks/try_image.yml")
    assert report.exists(), run.output[-6000:]
    checks = {one["slug"]: one for one in json.loads(report.read_text())["checks"]}
    print({slug: (one["mark"], one["cause"]) for slug, one in checks.items() if one["mark"] != "ok"})
    return run.rc, checks


@pytest.fixture(autouse=True)
def beside(bed: Bed) -> Any:
    """The site is as it was, and of the try nothing is there any more."""

    def site() -> list[tuple[Any, ...]]:
        kinds = "pods,configmaps,secrets,persistentvolumeclaims,networkpolicies"
        items = bed.get(kinds, "-n", "abaci")["items"]
        pods = {item["metadata"]["name"]: item["status"] for item in items if item["kind"] == "Pod"}
        restarts = [(name, one["restartCount"]) for name, status in pods.items() for one in status["containerStatuses"]]
        names = [(item["kind"], item["metadata"]["name"], item["metadata"]["uid"]) for item in items]
        return sorted([*names, *restarts])

    before = site()
    yield
    assert bed.get("namespaces", "-l", CHOSEN)["items"] == []
    assert site() == before


def test_the_image_of_the_site_does_all_that_it_has_to(bed: Bed, tmp_path: Path) -> None:
    code, checks = tried(bed, tmp_path)
    assert code == 0
    assert {slug for slug, one in checks.items() if one["mark"] == "fail"} == set()
    # What it says of its connections is nothing, so that they would have to be measured.
    assert {slug for slug, one in checks.items() if one["mark"] == "unknown"} <= {"keeps-connections"}
    sure = {"image-programs", "migrates", "listens", "runs-as", "opens-database", "answers-health", "ends", "read-only"}
    assert {checks[slug]["mark"] for slug in sure} == {"ok"}


def test_an_image_without_litefs_is_named(bed: Bed, tmp_path: Path) -> None:
    code, checks = tried(bed, tmp_path, app_image=images.REDIS)
    assert code == 2
    assert checks["image-pulled"]["mark"] == "ok"
    assert checks["image-programs"]["mark"] == "fail" and "litefs" in checks["image-programs"]["cause"]


def test_an_image_that_is_not_there_is_named_with_the_registrys_words(bed: Bed, tmp_path: Path) -> None:
    code, checks = tried(bed, tmp_path, app_image="ghcr.io/antialias/nothing:9")
    assert code == 2 and "not found" in checks["image-pulled"]["cause"]
    assert {one["mark"] for slug, one in checks.items() if slug != "image-pulled"} == {"unknown"}


def test_an_application_that_does_it_all_wrong_is_told_each_fault(bed: Bed, tmp_path: Path) -> None:
    """Only on localhost, no health, no database, no end: the sample's own Python with another program."""
    program = (
        "import http.server, signal; signal.signal(15, signal.SIG_IGN); "
        "http.server.HTTPServer(('127.0.0.1', 3000), http.server.SimpleHTTPRequestHandler)"
        ".serve_forever()"
    )
    code, checks = tried(
        bed,
        tmp_path,
        app_command=f'python3 -c "{program}"',
        app_migrate_command="",
        try_image_start_seconds=10,
        app_termination_grace_seconds=6,
    )
    assert code == 2
    assert "127.0.0.1 only" in checks["listens"]["cause"]
    assert "is answered with 404" in checks["answers-health"]["cause"]
    assert "had not ended" in checks["ends"]["cause"]
    assert (checks["opens-database"]["mark"], checks["read-only"]["mark"]) == ("warn", "unknown")


def test_in_check_mode_nothing_is_tried(bed: Bed) -> None:
    run = bed.playbook("--check", playbook="playbooks/try_image.yml")
    assert run.rc == 0 and "is not tried in check mode" in run.output, run.output[-3000:]
