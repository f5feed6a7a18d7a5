"""What is asked for a status, and what becomes of it where something does not answer."""

from __future__ import annotations

import factory_objects as make
import pytest
import well
from ansible_collections.abaci.infra.plugins.module_utils.status import checks


def test_a_site_that_is_well_has_no_complaint() -> None:
    facts = well.look()
    results = checks.run(facts)
    assert {one.slug: (one.mark, one.cause) for one in results if one.mark != "ok"} == {}
    summary = checks.summary(facts, results)
    assert summary.code == 0
    assert summary.sentence == (
        "Well: abaci-app-0 is primary, 2 replicas follow it, and writes are answered by the primary."
    )


@pytest.mark.parametrize("replicas", [1, 3, 7])
def test_eleven_requests_and_one_each_to_pods_and_kubelets(replicas: int) -> None:
    api = well.Site(replicas)
    well.look(api)
    asked = [one for one in api.requests if one.kind != "LiteFS"]
    kubelets = [one for one in asked if one.subresource == "proxy"]
    assert len(asked) - len(kubelets) == 11, [one.path for one in asked]
    assert len(kubelets) == replicas
    assert {one.name for one in api.requests if one.kind == "LiteFS"} == {f"{make.NAME}-{n}" for n in range(replicas)}
    assert api.changes() == []
