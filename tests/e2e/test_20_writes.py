"""Every write arrives, wherever it was sent, and nothing that looks like success is empty."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sitebed import Bed, Response, until
from writer import Report, Site, Writer, read_ledger

RATE_PER_S = 40  # below the site's own limit of 50 a second for one client


def write_a_thousand(site: Site, ledger: Path) -> Report:
    report = Writer(site, ledger, count=1000, rate=RATE_PER_S).run()
    print(report)
    assert report.acknowledged == 1000, report
    assert report.empty_2xx == 0 and report.fly_replay == 0, report
    return report


def assert_same_rows(bed: Bed, ledger: Path, namespace: str) -> None:
    """Every acknowledged row stands on every pod, and no pod has another count than its peers."""
    names = sorted(pod["metadata"]["name"] for pod in bed.pods(namespace))
    assert len(names) == 3
    acknowledged, _, _ = read_ledger(ledger)
    wanted = set(acknowledged)
    assert len(wanted) == 1000

    def everywhere() -> bool:
        return all(set(map(int, bed.rows(pod, "select id from records", namespace).split())) >= wanted for pod in names)

    until(everywhere, 15, "every acknowledged row on every pod")
    counts = {pod: bed.rows(pod, "select count(*), max(id) from records", namespace) for pod in names}
    assert len(set(counts.values())) == 1, counts


AS_ANOTHER_USER = """
import os, sqlite3
os.setgid(1001); os.setuid(1001)
connection = sqlite3.connect("/litefs/sqlite.db", timeout=5)
assert connection.execute("select count(*) from records").fetchone()[0] > 0
try:
    with connection:
        connection.execute("update records set body = 'by 1001' where id = (select max(id) from records)")
    print("written")
except sqlite3.OperationalError as exc:
    print(exc)
