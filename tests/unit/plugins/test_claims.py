"""What may be done with claims and volumes that are there; more rows are in tests/render/test_storage.py."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import claims


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1Gi", "1024Mi", True),
        ("1G", "1000M", True),
        ("1.5Gi", "1536Mi", True),
        ("1Gi", "1G", False),
        (1073741824, "1Gi", True),
        ("500m", "0.5", True),
        ("2Ti", "2048Gi", True),
        ("1k", "1000", True),
        ("1Ki", "1024", True),
        ("junk", "junk", True),
        ("junk", "1Gi", False),
        (None, "1Gi", False),
    ],
)
def test_quantities_are_compared_as_amounts(one: object, other: object, same: bool) -> None:
    assert claims.same_quantity(one, other) is same


def claim(size: str | None = "10Gi") -> dict[str, Any]:
    requests = {} if size is None else {"storage": size}
    place = {"name": "redis-data", "namespace": "abaci"}
    return {"kind": "PersistentVolumeClaim", "metadata": place, "spec": {"resources": {"requests": requests}}}


@pytest.mark.parametrize("found", [{}, claim("10240Mi"), claim(None)])
def test_a_claim_of_that_size_and_one_that_is_not_there_are_well(found: dict[str, Any]) -> None:
    assert claims.resize_error(found, "10Gi", "redis_storage_size") == ""
    assert claims.resize_error(claim("1Gi"), "", "redis_storage_size") == ""


def test_another_size_names_the_variable_the_claim_and_the_way_out() -> None:
    sentence = claims.resize_error(claim(), "20Gi", "redis_storage_size")
    assert sentence.startswith("redis_storage_size is 20Gi, but the claim redis-data in namespace abaci has 10Gi")
    assert "set redis_storage_size back to 10Gi" in sentence and "kubectl edit pvc redis-data -n abaci" in sentence


def test_a_volume_without_a_phase_is_left_alone() -> None:
    volume = {"kind": "PersistentVolume", "metadata": {"name": "new"}, "spec": {}}
    assert claims.storage_plan([volume, {}], "abaci", "nfs", ["new"]) == {"errors": [], "released": []}
