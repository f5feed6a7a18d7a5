"""How LiteFS reads its configuration, becomes primary or not, and ends: the facts under our litefs.yml."""

from __future__ import annotations

import signal
import time

import pytest
from litefs_cluster import SAFE_CANDIDATE, MakeCluster, request, until

# Configuration


@pytest.mark.parametrize("key", ["primary-redirect-url: x", "lease: {lease-wait: 1s}", "surprise: true"])
def test_fact_an_unknown_key_ends_the_start_with_exit_2(make_cluster: MakeCluster, key: str) -> None:
    node = make_cluster(1).primary
    node.launch(f"fuse: {{dir: {node.mount}}}\ndata: {{dir: {node.data}}}\n{key}\n")
    assert node.exit_code() == 2
    assert "not found in type" in node.log()


@pytest.mark.parametrize(
    ("candidate", "is_primary"),
    [
        (SAFE_CANDIDATE, True),
        ('${POD_NAME != "abaci-app-0"}', False),
        ('${POD_NAME == "abaci-app-1"}', False),
        ("${POD_NAME == 'abaci-app-0'}", True),
        ('${UNSET == "abaci-app-0"}', False),
        # Fact 0.6: what expands to nothing keeps the default, and the default is true.
        ("${UNSET}", True),
        ("$UNSET", True),
        ("${UNSET:-false}", True),
        ("", True),
    ],
)
def test_fact_0_6_only_the_comparison_form_of_candidate_is_safe(
    make_cluster: MakeCluster, candidate: str, is_primary: bool
) -> None:
    node = make_cluster(1).primary
    node.settings.candidate = candidate
    node.launch()
    node.wait_up()
    line = f"Using static primary: primary={'true' if is_primary else 'false'} hostname=abaci-app-0"
    assert line in node.log()
    assert node.info()["candidate"] is is_primary


def test_fact_0_6_two_nodes_with_an_unset_candidate_are_two_primaries(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    for node in cluster.nodes:
        node.settings.candidate = "${IS_PRIMARY}"
    cluster.start()
    assert [node.metric("litefs_is_primary") for node in cluster.nodes] == [1, 1]


def test_fact_a_quoted_candidate_is_a_start_error(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    node.settings.candidate = "'${POD_NAME == \"abaci-app-0\"}'"
    node.launch()
    assert node.exit_code() == 2
    assert "cannot unmarshal" in node.log()


def test_fact_hostname_is_set_by_litefs_only_where_it_is_unset(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    node.settings.candidate = '${HOSTNAME == "abaci-app-0"}'
    node.settings.env["HOSTNAME"] = "0.0.0.0"
    node.launch()
    node.wait_up()
    assert "primary=false" in node.log()


# The exec list


def test_fact_variables_are_expanded_inside_exec_lines_and_comments(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    node.settings.env["WORD"] = "expanded"
    words = f"a $WORD b ${{WORD}} c ${{NOTHING}} d {SAFE_CANDIDATE} e $$ f"
    node.settings.exec = [(f"echo {words}", False), ("sleep 60", False)]
    node.launch(node.config() + "# $WORD ${UNSET}\n")
    until(lambda: "\na expanded b expanded c d true e f\n" in node.log())


def test_fact_if_candidate_commands_run_on_the_primary_only_and_before_the_last(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    for node in cluster.nodes:
        node.settings.exec = [("sh -c 'echo migration runs'", True), ("sh -c 'echo application runs; sleep 60'", False)]
    cluster.start()
    for node, runs in zip(cluster.nodes, (True, False), strict=True):
        until(lambda node=node: "application runs\n" in node.log())
        output = [line for line in node.log().splitlines() if line in ("migration runs", "application runs")]
        assert output == (["migration runs"] if runs else []) + ["application runs"]


def test_fact_a_failing_migration_ends_litefs_with_exit_1_and_no_application(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    node.settings.exec = [("sh -c 'exit 7'", True), ("sh -c 'echo application runs; sleep 60'", False)]
    node.launch()
    assert node.exit_code() == 1
    assert "exit status 7" in node.log() and "application runs\n" not in node.log()


def test_fact_litefs_exits_with_the_code_of_the_application(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).primary
    node.settings.exec = [("sh -c 'exit 5'", False)]
    node.launch()
    assert node.exit_code() == 5


def test_fact_the_proxy_listens_while_the_migration_runs_and_holds_requests(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).with_app("delete").primary
    node.settings.exec.insert(0, ("sleep 1", True))
    node.launch()
    until(lambda: request(node.proxy, "GET", "/litefs/health").status == 200)
    assert request(node.proxy, "GET", "/api/records/count").json()["count"] == 0


# The end


def test_fact_sigterm_reaches_the_application_and_litefs_ends_after_it_and_unmounts(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).with_app("delete").start().primary
    started = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - started < 3
    assert "stopped" in node.log()
    assert not node.mount.is_mount()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fact_a_signal_while_waiting_for_the_primary_is_not_acted_on(
    make_cluster: MakeCluster, number: signal.Signals
) -> None:
    replica = make_cluster(2).replicas[0]
    replica.launch()
    replica.wait_up()
    assert replica.process
    replica.process.send_signal(number)
    time.sleep(2)
    assert replica.process.poll() is None
    assert replica.call("GET", "/info").status == 200


def test_fact_a_killed_node_leaves_a_dead_mount_and_its_next_start_takes_it_away(make_cluster: MakeCluster) -> None:
    node = make_cluster(1).start().primary
    node.create()
    position, identity = node.position(), node.cluster_id()
    node.kill()
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        list(node.mount.iterdir())
    node.start()
    assert (node.position(), node.cluster_id()) == (position, identity)
    assert node.bodies() == ["row 1", "row 2", "row 3"]


def test_fact_a_primary_is_ready_without_any_replica(make_cluster: MakeCluster) -> None:
    node = make_cluster(3).primary
    node.start()
    assert "primary lease acquired, advertising as" in node.log()
    assert "connected to cluster, ready" in node.log()
    assert node.info()["isPrimary"] is True
