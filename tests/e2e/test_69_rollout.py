"""An image that somebody rolls out: paused where it is bad, with the site up, and the way back; migrations first."""

from __future__ import annotations

import base64
import json
import tarfile
import time
from pathlib import Path

import operating as op
import pytest
from operating import operate
from publishing import application, images, publish
from sitebed import ROOT, Bed, background, until
from test_72_keel import REPOSITORY, annotated, image_of, versions

REGISTRY = "ghcr.io"
BACK_S = 60


def push(bed: Bed, tag: str, folder: Path, *entries: images.Entry) -> str:
    """An image under a tag of its own; its name."""
    publish(bed, application(*entries), f"{REPOSITORY}:{tag}", folder)
    return f"{REGISTRY}/{REPOSITORY}:{tag}"


def version(tag: str) -> images.Entry:
    return images.Entry("app/VERSION", f"{tag}\n".encode())


@pytest.fixture
def settled(bed: Bed) -> Bed:
    """As site.yml leaves it, followed by Keel."""
    run = bed.playbook("--tags", "app")
    assert run.rc == 0, run.output[-4000:]
    return bed


def keel(bed: Bed, action: str) -> str:
    """What playbooks/keel.yml says."""
    run = bed.playbook("-e", f"keel_action={action}", playbook="playbooks/keel.yml")
    assert run.rc == 0, run.output[-4000:]
    return run.output


def thaw(bed: Bed) -> None:
    keel(bed, "thaw")
    run = bed.playbook("--tags", "app")
    assert run.rc == 0, run.output[-4000:]
    assert "@" not in image_of(bed) and annotated(bed)["keel.sh/policy"] == "force"


def test_a_bad_image_pauses_with_the_cause_the_site_stays_up_and_the_way_back_takes_a_minute(
    settled: Bed, tmp_path: Path
) -> None:
    bed = settled
    before, running = image_of(bed), versions(bed)
    bad = push(
        bed,
        "bad",
        tmp_path,
        version("bad"),
        images.Entry("app/server.py", b"raise SystemExit('no such table: users')\n"),
    )
    seen: list[tuple[str, int]] = []

    def visit() -> None:
        seen.append(("GET", bed.edge("GET", "/", timeout=10).status))
        body = json.dumps({"body": "while it is paused"}).encode()
        headers = {"Content-Type": "application/json"}
        seen.append(("POST", bed.edge("POST", "/api/records", body, headers=headers, timeout=10).status))

    with background(visit, 1):
        run = operate(bed, "rollout", "-e", f"rollout_image={bad}", backups=tmp_path)
        assert run.rc != 0 and "Paused at abaci-app-2" in run.output, run.output[-4000:]
        assert "no such table: users" in run.output and "playbooks/rollback.yml" in run.output
        assert op.manifests(tmp_path), "a backup first"
        site = bed.playbook("--tags", "app")
        assert site.rc != 0 and "playbooks/rollback.yml" in site.output
        begun = time.monotonic()
        back = operate(bed, "rollback", backups=tmp_path)
        took = time.monotonic() - begun
    assert back.rc == 0, back.output[-4000:]
    print(f"back {took:.0f} s after the command; answers meanwhile: {sorted(set(seen))}")
    assert took <= BACK_S
    assert versions(bed) == running and image_of(bed) == before
    assert annotated(bed)["keel.sh/policy"] == "force"
    assert {status for _method, status in seen} <= {200, 201}, sorted(set(seen))
    assert [line["operation"] for line in op.audit(bed)][-4:] == ["rollout", "rollout", "rollback", "rollback"]
    op.agree(bed)


def test_what_was_rolled_out_by_hand_is_kept_by_site_yml_which_says_so(settled: Bed, tmp_path: Path) -> None:
    bed, tag = settled, f"v{time.time_ns()}"
    run = operate(bed, "rollout", "-e", f"rollout_image={push(bed, tag, tmp_path, version(tag))}", backups=tmp_path)
    assert run.rc == 0, run.output[-4000:]
    assert versions(bed) == {tag} and "@sha256:" in image_of(bed)
    assert annotated(bed)["keel.sh/policy"] == "never"
    first = bed.playbook("--tags", "app")
    assert first.rc == 0 and "rolled out by hand" in first.output, first.output[-4000:]
    again = bed.playbook("--tags", "app")
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]
    assert versions(bed) == {tag}
    thaw(bed)


OLD_SCHEMA = "new code on the old schema"


