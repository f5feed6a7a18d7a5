"""What a healthy LiteFS cluster does, in both journal modes: the facts under our routes, probes and state document."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, Cluster, Node, request, until

WRITING = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def settled(site: Cluster) -> Cluster:
    site.wait_replicated()
    return site


# Writes and the proxy


def test_fact_writes_through_the_primary_reach_every_node(site: Cluster) -> None:
    for number in range(100):
        answer = site.primary.post(f"r{number}")
        assert answer.status == 201
    settled(site)
    count = site.primary.query("SELECT count(*) FROM records")
    for node in site.replicas:
        assert node.query("SELECT count(*) FROM records") == count
        assert request(node.proxy, "GET", "/api/records/count").json() == {"count": count[0][0], "pod": node.name}


@pytest.mark.parametrize("method", WRITING)
def test_fact_0_1_write_on_replica_is_an_empty_200_with_fly_replay_and_is_lost(site: Cluster, method: str) -> None:
    before = settled(site).primary.position()
    answer = request(site.replicas[0].proxy, method, "/api/records", b'{"body": "lost"}')
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["fly-replay"] == "instance=abaci-app-0"
    assert answer.headers["content-length"] == "0"
    assert site.primary.position() == before


def test_fact_get_and_head_on_a_replica_go_to_its_own_application(site: Cluster) -> None:
    for node in site.nodes:
        for method in ("GET", "HEAD"):
            answer = request(node.proxy, method, "/api/records/count")
            assert (answer.status, answer.headers["x-pod"]) == (200, node.name)
            assert "fly-replay" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_fact_always_forward_on_a_replica_emits_fly_replay_also_for_a_get(site: Cluster, method: str) -> None:
    answer = request(site.replicas[0].proxy, method, "/api/auth/callback?user=x")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["fly-replay"] == "instance=abaci-app-0"


def test_fact_always_forward_on_the_primary_is_answered_by_the_application(site: Cluster) -> None:
    before = site.primary.query("SELECT count(*) FROM users")[0][0]
    answer = request(site.primary.proxy, "GET", "/api/auth/callback?user=x")
    assert answer.status == 200 and answer.json()["id"] > 0
    assert "fly-replay" not in answer.headers
    assert site.primary.query("SELECT count(*) FROM users")[0][0] == before + 1


def test_fact_always_forward_matches_the_whole_path_and_not_a_prefix(site: Cluster) -> None:
    answer = request(site.replicas[0].proxy, "GET", "/x/api/auth/callback")
    assert (answer.status, "fly-replay" in answer.headers) == (404, False)
    answer = request(site.replicas[0].proxy, "GET", "/api/auth/callback/deeper")
    assert "fly-replay" in answer.headers


def test_fact_txid_cookie_comes_from_writes_through_the_primarys_proxy_only(site: Cluster) -> None:
    cookie = site.primary.post("x").headers["set-cookie"]
    match = re.fullmatch(r"__txid=([0-9a-f]{16}); Path=/; Expires=[^;]+; HttpOnly", cookie)
    assert match and match[1] == site.primary.position()[0]
    for answer in (
        request(site.primary.proxy, "GET", "/api/records/count"),
        site.primary.post("x", site.primary.app),
        request(site.replicas[0].proxy, "POST", "/api/records", b"{}"),
        request(site.replicas[0].proxy, "GET", "/api/records/count"),
    ):
        assert "set-cookie" not in answer.headers


def test_fact_a_read_with_the_cookie_sees_the_write_on_every_node(site: Cluster) -> None:
    for number in range(10):
        answer = site.primary.post(f"mine {number}")
        cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
        for node in site.replicas:
            path = f"/api/records?after={answer.json()['id'] - 1}"
            assert request(node.proxy, "GET", path, None, cookie).json()["records"][0]["body"] == f"mine {number}"


# The proxy does not know the journal mode: five seconds are enough once.
@pytest.mark.parametrize("site", ["delete"], indirect=True)
def test_fact_a_cookie_above_the_position_waits_5_s_and_is_504_on_the_primary_too(site: Cluster) -> None:
    started = time.monotonic()
    cookie = {"Cookie": "__txid=00000000ffffffff"}
    answer = request(site.primary.proxy, "GET", "/api/records/count", None, cookie)
    assert (answer.status, answer.body.strip()) == (504, b"Proxy timeout")
    assert 4.5 < time.monotonic() - started < 7


def upgrade(port: int) -> bytes:
    """Ask for a WebSocket and send one masked text frame `hi`; what comes back before a second of silence."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(
            b"GET /api/socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        received = b""
        try:
            while b"\r\n\r\n" not in received and (data := client.recv(4096)):
                received += data
            client.sendall(b"\x81\x82\0\0\0\0hi")
            while b"\x81\x02hi" not in received and (data := client.recv(4096)):
                received += data
        except OSError:
            pass
        return received


