"""Bad input to roles/cluster_backup ends in a sentence that names the variable."""

from __future__ import annotations

from typing import Any

import pytest
from evaluating import errors

GOOD: dict[str, Any] = {"cluster_backup_plain": True}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"cluster_backup_plain": False}, "set cluster_backup_encrypt_command"),
        ({"cluster_backup_schedule": "daily"}, "cluster_backup_path does not say where"),
        ({"cluster_backup_schedule_state": "present", "cluster_backup_path": "/x"}, "cluster_backup_schedule is empty"),
        ({"cluster_backup_keep": -1}, "cluster_backup_keep -1 is negative"),
        ({"cluster_backup_folder": "/x"}, "cluster_backup_folder are not known"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: dict[str, Any], words: str) -> None:
    (sentence,) = errors("cluster_backup", **{**GOOD, **variables})
    assert words in sentence


def test_good_input_is_none() -> None:
    assert errors("cluster_backup", **GOOD) == []
    for state in ("absent", "unmanaged"):
        assert (
            errors("cluster_backup", **GOOD, cluster_backup_schedule="daily", cluster_backup_schedule_state=state) == []
        )
    encrypted = {
        "cluster_backup_encrypt_command": ["age"],
        "cluster_backup_schedule": "daily",
        "cluster_backup_path": "/x",
    }
    assert errors("cluster_backup", **encrypted) == []