def migrating(column: str) -> list[images.Entry]:
    """The application with one column more, which it notes the lack of at each request; its schema keeps its number, so
    that the older build runs on it afterwards."""
    source = ROOT / "testbed/app"
    before, _main, _rest = (source / "migrate.py").read_text().partition('\nif __name__ == "__main__":')
    migrate = f"""{before}
if __name__ == "__main__":
    code = main()
    db = sqlite3.connect("/litefs/sqlite.db", isolation_level=None, timeout=5)
    if "{column}" not in [row[1] for row in db.execute("PRAGMA table_info(records)")]:
        db.execute("ALTER TABLE records ADD COLUMN {column} INTEGER")
    sys.exit(code)
"""
    head = '        """Answer the request; False when the connection became a WebSocket and is over."""\n'
    look = f"""\
        with contextlib.closing(sqlite3.connect("file:/litefs/sqlite.db?mode=ro", uri=True, timeout=5)) as db:
            if "{column}" not in [row[1] for row in db.execute("PRAGMA table_info(records)")]:
                log("{OLD_SCHEMA}")
"""
    server = (source / "server.py").read_text()
    assert head in server
    return [
        images.Entry("app/migrate.py", migrate.encode(), mode=0o755),
        images.Entry("app/server.py", server.replace(head, head + look).encode()),
    ]


@pytest.mark.parametrize(("order", "seen"), [("primary_first", False), ("primary_last", True)])
def test_the_primary_first_no_request_sees_new_code_on_the_old_schema(
    settled: Bed, tmp_path: Path, order: str, seen: bool
) -> None:
    """With the primary last some do, which shows that they would be noticed."""
    bed, tag = settled, f"m{time.time_ns()}"
    image = push(bed, tag, tmp_path, version(tag), *migrating(f"of_{order}"))
    with background(lambda: bed.edge("GET", "/api/records", timeout=10), 0.2):
        given = ("-e", f"rollout_image={image}", "-e", f"rollout_order={order}")
        run = operate(bed, "rollout", *given, backups=tmp_path)
    assert run.rc == 0, run.output[-4000:]
    assert versions(bed) == {tag}
    logs = "".join(bed.kubectl("logs", "-n", "abaci", pod["metadata"]["name"], "-c", "app") for pod in bed.pods())
    assert (OLD_SCHEMA in logs) is seen
    until(lambda: f"of_{order}" in bed.rows("abaci-app-2", "pragma table_info(records)"), 30, "the column everywhere")
    thaw(bed)


def test_a_rollout_that_is_killed_after_each_of_its_acts_comes_to_its_end(settled: Bed, tmp_path: Path) -> None:
    acts = op.until_done(
        settled, "rollout", "-e", "rollout_image=" + push(settled, "k", tmp_path, version("k")), backups=tmp_path
    )
    assert len(acts) >= 4, acts
    assert versions(settled) == {"k"}
    op.agree(settled)
    thaw(settled)


def test_keel_is_frozen_by_a_playbook_and_says_why_it_did_not_update(settled: Bed, tmp_path: Path) -> None:
    bed = settled
    until(lambda: "Keel follows" in keel(bed, "why"), 120, "Keel follows", every=5)
    assert "nothing newer" in keel(bed, "why")
    keel(bed, "freeze")
    frozen = bed.playbook("--tags", "app")
    assert frozen.rc == 0 and "keeps keel.sh/policy never" in frozen.output
    running = versions(bed)
    push(bed, "latest", tmp_path, version(f"v{time.time_ns()}"))
    said = keel(bed, "why")
    assert "Keel is frozen" in said and "another build" in said
    assert versions(bed) == running
    thaw(bed)


def test_a_report_has_no_secret_of_the_site(settled: Bed, tmp_path: Path) -> None:
    run = settled.playbook("-e", f"report_directory={tmp_path}", playbook="playbooks/report.yml")
    assert run.rc == 0, run.output[-4000:]
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = [archive.extractfile(entry) for entry in archive.getmembers()]
        whole = b"".join(file.read() for file in files if file)
    secrets = settled.get("secrets", "-n", "abaci")["items"]
    values = [base64.b64decode(value) for one in secrets for value in (one.get("data") or {}).values()]
    long = [value for value in values if len(value) >= 6]
    assert long and not [value[:4] for value in long if value in whole or base64.b64encode(value) in whole]
    print(f"{len(whole)} bytes in {len(files)} files, none of {len(long)} values of Secrets in them")