"""


@pytest.fixture(scope="module")
def wal_site(bed: Bed) -> Iterator[str]:
    """A second application beside the first, in WAL mode, under other names: the role knows none by heart."""
    namespace = "abaci-wal"
    run = bed.playbook(
        "--tags",
        "app",
        "-e",
        '{"app_namespace": "abaci-wal", "app_domain": "wal.localhost", "app_env": {"JOURNAL_MODE": "wal"},'
        ' "app_extra_domains": ["www.wal.localhost"], "app_redirect_domains": ["www.wal.localhost"],'
        ' "app_allow_other": true,'
        ' "app_tls_certificate_file": "", "app_tls_private_key_file": "", "app_tls_ca_file": "",'
        ' "app_use_redis": false, "app_tls": "self_signed", "storage_state": "unmanaged", "keel_state": "absent"}',
    )
    assert run.rc == 0, run.output[-6000:]
    yield namespace
    bed.kubectl("delete", "namespace", namespace, "--timeout=110s")


def test_a_thousand_posts_in_delete_mode(bed: Bed, tmp_path: Path) -> None:
    write_a_thousand(bed.site(), tmp_path / "ledger")
    assert_same_rows(bed, tmp_path / "ledger", "abaci")
    assert bed.rows("abaci-app-0", "pragma journal_mode") == "delete"


def test_a_thousand_posts_in_wal_mode_under_other_names_with_a_self_signed_certificate(
    bed: Bed, wal_site: str, tmp_path: Path
) -> None:
    write_a_thousand(bed.site("wal.localhost", verify=False), tmp_path / "ledger")
    assert_same_rows(bed, tmp_path / "ledger", wal_site)
    assert bed.rows("abaci-app-0", "pragma journal_mode", wal_site) == "wal"
    answer = bed.edge("GET", "/", domain="wal.localhost", verify=False)
    assert answer.status == 200 and answer.header("Strict-Transport-Security") is None


def test_a_name_that_only_leads_to_the_site_keeps_path_and_method(bed: Bed, wal_site: str) -> None:
    for method, status in (("GET", 301), ("HEAD", 301), ("POST", 308)):
        answer = bed.edge(method, "/page?a=b", domain="www.wal.localhost", verify=False)
        assert (answer.status, answer.header("Location")) == (
            status,
            f"https://wal.localhost:{bed.https_port}/page?a=b",
        )


def test_an_application_that_drops_roots_rights_uses_the_database(bed: Bed, wal_site: str) -> None:
    for pod, outcome in (("abaci-app-0", "written"), ("abaci-app-1", "attempt to write a readonly database")):
        said = bed.in_pod(pod, "python3", "-c", AS_ANOTHER_USER, namespace=wal_site)
        assert outcome in said, f"{pod}: {said}"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_hazard_empty_200_no_method_is_lost_on_a_replica(bed: Bed, method: str) -> None:
    for _ in range(9):
        answer = bed.edge(method, "/no/such/path", b"{}")
        assert answer.status in (404, 405, 501), answer
        assert answer.body and answer.header("Fly-Replay") is None


def test_a_get_that_writes_is_answered_by_the_primary_from_any_pod(bed: Bed) -> None:
    before = int(bed.rows("abaci-app-0", "select count(*) from users"))
    answers = [bed.edge("GET", f"/api/auth/callback?user=visitor-{number}") for number in range(30)]
    assert [answer.status for answer in answers] == [200] * 30
    assert len({answer.json()["id"] for answer in answers}) == 30
    assert all(answer.header("Fly-Replay") is None for answer in answers)
    assert int(bed.rows("abaci-app-0", "select count(*) from users")) == before + 30
    assert all("__txid=" in (answer.header("Set-Cookie") or "") for answer in answers), "the next page may be older"


def test_a_get_that_writes_works_from_any_pod_where_no_setting_names_it(bed: Bed) -> None:
    before = int(bed.rows("abaci-app-0", "select count(*) from users"))
    answers = [bed.edge("GET", f"/api/guest?user=guest-{number}") for number in range(30)]
    assert [answer.status for answer in answers] == [200] * 30
    assert len({answer.json()["id"] for answer in answers}) == 30
    assert int(bed.rows("abaci-app-0", "select count(*) from users")) == before + 30


def test_reads_are_served_by_all_pods_and_read_your_writes_holds(bed: Bed) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: bed.edge("GET", "/api/records/count"), range(40)))
    assert {answer.json()["pod"] for answer in answers} == {"abaci-app-0", "abaci-app-1", "abaci-app-2"}
    for number in range(10):
        written = bed.edge("POST", "/api/records", f'{{"body": "read me {number}"}}'.encode())
        cookie = (written.header("Set-Cookie") or "").split(";")[0]
        assert cookie.startswith("__txid=")
        after = written.json()["id"] - 1
        read = bed.edge("GET", f"/api/records?after={after}&limit=1", headers={"Cookie": cookie})
        assert read.status == 200 and f"read me {number}".encode() in read.body


def test_plain_http_is_redirected_permanently_to_the_public_port(bed: Bed) -> None:
    got: dict[str, Response] = {method: bed.plain(method, "/some/page?x=1") for method in ("GET", "HEAD", "POST")}
    assert {method: answer.status for method, answer in got.items()} == {"GET": 301, "HEAD": 301, "POST": 308}
    for answer in got.values():
        assert answer.header("Location") == f"https://abaci.localhost:{bed.https_port}/some/page?x=1"


def test_hsts_lasts_two_years_with_the_operators_certificate_and_binds_no_subdomain(bed: Bed) -> None:
    assert bed.edge("GET", "/").header("Strict-Transport-Security") == "max-age=63072000"


def test_a_websocket_goes_past_the_litefs_proxy_to_the_primary(bed: Bed) -> None:
    raw = socket.create_connection(("127.0.0.1", bed.https_port), 10)
    with ssl.create_default_context(cafile=bed.ca_file).wrap_socket(raw, server_hostname="abaci.localhost") as tls:
        key = base64.b64encode(os.urandom(16)).decode()
        tls.sendall(
            (
                f"GET /api/socket HTTP/1.1\r\nHost: abaci.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += tls.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        mask, text = b"\x01\x02\x03\x04", b"hello"
        tls.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
        assert tls.recv(64).endswith(text)
