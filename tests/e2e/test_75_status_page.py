"""The page of status.yml in a real browser: it loads nothing, and shows what the text shows, well and degraded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sitebed import Bed, until

pytestmark = pytest.mark.long
# Root's browser has no sandbox. It may ask nobody for anything.
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
NOBODY = ("--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--window-size=1280,1400")


def kept(folder: Path) -> tuple[str, ...]:
    """Where backups are."""
    places = {"backup_directory": f"{folder}/backups", "cluster_backup_directory": f"{folder}/cluster"}
    return ("-e", json.dumps({**places, "cluster_backup_plain": True}))


def status(bed: Bed, folder: Path, kind: str) -> str:
    """The output of status.yml in its file."""
    file = folder / f"status.{kind}"
    given = ("-e", f"status_output={kind}", "-e", f"status_file={file}", "-e", "status_fails_at=never", *kept(folder))
    run = bed.playbook(*given, playbook="playbooks/status.yml")
    assert run.rc == 0, run.output[-4000:]
    return file.read_text()


def browse(page: Path, *arguments: str) -> str:
    """What the browser complains of."""
    done = subprocess.run(
        [*BROWSER, *NOBODY, f"--user-data-dir={page.parent / 'profile'}", *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line or "ERR_" in line)


def letters(text: object) -> str:
    """Without spaces and hyphens: a browser breaks lines at both, and pdftotext takes a hyphen there for its own."""
    return re.sub(r"[\s-]+", "", str(text))


def seen(page: Path) -> str:
    """The text that a person sees."""
    pdf = page.with_suffix(".pdf")
    assert browse(page, f"--print-to-pdf={pdf}", "--no-pdf-header-footer") == ""
    return letters(subprocess.run(["pdftotext", str(pdf), "-"], capture_output=True, text=True, check=True).stdout)


@pytest.fixture(params=["well", "degraded"])
def site(bed: Bed, request: pytest.FixtureRequest) -> Iterator[str]:
    """As it is, and with Redis away and Keel frozen."""
    if request.param == "well":
        yield "well"
        return
    bed.kubectl("scale", "deployment", "redis", "-n", "abaci", "--replicas=0")
    bed.kubectl("annotate", "statefulset/abaci-app", "-n", "abaci", "keel.sh/policy=never", "--overwrite")
    until(lambda: "/redis-" not in bed.kubectl("get", "pods", "-n", "abaci", "-o", "name"), 90, "Redis has ended")
    try:
        yield "degraded"
    finally:
        bed.kubectl("annotate", "statefulset/abaci-app", "-n", "abaci", "keel.sh/policy=force", "--overwrite")
        bed.kubectl("scale", "deployment", "redis", "-n", "abaci", "--replicas=1")
        bed.kubectl("rollout", "status", "deployment/redis", "-n", "abaci", "--timeout=120s", timeout=150)


def test_a_person_sees_on_the_page_what_text_and_json_say(bed: Bed, site: str, tmp_path: Path) -> None:
    """SCREENSHOTS names a folder for the pictures, as those in docs/images were made."""
    for playbook in ("backup", "cluster_backup"):
        copied = bed.playbook(*kept(tmp_path), playbook=f"playbooks/{playbook}.yml")
        assert copied.rc == 0, copied.output[-3000:]
    said = json.loads(status(bed, tmp_path, "json"))
    assert said["summary"]["word"] == site, said["summary"]
    page = tmp_path / "status.html"
    status(bed, tmp_path, "html")
    shown = seen(page)
    facts = said["facts"]
    expected = [pod["name"] for pod in facts["pods"]] + [node["name"] for node in facts["nodes"]]
    expected += [facts["application"]["image"], facts["identity"]["primary"]]
    for one in said["checks"]:
        if one["mark"] in ("warn", "fail"):
            expected += [one["cause"], one["command"]]
    lacking = [word for word in expected if letters(word) not in shown]
    assert not lacking, (lacking, shown)
    assert ("redis" in {one["slug"] for one in said["checks"] if one["mark"] == "fail"}) == (site == "degraded")
    picture = Path(os.environ.get("SCREENSHOTS", str(tmp_path))) / f"status-{site}.png"
    assert browse(page, f"--screenshot={picture}") == ""
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_the_screen_costs_a_dozen_requests_and_one_for_each_pod_and_kubelet(bed: Bed, tmp_path: Path) -> None:
    began = time.monotonic()
    run = bed.playbook("-e", "status_fails_at=never", playbook="playbooks/status.yml", count=tmp_path / "count")
    took = time.monotonic() - began
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]
    # A WebSocket is a port-forward to a pod, but for one connection that looks at the API's certificate; a kubelet is
    # reached through the API's proxy. A list of more than 500 objects goes on in pages.
    each = [asked for asked in run.requests if "WebSocket" in asked or "/proxy/" in asked]
    reads = [asked for asked in run.requests if asked not in each and "&continue=" not in asked]
    print(f"{took:.1f} s, {len(reads)} requests and {len(each)} to pods and kubelets: {sorted(run.requests)}")
    assert all(asked.startswith("GET ") for asked in run.requests)
    assert 0 < len(reads) <= 12 and len(each) <= len(bed.pods()) + len(bed.nodes()) + 1
    shown = run.output.partition("msg: |-")[2].partition("\n\n")[0].strip().splitlines()
    assert 10 < len(shown) <= 40
