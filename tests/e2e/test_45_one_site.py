"""A second site by accident, and a secret that a shorter variable would drop: refused, or kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sitebed import Bed, PlaybookRun

SECRET = ("secret", "app-env", "-n", "abaci")


def objects(bed: Bed) -> set[tuple[str, str, str, str]]:
    """All objects of the kinds that a run applies, in all namespaces."""
    kinds = "statefulset,deployment,configmap,secret,service,ingress,ingressroute,middleware,networkpolicy,namespace"
    found = [(item["kind"], item["metadata"]) for item in bed.get(kinds, "--all-namespaces")["items"]]
    return {(kind, item.get("namespace", ""), item["name"], item["uid"]) for kind, item in found}


def refused(run: PlaybookRun) -> str:
    """The one sentence of the one task that failed."""
    assert run.rc == 2 and run.total("failed") == 1 and run.total("changed") == 0, run.output[-4000:]
    # In YAML a quote is doubled.
    return " ".join(run.output.partition("fatal: ")[2].partition("PLAY RECAP")[0].split()).replace("''", "'")


@pytest.mark.parametrize(
    "given",
    [
        ("--tags", "app,redis", "-e", "app_name=shop"),
        ("--tags", "app,redis", "-e", "app_namespace=prod"),
        ("-e", "app_name=shop", "-e", "app_namespace=prod"),
    ],
    ids=" ".join,
)
def test_another_name_for_the_site_that_lives_makes_no_object(bed: Bed, given: tuple[str, ...]) -> None:
    before = objects(bed)
    said = refused(bed.playbook(*given))
    assert "abaci.localhost is served by" in said and "would be a second, empty site" in said
    assert "set app_name and app_namespace to the names of the site that lives, or move it by" in said
    assert objects(bed) == before


def test_a_second_site_with_a_domain_and_a_namespace_of_its_own_passes_the_check(bed: Bed) -> None:
    run = bed.playbook("--tags", "preflight", "-e", "app_namespace=second", "-e", "app_domain=second.localhost")
    assert run.rc == 0, run.output[-4000:]


def inventory_of(bed: Bed, folder: Path, **groups: dict[str, Any]) -> Path:
    """An inventory with these groups and this bed's variables."""
    path = folder / "hosts.yml"
    children = {name: {"hosts": hosts} for name, hosts in groups.items()}
    path.write_text(yaml.safe_dump({"all": {"vars": bed.variables, "children": children}}))
    return path


def test_an_inventory_of_other_groups_is_refused(bed: Bed, tmp_path: Path) -> None:
    given = inventory_of(bed, tmp_path, servers={"server-0": {}}, agents={"agent-0": {}})
    for playbook, more in (("site.yml", ()), ("playbooks/scale.yml", ("-e", "scale_replicas=2"))):
        run = playbook_with(bed, given, *more, playbook=playbook)
        assert "has no host in the group k3s_server" in refused(run)


@pytest.mark.parametrize(
    ("playbook", "more"),
    [
        ("site.yml", ("--tags", "app")),
        ("playbooks/scale.yml", ("-e", "scale_replicas=2")),
        ("playbooks/backup.yml", ()),
        ("playbooks/replica_reset.yml", ("-e", "replica_reset_targets=[1]")),
        ("playbooks/promote.yml", ("-e", "promote_accept_loss_after=0")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_kubeconfig_of_another_cluster_is_refused(
    bed: Bed, tmp_path: Path, playbook: str, more: tuple[str, ...]
) -> None:
    """Hosts of the same names elsewhere, and this bed's kubeconfig."""
    hosts = {"ansible_host": "198.51.100.1"}
    given = inventory_of(bed, tmp_path, k3s_server={"server-0": hosts}, k3s_agent={"agent-0": hosts})
    before = objects(bed)
    said = refused(playbook_with(bed, given, *more, playbook=playbook))
    assert "has none of this inventory's hosts" in said and "was applied from" in said
    assert objects(bed) == before


def playbook_with(bed: Bed, inventory: Path, *arguments: str, playbook: str) -> PlaybookRun:
    there = bed.inventory
    bed.inventory = inventory
    try:
        return bed.playbook(*arguments, playbook=playbook)
    finally:
        bed.inventory = there


def test_a_secret_that_was_made_once_survives_a_shorter_variable(bed: Bed) -> None:
    before = bed.get(*SECRET)["data"]["AUTH_SECRET"]
    shorter = json.dumps({"app_secrets": {"EXTRA": "x"}})
    run = bed.playbook("--tags", "app", "-e", shorter)
    assert run.rc == 0 and "Secret app-env keeps AUTH_SECRET" in run.output, run.output[-4000:]
    assert bed.get(*SECRET)["data"].keys() >= {"AUTH_SECRET", "EXTRA"}
    run = bed.playbook("--tags", "app", "-e", json.dumps({"app_secrets_removed": ["EXTRA"]}))
    assert run.rc == 0, run.output[-4000:]
    after = bed.get(*SECRET)["data"]
    assert after["AUTH_SECRET"] == before and "EXTRA" not in after
    run = bed.playbook("--tags", "app")
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]


@pytest.mark.parametrize(
    ("variable", "value", "now"), [("app_litefs_port", 20203, 20202), ("app_proxy_port", 8081, 8080)]
)
def test_a_port_that_pods_speak_on_to_each_other_does_not_change(bed: Bed, variable: str, value: int, now: int) -> None:
    before = objects(bed)
    said = refused(bed.playbook("--tags", "app", "-e", f"{variable}={value}"))
    assert f"{variable} is {value}" in said and f"set {variable} back to {now}" in said
    assert objects(bed) == before