def test_fact_a_websocket_hangs_in_the_proxy_and_works_past_it(site: Cluster) -> None:
    through, past = upgrade(site.primary.proxy), upgrade(site.primary.app)
    assert past.startswith(b"HTTP/1.1 101") and past.endswith(b"\x81\x02hi")
    assert through == b""


def test_fact_litefs_health_is_200_everywhere(site: Cluster) -> None:
    for node in site.nodes:
        answer = request(node.proxy, "GET", "/litefs/health")
        assert (answer.status, answer.body.strip()) == (200, b"OK")


# A replica is read-only


def test_fact_a_write_past_the_proxy_on_a_replica_is_a_503_of_the_application(site: Cluster) -> None:
    settled(site)
    for method, path in (("POST", "/api/records"), ("GET", "/api/auth/callback?user=x")):
        answer = request(site.replicas[0].app, method, path, b'{"body": "x"}' if method == "POST" else None)
        assert answer.status == 503 and answer.json()["error"].startswith("database: ")
    site.primary.post("replication goes on")
    settled(site)


def test_fact_sqlite_says_read_only_in_delete_mode_and_io_error_in_wal_mode(site: Cluster) -> None:
    mode = site.primary.query("PRAGMA journal_mode")[0][0]
    expected = {"delete": "readonly database", "wal": "disk I/O error"}[mode]
    with pytest.raises(sqlite3.OperationalError, match=expected):
        site.replicas[0].insert("x")


def test_fact_the_migration_fails_on_a_replica_and_the_applications_start_leaves_its_mode_alone(site: Cluster) -> None:
    mode = site.primary.query("PRAGMA journal_mode")
    for node in site.replicas:
        assert "replica: journal mode left alone" in node.log()
        assert node.query("PRAGMA journal_mode") == mode
    assert "journal mode " in site.primary.log() and "left alone" not in site.primary.log()


def test_fact_candidate_reaches_the_application_through_the_exec_line(site: Cluster) -> None:
    for node, value in zip(site.nodes, ("true", "false", "false"), strict=True):
        assert f"LITEFS_CANDIDATE={value}" in application_environment(node)


def application_environment(node: Node) -> list[str]:
    """The environment of the application, the one process that LiteFS started and left running."""
    assert node.process
    tasks = Path(f"/proc/{node.process.pid}/task")
    (child,) = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return Path(f"/proc/{child}/environ").read_text().split("\0")


def test_fact_files_are_0444_on_replicas_and_0666_on_the_primary(site: Cluster) -> None:
    assert (site.primary.mount / DATABASE).stat().st_mode & 0o777 == 0o666
    for node in site.replicas:
        assert (node.mount / DATABASE).stat().st_mode & 0o777 == 0o444


def test_fact_the_mount_takes_no_directories(site: Cluster) -> None:
    with pytest.raises(OSError):
        (site.primary.mount / "folder").mkdir()


# What tools read


def test_fact_info_says_role_id_candidate_and_primary(site: Cluster) -> None:
    identity = site.primary.cluster_id()
    assert re.fullmatch(r"LFSC[0-9A-F]{16}", identity)
    for node in site.nodes:
        is_primary = node is site.primary
        info = until(lambda node=node: (i := node.info())["primary"]["hostname"] and i)
        assert info == {
            "clusterID": identity,
            "isPrimary": is_primary,
            "candidate": is_primary,
            "path": str(node.data),
            "primary": {"hostname": "abaci-app-0"},
        }


