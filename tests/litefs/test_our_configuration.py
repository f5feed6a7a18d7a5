"""The litefs.yml that our role renders, under real LiteFS."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import to_bool
from litefs_cluster import APP, DATABASE, REPOSITORY, Cluster, MakeCluster, Node, request, until

ROLE = REPOSITORY / "roles" / "app"
HEADLESS = "abaci-app-headless.abaci.svc.cluster.local"


def defaults() -> dict[str, Any]:
    """The role's defaults that hold no expression."""
    loaded: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    constants: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    return {name: value for name, value in (loaded | constants).items() if "{{" not in str(value)}


def render(primary_ordinal: int, **changes: Any) -> str:
    """litefs.yml as Ansible renders it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"to_json": json.dumps, "bool": to_bool}
    template = environment.from_string((ROLE / "templates" / "litefs.yml.j2").read_text())
    plan = {"primary_ordinal": primary_ordinal}
    computed = {"__app_plan": plan, "__app_headless": HEADLESS, "app_backup_before_migration": False}
    computed |= {"app_replica_read_only": False, "__app_check_command": "true"}
    known = defaults() | computed | changes
    run = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__app_run_command"]
    return template.render(known | {"__app_run_command": environment.from_string(run).render(known)})


def on_this_machine(node: Node, primary_ordinal: int) -> str:
    """The same file with this machine's paths, ports and the one address that DNS would know."""
    text = render(
        primary_ordinal,
        __app_mount=str(node.mount),
        __app_data=str(node.data),
        app_litefs_port=node.api,
        app_proxy_port=node.proxy,
        app_port=node.app,
        app_database=DATABASE,
        app_command=f"python3 {APP}/server.py",
        app_migrate_command=f"python3 {APP}/migrate.py",
        __app_check_command=f"sh {ROLE}/files/check_database.sh {DATABASE} {node.data} {node.root}/record",
        app_replica_read_only=True,
        __app_read_only_command=f"sh {ROLE}/files/read_only_replica.sh ${{POD_NAME == 'abaci-app-{primary_ordinal}'}}"
        f" {node.mount} {node.data}",
    )
    address = f"http://{node.primary.name}.{HEADLESS}:{node.api}"
    assert text.count(address) == 1
    return text.replace(address, f"http://127.0.0.1:{node.primary.api}")


@pytest.fixture(params=[0, 1], ids=["primary 0", "primary 1"])
def cluster(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Cluster:
    cluster = make_cluster(2, primary=request.param).with_app("delete")
    for node in (cluster.primary, *cluster.replicas):
        node.launch(on_this_machine(node, request.param))
    for node in cluster.nodes:
        node.wait_ready()
    return cluster


def test_litefs_accepts_it_and_exactly_the_recorded_ordinal_is_primary(cluster: Cluster) -> None:
    for node in cluster.nodes:
        word = "true" if node is cluster.primary else "false"
        assert f"Using static primary: primary={word} hostname={cluster.primary.name}" in node.log()
        assert node.info()["isPrimary"] is (node is cluster.primary)
    assert "schema of" in cluster.primary.log()
    assert all("schema of" not in node.log() for node in cluster.replicas)
    for node in cluster.nodes:
        assert (f"{node.mount} is read-only" in node.log()) is (node is not cluster.primary)


def test_a_write_a_read_and_a_get_that_writes_go_where_the_design_says(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    assert cluster.primary.post("x").status == 201
    cluster.wait_replicated()
    assert request(replica.proxy, "GET", "/api/records/count").json() == {"count": 1, "pod": replica.name}
    answer = request(replica.proxy, "GET", "/api/auth/callback?user=x")
    assert answer.headers["fly-replay"] == f"instance={cluster.primary.name}"


def test_the_application_is_told_whether_it_is_on_the_primary(cluster: Cluster) -> None:
    for node in cluster.replicas:
        assert "replica: journal mode left alone" in node.log()
    assert "replica: journal mode left alone" not in cluster.primary.log()


def test_a_command_with_quotes_reaches_the_application(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    command = """sh -c 'echo "candidate $LITEFS_CANDIDATE is" "two  words"; sleep 60'""".replace(
        "$LITEFS_CANDIDATE ", ""
    )
    text = render(
        0,
        __app_mount=str(node.mount),
        __app_data=str(node.data),
        app_litefs_port=node.api,
        app_proxy_port=node.proxy,
        app_command=command,
        app_migrate_command="",
    )
    node.launch(text)
    until(lambda: "\ncandidate is two  words\n" in node.log())


@pytest.mark.parametrize("ordinal", [0, 2])
def test_lease_names_the_primary_on_every_pod_by_the_safe_expression(ordinal: int) -> None:
    text = render(ordinal)
    lease = text[text.index("lease:") :]
    assert f'candidate: ${{POD_NAME == "abaci-app-{ordinal}"}}\n' in lease
    assert f"hostname: abaci-app-{ordinal}\n" in lease
    assert f"advertise-url: http://abaci-app-{ordinal}.{HEADLESS}:20202\n" in lease
