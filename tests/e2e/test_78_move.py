"""The advice of a refusal, followed literally: a site goes to another name, and a port changes, without a lost row."""

from __future__ import annotations

from pathlib import Path

from operating import operate, post
from sitebed import Bed, until

NEW = ("-e", "app_name=shop")
ABSENT = ("-e", "app_state=absent")


def rows(bed: Bed, name: str) -> str:
    return bed.rows(f"{name}-0", "SELECT count(*), total(id) FROM records")


def ready(bed: Bed, name: str) -> None:
    def all_of_them() -> bool:
        pods = bed.pods(name=name)
        return len(pods) == 3 and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            for pod in pods
        )

    until(all_of_them, 180, f"three pods of {name}")


def done(bed: Bed, *arguments: str) -> None:
    run = bed.playbook(*arguments)
    assert run.rc == 0, run.output[-4000:]


def test_a_site_moves_to_another_name_by_the_steps_that_the_refusal_names(bed: Bed, tmp_path: Path) -> None:
    post(bed, 5, "before the move")
    wanted = rows(bed, "abaci-app")
    refused = bed.playbook("--tags", "app", *NEW)
    assert refused.rc == 2 and "or move it by playbooks/backup.yml and site.yml" in " ".join(refused.output.split())
    backup = operate(bed, "backup", backups=tmp_path)
    assert backup.rc == 0, backup.output[-4000:]
    done(bed, "--tags", "app", *ABSENT)
    done(bed, "--tags", "redis,app,keel", *NEW)
    (file,) = tmp_path.glob("*.sqlite")
    record = bed.get("configmap", "shop-litefs-identity", "-n", "abaci")["data"]
    cluster = record["clusterID"]
    restored = operate(
        bed,
        "restore",
        *NEW,
        "-e",
        f"restore_from={file}",
        "-e",
        f"restore_overwrite_cluster_id={cluster}",
        backups=tmp_path,
    )
    assert restored.rc == 0, restored.output[-4000:]
    assert rows(bed, "shop") == wanted
    # And back to the name that the other tests know, on the volumes that absent kept.
    done(bed, "--tags", "app", *NEW, *ABSENT)
    done(bed)
    ready(bed, "abaci-app")
    assert rows(bed, "abaci-app") == wanted


def test_litefs_gets_another_port_by_the_steps_that_the_refusal_names(bed: Bed) -> None:
    wanted = rows(bed, "abaci-app")
    port = ("--tags", "app", "-e", "app_litefs_port=20203")
    refused = bed.playbook(*port)
    assert refused.rc == 2 and "app_state: absent first, which keeps the data" in " ".join(refused.output.split())
    done(bed, "--tags", "app", *ABSENT)
    done(bed, *port)
    assert rows(bed, "abaci-app") == wanted
    done(bed, *port, *ABSENT)
    done(bed)
    assert rows(bed, "abaci-app") == wanted
