"""What was acknowledged after an import is there whatever the operator is told to do next."""

from __future__ import annotations

import json
from pathlib import Path

import operating as op
import pytest
from operating import operate, refused
from sitebed import Bed, until


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once") / "backups"


def acknowledged(bed: Bed, *bodies: str) -> None:
    for body in bodies:
        assert bed.edge("POST", "/api/records", json.dumps({"body": body}).encode()).status == 201


def there(bed: Bed, *bodies: str) -> list[str]:
    listed = ", ".join(f"'{body}'" for body in bodies)
    query = f"select count(*) from records where body in ({listed})"
    return [str(bed.rows(f"abaci-app-{ordinal}", query)) for ordinal in (0, 1, 2)]


def progress(bed: Bed) -> dict[str, object]:
    kept: dict[str, object] = json.loads(op.record(bed).get("progress", "{}"))
    return kept


def test_rows_written_between_a_restore_the_reset_that_it_advises_and_the_same_restore_again_stay(
    bed: Bed, backups: Path
) -> None:
    op.agree(bed)
    assert operate(bed, "backup", backups=backups).rc == 0
    file = backups / op.manifests(backups)[0]["file"]
    acknowledged(bed, "goes with the restore")
    op.agree(bed)
    op.mismatch(bed, 2)
    first = operate(bed, "restore", "-e", f"restore_from={file}", backups=backups)
    assert first.rc == 0, first.output[-4000:]
    assert "abaci-app-2 holds the cluster" in first.output and "replica_reset.yml" in first.output
    until(lambda: bed.edge("GET", "/api/records").status == 200, 60, "the site answers")
    acknowledged(bed, "one", "two", "three")

    reset = operate(bed, "replica_reset", "-e", "replica_reset_targets=[2]", backups=backups)
    assert reset.rc == 0, reset.output[-4000:]
    again = operate(bed, "restore", "-e", f"restore_from={file}", backups=backups)
    refused(again, "was imported at", "restore_reimport=")
    op.agree(bed)
    assert there(bed, "one", "two", "three") == ["3"] * 3
    assert there(bed, "goes with the restore") == ["0"] * 3


def test_a_restore_that_was_killed_after_its_import_is_only_brought_to_its_end_whatever_lies_between(
    bed: Bed, backups: Path
) -> None:
    assert operate(bed, "backup", backups=backups).rc == 0
    file = backups / max(one["file"] for one in op.manifests(backups) if one["reason"] == "backup")
    acknowledged(bed, "goes as well")
    op.agree(bed)
    op.mismatch(bed, 2)
    killed = operate(bed, "restore", "-e", f"restore_from={file}", backups=backups, interrupt="act")
    assert "INTERRUPTED after" in killed.output, killed.output[-3000:]
    acknowledged(bed, "four", "five")

    reset = operate(bed, "replica_reset", "-e", "replica_reset_targets=[2]", backups=backups)
    assert reset.rc == 0 and "restore is not finished" in reset.output, reset.output[-4000:]
    site = bed.playbook("--tags", "app")
    assert site.rc == 0 and "restore is not finished" in site.output, site.output[-4000:]
    ended = operate(bed, "restore", "-e", f"restore_from={file}", backups=backups)
    assert ended.rc == 0 and "it is not imported again" in ended.output, ended.output[-4000:]
    assert "restore" not in progress(bed)
    assert there(bed, "four", "five") == ["2"] * 3 and there(bed, "goes as well") == ["0"] * 3


def test_site_yml_does_not_begin_while_an_operation_is_at_work_nor_does_an_operation_while_it_works(
    bed: Bed, backups: Path
) -> None:
    op.lock_by_another(bed)
    site = bed.playbook("--tags", "app", "-e", '{"app_env": {"NEW": "x"}}')
    assert site.rc != 0 and "somebody@elsewhere/1 is at work here" in site.output
    bed.kubectl("delete", "lease", "abaci-app-operation", "-n", "abaci")
    config = bed.get("configmap", "app-config", "-n", "abaci")["data"]
    assert "NEW" not in config
    site = bed.playbook("--tags", "app")
    assert site.rc == 0, site.output[-4000:]
    # A run that finds no difference takes no lock, so there may be no Lease at all.
    assert [lease for lease in bed.get("leases", "-n", "abaci")["items"] if lease["spec"].get("holderIdentity")] == []
    run = operate(bed, "scale", "-e", "scale_replicas=3", backups=backups)
    assert run.rc == 0, run.output[-3000:]