def test_fact_info_is_one_line_that_sed_can_read(site: Cluster) -> None:
    body = site.primary.call("GET", "/info").body.decode()
    assert re.search(r'"clusterID":\s*"LFSC[0-9A-F]{16}"', body)
    assert re.search(r'"isPrimary":\s*true', body)


def test_fact_debug_vars_show_name_then_txid_and_checksum(site: Cluster) -> None:
    site.primary.post("x")
    settled(site)
    for node in site.nodes:
        body = re.sub(r"\s", "", node.call("GET", "/debug/vars").body.decode())
        assert re.search(rf'"name":"{DATABASE}","txid":"[0-9a-f]{{16}}","checksum":"[0-9a-f]{{16}}"', body)
        store = json.loads(body)["store"]
        assert store["isPrimary"] == (node is site.primary)
        assert list(store["dbs"]) == [DATABASE]


def test_fact_the_pos_file_says_the_same_position(site: Cluster) -> None:
    settled(site)
    for node in site.nodes:
        assert (node.mount / f"{DATABASE}-pos").read_text() == "/".join(node.position()) + "\n"


def test_fact_ltx_file_names_give_the_txid(site: Cluster) -> None:
    site.primary.post("x")
    settled(site)
    for node in site.nodes:
        names = sorted(path.name for path in (node.data / "dbs" / DATABASE / "ltx").iterdir())
        assert all(re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}\.ltx", name) for name in names)
        assert max(name[17:33] for name in names) == node.position()[0]


def test_fact_the_clusterid_file_holds_the_id_in_20_characters(site: Cluster) -> None:
    for node in site.nodes:
        text = (node.data / "clusterid").read_text()
        assert text.strip() == node.cluster_id() == site.primary.cluster_id()
        assert len(text.strip()) == 20
        assert sorted(path.name for path in node.data.iterdir()) == ["clusterid", "dbs"]


def test_fact_lag_is_0_on_the_primary_and_below_3_s_on_a_streaming_replica(site: Cluster) -> None:
    assert site.primary.lag_file() == "+000000000\n"
    for node in site.replicas:
        until(lambda node=node: 0 <= int(node.lag_file()) < 3000)
        assert node.metric("litefs_lag_seconds") < 3


def test_fact_the_primary_file_is_on_replicas_only(site: Cluster) -> None:
    assert not (site.primary.mount / ".primary").exists()
    for node in site.replicas:
        assert until(lambda node=node: (node.mount / ".primary").read_text()).strip() == "abaci-app-0"


def test_fact_metrics_count_one_primary_and_two_streams(site: Cluster) -> None:
    assert [node.metric("litefs_is_primary") for node in site.nodes] == [1, 0, 0]
    until(lambda: site.primary.metric("litefs_http_stream_count") == 2)


def test_fact_headers_of_the_api_carry_node_and_cluster_id(site: Cluster) -> None:
    for node in site.nodes:
        headers = node.call("GET", "/info").headers
        assert headers["litefs-cluster-id"] == node.cluster_id()
        assert re.fullmatch(r"[0-9A-F]{16}", headers["litefs-id"])


def test_fact_export_of_a_replica_is_the_whole_database_without_a_password(site: Cluster) -> None:
    settled(site)
    answer = site.replicas[0].call("GET", f"/export?name={DATABASE}")
    pages = site.primary.query("PRAGMA page_count")[0][0] * site.primary.query("PRAGMA page_size")[0][0]
    assert (answer.status, len(answer.body), answer.body[:15]) == (200, pages, b"SQLite format 3")
    assert site.replicas[0].call("GET", "/export?name=other.db").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/pos", 404),
        ("POST", "/promote", 409),
        ("POST", "/handoff?nodeID=0123456789ABCDEF", 500),
        ("POST", f"/import?name={DATABASE}", 503),
        ("POST", "/stream", 426),
    ],
)
def test_fact_what_a_replicas_api_refuses(site: Cluster, method: str, path: str, status: int) -> None:
    assert site.replicas[0].call(method, path, b"x" if method == "POST" else None).status == status


def test_fact_the_second_start_of_the_application_writes_nothing(site: Cluster) -> None:
    before = settled(site).primary.position()
    for _ in range(2):
        request(site.primary.proxy, "GET", "/api/health")
    assert site.primary.position() == before
