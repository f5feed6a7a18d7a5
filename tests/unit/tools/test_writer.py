"""The writer with a ledger, against small servers that answer as a site does, well and badly."""

from __future__ import annotations

import http.server
import importlib.util
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "writer.py"
    spec = importlib.util.spec_from_file_location("abaci_writer", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


writer = load()

Answer = tuple[int, dict[str, str], bytes]


class FakeSite(http.server.ThreadingHTTPServer):
    """Stores records, unless `answer` says otherwise for the n-th POST; `hosts` are the Host headers seen."""

    daemon_threads = True

    def __init__(self, answer: Callable[[int], Answer | str | None] = lambda _: None) -> None:
        self.answer = answer
        self.records: dict[int, str] = {}
        self.hosts: set[str] = set()
        self.posts = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), FakeHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is part of the tests."""


class FakeHandler(http.server.BaseHTTPRequestHandler):
    server: FakeSite
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        with self.server.lock:
            self.server.hosts.add(self.headers["Host"])
            self.server.posts += 1
            answer = self.server.answer(self.server.posts)
            if answer is None or answer == "store and hang up":
                number = len(self.server.records) + 1
                self.server.records[number] = body
        if isinstance(answer, str):
            self.close_connection = True
            return
        self.reply(*(answer or (201, {}, json.dumps({"id": number}).encode())))

    def do_GET(self) -> None:
        query = dict(pair.split("=") for pair in self.path.partition("?")[2].split("&"))
        page = [
            {"id": number, "body": body}
            for number, body in sorted(self.server.records.items())
            if number > int(query["after"])
        ][: min(int(query["limit"]), 7)]
        self.reply(200, {}, json.dumps({"records": page}).encode())

    def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def make_site() -> Iterator[Callable[..., FakeSite]]:
    sites: list[FakeSite] = []

    def make(*arguments: Any) -> FakeSite:
        sites.append(FakeSite(*arguments))
        return sites[-1]

    yield make
    for site in sites:
        site.shutdown()
        site.server_close()


def post(site: FakeSite, ledger: Path, **options: Any) -> Any:
    return writer.Writer(writer.Site(site.url, timeout=2), ledger, **({"rate": 0} | options)).run()


def test_every_record_is_sent_once_and_stands_in_the_ledger(make_site: Callable[..., FakeSite], tmp_path: Path) -> None:
    site = make_site()
    report = post(site, tmp_path / "ledger", count=50, concurrency=5)
    assert (report.sent, report.acknowledged, report.lost, site.posts) == (50, 50, 0, 50)
    assert report.statuses == {"201": 50} and report.kinds == {"acknowledged": 50}
    assert 0 < report.latency_p50 <= report.latency_p99 <= report.latency_max
    acknowledged, others, twice = writer.read_ledger(tmp_path / "ledger")
    assert acknowledged == site.records and others == [] and twice == []
    result = writer.verify(writer.Site(site.url), tmp_path / "ledger")
    assert result["ok"] and (result["found"], result["records"]) == (50, 50)


@pytest.mark.parametrize(
    ("answer", "kind", "figures"),
    [
        (
            (200, {"Fly-Replay": "instance=abaci-app-0"}, b""),
            "fly-replay",
            {"fly_replay": 1, "empty_2xx": 1, "lost": 1},
        ),
        ((200, {}, b""), "empty 2xx", {"empty_2xx": 1, "lost": 1}),
        ((201, {}, b"{}"), "empty 2xx", {"empty_2xx": 0, "lost": 1}),
        ((201, {"fly-replay": "x"}, b'{"id": 9}'), "fly-replay", {"fly_replay": 1, "lost": 1}),
        ((503, {}, b"no"), "503", {"server_errors": 1, "lost": 0}),
        ((503, {"Fly-Replay": "x"}, b"no"), "fly-replay", {"server_errors": 1, "fly_replay": 1}),
        ((429, {}, b""), "429", {"server_errors": 0, "lost": 0, "empty_2xx": 0}),
        ("hang up", "no answer", {"no_answer": 1, "lost": 0}),
    ],
)
def test_outcomes_are_told_apart_and_nothing_is_retried(
    make_site: Callable[..., FakeSite], tmp_path: Path, answer: Answer | str, kind: str, figures: dict[str, int]
) -> None:
    site = make_site(lambda number: answer if number == 2 else None)
    report = post(site, tmp_path / "ledger", count=3, concurrency=1)
    assert site.posts == 3
    assert (report.sent, report.acknowledged) == (3, 2)
    assert report.kinds == {"acknowledged": 2, kind: 1}
    for name, value in figures.items():
        assert getattr(report, name) == value, name
    assert len(writer.read_ledger(tmp_path / "ledger")[1]) == 1


def test_a_server_that_is_away_is_no_answer(tmp_path: Path, make_site: Callable[..., FakeSite]) -> None:
    site = make_site()
    site.shutdown()
    site.server_close()
    report = post(site, tmp_path / "ledger", count=2)
    assert (report.no_answer, report.acknowledged) == (2, 0)
    assert any("refused" in error for error in report.errors)


def test_the_longest_gap_counts_from_the_start_and_to_the_end() -> None:
    def acknowledged(at: float) -> Any:
        return writer.Outcome("x", at - 0.1, at, 201, 1)

    report = writer.summarise([acknowledged(11.0), acknowledged(14.5), acknowledged(15.0)], 10.0, 16.0)
    assert (report.longest_gap, report.longest_gap_at, report.seconds) == (3.5, 1.0, 6.0)
    assert writer.summarise([acknowledged(19.0)], 10.0, 20.0).longest_gap == 9.0
    assert writer.summarise([acknowledged(11.0)], 10.0, 20.0).longest_gap_at == 1.0
    assert writer.summarise([], 10.0, 20.0).longest_gap == 10.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([1.0], 0.5, 1.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.99, 3.0), ([1.0, 2.0], 1, 2.0)],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert writer.percentile(values, share) == expected


def test_rate_is_kept(make_site: Callable[..., FakeSite], tmp_path: Path) -> None:
    started = time.monotonic()
    assert post(make_site(), tmp_path / "ledger", count=11, rate=50, concurrency=4).acknowledged == 11
    assert 0.19 < time.monotonic() - started < 1


def test_run_ends_after_its_seconds_or_when_it_is_stopped(make_site: Callable[..., FakeSite], tmp_path: Path) -> None:
    started = time.monotonic()
    report = post(make_site(), tmp_path / "one", seconds=0.3, rate=100)
    assert 15 < report.acknowledged <= 31 and time.monotonic() - started < 1
    running = writer.Writer(writer.Site(make_site().url), tmp_path / "two", seconds=60, rate=2, concurrency=1).start()
    time.sleep(0.1)
    assert running.stop().acknowledged == 1
    assert time.monotonic() - started < 2


def test_verify_names_what_is_missing_changed_and_stored_unasked(
    make_site: Callable[..., FakeSite], tmp_path: Path
) -> None:
    site = make_site(lambda number: "store and hang up" if number == 5 else None)
    post(site, tmp_path / "ledger", count=20, concurrency=1)
    del site.records[3]
    site.records[4] = "another"
    result = writer.verify(writer.Site(site.url), tmp_path / "ledger")
    assert not result["ok"]
    assert (result["acknowledged"], result["found"]) == (19, 17)
    assert (result["missing"], result["changed"]) == ([3], [4])
    assert (result["stored_without_acknowledgement"], result["stored_twice"]) == (1, [])


def test_an_id_acknowledged_twice_is_a_rollback_and_fails() -> None:
    assert not writer.compare({1: "a"}, [], [1], {1: "a"})["ok"]
    assert writer.compare({1: "a"}, [], [], {1: "a", 2: "a"})["stored_twice"] == ["a"]


def test_verify_waits_for_a_replica_that_follows(make_site: Callable[..., FakeSite], tmp_path: Path) -> None:
    site = make_site()
    post(site, tmp_path / "ledger", count=3)
    last = site.records.pop(3)
    threading.Timer(0.4, lambda: site.records.update({3: last})).start()
    assert writer.verify(writer.Site(site.url), tmp_path / "ledger", wait=5)["ok"]


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "crt"), str(folder / "key")


def test_https_takes_name_and_sni_from_the_url_and_connects_elsewhere(
    make_site: Callable[..., FakeSite], tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path, "abaci.localhost")
    site = make_site()
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    site.socket = context.wrap_socket(site.socket, server_side=True)

    def run(ledger: str, **options: Any) -> Any:
        target = writer.Site("https://abaci.localhost:8443", connect=site.address, timeout=3, **options)
        return writer.Writer(target, tmp_path / ledger, count=2, rate=0, concurrency=1).run()

    assert run("trusted", ca=certificate).acknowledged == 2
    assert names == ["abaci.localhost"] and site.hosts == {"abaci.localhost:8443"}
    refused = run("untrusted")
    assert (refused.acknowledged, refused.no_answer) == (0, 2)
    assert all("CERTIFICATE_VERIFY_FAILED" in error for error in refused.errors)
    assert run("insecure", verify=False).acknowledged == 2


def test_command_line(make_site: Callable[..., FakeSite], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lossy = make_site(lambda number: (200, {"Fly-Replay": "x"}, b"") if number == 1 else None)
    common = ["--ledger", str(tmp_path / "ledger"), "--url", lossy.url]
    assert writer.main(["post", "--count", "3", "--rate", "0", *common]) == 1
    assert json.loads(capsys.readouterr().out)["lost"] == 1
    assert writer.main(["verify", *common]) == 0
    assert json.loads(capsys.readouterr().out)["found"] == 2
    lossy.records.clear()
    assert writer.main(["verify", *common]) == 1
    busy = make_site(lambda number: (503, {}, b"x") if number == 1 else None)
    common = ["--ledger", str(tmp_path / "busy"), "--url", busy.url, "--count", "2", "--rate", "0"]
    assert writer.main(["post", *common]) == 0
    assert writer.main(["post", "--all", *common]) == 0
    busy.answer = lambda _: (503, {}, b"x")
    assert writer.main(["post", "--all", *common]) == 1
    assert writer.main(["verify", "--url", "ftp://x", "--ledger", str(tmp_path / "busy")]) == 2
    with pytest.raises(SystemExit):
        writer.main(["post", "--url", busy.url, "--ledger", str(tmp_path / "x")])
