"""A run that has nothing to do changes nothing; check mode tells the truth."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from sitebed import ROOT, Bed

# How many modules a run that has nothing to do may execute, as tests/tools/callbacks/count.py counts them
HOST_MODULES = 8
LOCALHOST_MODULES = 25
# How many requests it may make to the API; none of them changes anything. It is 45, one for each kind, but for the
# check of the cluster (4), the pods (3) and the look at the database (3). The kubelet of a node without a pod takes 1
# (at most 2 of the bed's 3), a further look at replicas that are a moment behind 6.
API_REQUESTS = 53

KINDS = (
    "namespaces,serviceaccounts,configmaps,secrets,services,persistentvolumeclaims,persistentvolumes,deployments,"
    "daemonsets,statefulsets,poddisruptionbudgets,ingresses,ingressroutes.traefik.io,middlewares.traefik.io,"
    "mutatingadmissionpolicies,mutatingadmissionpolicybindings,helmchartconfigs.helm.cattle.io,networkpolicies,"
    "roles,rolebindings,clusterroles,clusterrolebindings,ingressclasses,storageclasses,serverstransports.traefik.io,tlsoptions.traefik.io,"
    "certificates.cert-manager.io,clusterissuers.cert-manager.io,customresourcedefinitions.apiextensions.k8s.io,"
    "mutatingwebhookconfigurations,validatingwebhookconfigurations"
)


def resource_versions(bed: Bed) -> dict[str, str]:
    items = bed.get(KINDS, "-A")["items"]
    return {
        "/".join((item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])): item["metadata"][
            "resourceVersion"
        ]
        for item in items
    }


def pods(bed: Bed) -> dict[str, Any]:
    return {
        item["metadata"]["uid"]: [status["restartCount"] for status in item["status"].get("containerStatuses", [])]
        for item in bed.get("pods", "-A")["items"]
    }


def services(bed: Bed) -> dict[str, str]:
    return {
        node: bed.node_exec(
            node,
            "systemctl",
            "show",
            "--property=ActiveEnterTimestampMonotonic",
            "k3s.service" if node.startswith("server") else "k3s-agent.service",
            "ssh.service",
        )
        for node in bed.nodes()
    }


def test_second_run_changes_nothing_restarts_nothing_and_writes_no_object(bed: Bed, tmp_path: Path) -> None:
    before = resource_versions(bed), pods(bed), services(bed)
    second = bed.playbook(count=tmp_path / "count.json")
    assert second.rc == 0, second.output[-4000:]
    assert second.total("changed") == 0 and "[WARNING]" not in second.output, second.output[-8000:]
    assert (resource_versions(bed), pods(bed), services(bed)) == before
    executed = second.count["executed"]
    print({host: len(found) for host, found in executed.items()}, second.count["lines"], second.count["results"])
    for host, found in executed.items():
        assert len(found) <= (LOCALHOST_MODULES if host == "localhost" else HOST_MODULES), "\n".join(found)
    writing = [asked for asked in second.requests if not asked.startswith("GET ") and "dryRun=All" not in asked]
    assert writing == []
    assert 0 < len(second.requests) <= API_REQUESTS, "\n".join(sorted(second.requests))


def test_check_mode_on_the_living_cluster_has_nothing_to_say(bed: Bed) -> None:
    check = bed.playbook("--check", "--diff")
    assert check.rc == 0, check.output[-4000:]
    assert check.total("changed") == 0, check.output[-8000:]


def test_the_collection_installed_by_its_tarball_brings_the_same_site(bed: Bed, tmp_path: Path) -> None:
    """From an empty project, as abaci.infra.site: nothing of the checkout is found there."""
    galaxy = [str(ROOT / ".venv/bin/ansible-galaxy"), "collection"]
    build = [*galaxy, "build", "--output-path", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (tarball,) = tmp_path.glob("*.tar.gz")
    folder = tmp_path / "collections"
    # What it depends on is in the Python package; --force, for the checkout is linked there, too.
    install = [*galaxy, "install", "--force", "--no-deps", str(tarball), "-p", str(folder)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    run = bed.playbook(playbook="abaci.infra.site", project=tmp_path)
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]
    read = bed.playbook("--syntax-check", playbook="abaci.infra.site", project=tmp_path)
    assert str(folder) in read.output, "it says which file it read"


def changed_objects(changed: list[dict[str, Any]]) -> set[str]:
    return {name for outcome in changed for name in outcome.get("changes", [])}


def test_check_names_the_objects_that_the_real_run_changes(bed: Bed) -> None:
    arguments = ("--tags", "app", "-e", '{"app_rate_average": 51, "app_in_flight": 99}')
    announced = changed_objects(bed.playbook("--check", "--diff", *arguments, want_changes=True).changed)
    done = changed_objects(bed.playbook(*arguments, want_changes=True).changed)
    assert announced == done
    assert {"Middleware abaci/rate-limit", "Middleware abaci/in-flight-req"} <= done
    back = bed.playbook("--tags", "app")
    assert back.rc == 0, back.output[-4000:]


def test_configuration_of_a_node_is_where_only_root_reads_it(bed: Bed) -> None:
    for node in bed.nodes():
        modes = bed.node_exec(node, "sh", "-c", "find /etc/rancher/k3s -type f -exec stat -c '%a %n' {} +")
        assert len(modes.splitlines()) >= 2 and {line.split()[0] for line in modes.splitlines()} == {"600"}, modes
