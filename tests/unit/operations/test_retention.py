"""Which old backups go, on the controller as in the cluster's job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils.operations import retention

ROOT = Path(__file__).resolve().parents[3]
OURS = {"namespace": "abaci", "statefulset": "abaci-app", "database": "sqlite.db", "cluster_id": "LFSC0123456789ABCDEF"}


def backup(day: int, **changes: Any) -> dict[str, Any]:
    """A whole backup of a day in January, stamped on it."""
    time = f"2026-01-{day:02}T00:00:00Z"
    plain = {"schema": 1, "reason": "backup", "verified": True, "whole": True, "time": time, "file": f"{day}.sqlite"}
    return {**plain, **OURS, **changes}


NOW = backup(20)


@pytest.mark.parametrize(
    ("keep", "others", "gone"),
    [
        (0, [backup(day) for day in range(1, 20)], []),
        (1, [backup(18), backup(19)], [19, 18]),
        (2, [backup(17), backup(18), backup(19)], [18, 17]),
        (2, [backup(18), backup(19, reason="before restore")], []),
        (2, [backup(18), backup(19, verified=False)], []),
        (2, [backup(18), backup(19, schema=2)], []),
        *[(1, [backup(19, **{key: "another"})], []) for key in OURS],
        *[(1, [{name: value for name, value in backup(19).items() if name != key}], []) for key in OURS],
        (1, [backup(21), backup(30)], []),  # a clock was wrong: whose, nobody knows
        (2, [backup(18), backup(19), backup(30)], [18]),
        (2, [backup(18), backup(19, whole=False)], []),  # the last whole one stays
        (2, [backup(17), backup(18), backup(19, whole=False)], [17]),
        (1, [backup(20)], []),  # the one just made is found in the folder too
    ],
)
def test_only_older_ones_of_the_same_cluster_expire(keep: int, others: list[dict[str, Any]], gone: list[int]) -> None:
    found = retention.expired([*others, NOW], keep, NOW)
    assert [one["file"] for one in found] == [f"{day}.sqlite" for day in gone]


@pytest.mark.parametrize("made", [{**NOW, "reason": "of abaci-app-1"}, {**NOW, "cluster_id": None}])
def test_what_is_no_plain_backup_of_a_known_cluster_expires_nothing(made: dict[str, Any]) -> None:
    assert retention.expired([backup(19)], 1, made) == []


@pytest.mark.parametrize(
    ("fields", "stored", "whole"),
    [
        ({"size": 3, "stored_size": 3}, b"abc", True),
        ({"size": 3}, b"abc", True),  # as older versions wrote it
        ({"size": 3}, b"ab", False),
        ({"size": 9, "stored_size": 3, "encrypted": True}, b"abc", True),
        ({"size": 9, "stored_size": 3, "encrypted": True}, b"ab", False),
        ({"size": 9, "encrypted": True}, b"ab", True),
        ({"size": 9, "encrypted": True}, b"", False),
        ({"size": 3}, None, False),
    ],
)
def test_a_stored_file_is_whole_where_it_is_as_long_as_the_manifest_says(
    tmp_path: Path, fields: dict[str, Any], stored: bytes | None, whole: bool
) -> None:
    (tmp_path / f"a{retention.SUFFIX}").write_text(json.dumps({"schema": 1, "file": "a", **fields}))
    (tmp_path / f"b{retention.SUFFIX}").write_text("no JSON")
    if stored is not None:
        (tmp_path / "a").write_bytes(stored)
    (found,) = retention.read(tmp_path)
    assert found["whole"] is whole


def test_pruning_removes_manifest_and_file(tmp_path: Path) -> None:
    for one in (backup(18, size=1), backup(19, size=1), made := backup(20, size=1)):
        (tmp_path / one["file"]).write_text("x")
        (tmp_path / (one["file"] + retention.SUFFIX)).write_text(json.dumps(one))
    assert retention.prune(tmp_path, 2, made) == ["18.sqlite"]
    assert sorted(path.name[:2] for path in tmp_path.iterdir()) == ["19", "19", "20", "20"]


def test_the_job_runs_with_what_its_configmap_holds(tmp_path: Path) -> None:
    """Its mounted files are all it has: each is in the ConfigMap, and they import nothing else."""
    role = ROOT / "roles/backup"
    shared = yaml.safe_load((role / "vars/main.yml").read_text())["__backup_shared"]
    sources = [role / "files/job.py", *(ROOT / "plugins/module_utils" / name for name in shared)]
    environment = jinja2.Environment(trim_blocks=True)
    environment.filters["basename"] = os.path.basename

    def rendered(kind: str) -> str:
        # The loops alone: what a file is and what else stands there is of no matter here.
        lines = (role / f"templates/{kind}-backup.yml.j2").read_text().splitlines(keepends=True)
        wanted = [line for line in lines if re.search(r"\{% (for file|endfor)|basename|key: |^  [a-z.]+: ", line)]
        start = next(number for number, line in enumerate(wanted) if "for file" in line)
        stop = next(number for number in range(start, len(wanted)) if "endfor" in wanted[number]) + 1
        loop = environment.from_string("".join(wanted[start:stop])).render(__backup_shared=shared)
        return "".join(line for line in wanted[:start] + wanted[stop:] if "{%" not in line) + loop

    mounted = re.findall(r"\{key: (\S+), path: (\S+)\}", rendered("cronjob"))
    keys = re.findall(r"^  ([a-z.]+): ", rendered("configmap"), re.MULTILINE)
    assert {key for key, _path in mounted} <= set(keys) and len(mounted) == len(shared) + 2
    for key, path in mounted:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        source = next((found for found in sources if found.name == key), None)
        shutil.copy(source, tmp_path / path) if source else (tmp_path / path).touch()
    subprocess.run(
        [sys.executable, "-IBc", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import job"], check=True
    )
