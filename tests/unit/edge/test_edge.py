"""Requests to one address under the name of the URL, against servers on loopback with real TLS."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import edge
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = "abaci.localhost"


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        text = f"{self.command} {self.path} host={self.headers['Host']} x={self.headers['X-A']} body={body}"
        self.send_response(308 if self.path.startswith("/moved") else 200)
        self.send_header("X-Twice", "1")
        self.send_header("X-Twice", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode() if self.path != "/big" else b"x" * 10000)

    do_GET = do_HEAD = do_POST = do_OPTIONS = answer

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that signs itself, for the name of the site; the key is in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test site")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("ca") / "site.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def serve(context: ssl.SSLContext | None = None) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    server = serve()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def secure(ca: Path) -> Iterator[tuple[int, list[str | None]]]:
    """Port, and the server names that clients sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server = serve(context)
    yield server.server_address[1], names
    server.shutdown()
    server.server_close()


def ask(**given: Any) -> dict[str, Any]:
    answer: dict[str, Any] = edge.send(edge.parse(given))
    return answer


def test_name_and_address_are_apart(plain: int) -> None:
    answer = ask(url=f"http://{NAME}:8080/a?b=c", connect=f"127.0.0.1:{plain}", headers={"X-A": "y"})
    assert answer["error"] == ""
    assert answer["status"] == 200
    assert answer["body"] == f"GET /a?b=c host={NAME}:8080 x=y body="
    assert [pair for pair in answer["headers"] if pair[0] == "X-Twice"] == [["X-Twice", "1"], ["X-Twice", "2"]]
    assert answer["tls"] is None


def test_a_redirect_is_returned_and_not_followed(plain: int) -> None:
    answer = ask(method="post", url="http://www.example.org/moved", connect=f"127.0.0.1:{plain}", body="{}")
    assert (answer["status"], answer["method"]) == (308, "POST")
    assert answer["body"] == "POST /moved host=www.example.org x=None body={}"


@pytest.mark.parametrize(("method", "path", "kept", "length"), [("HEAD", "/", 0, 0), ("GET", "/big", 4096, 10000)])
def test_a_body_is_cut_but_its_length_known(plain: int, method: str, path: str, kept: int, length: int) -> None:
    answer = ask(method=method, url=f"http://127.0.0.1:{plain}{path}")
    assert (len(answer["body"]), answer["length"]) == (kept, length)


def test_tls_is_verified_against_the_name_of_the_url(secure: tuple[int, list[str | None]], ca: Path) -> None:
    port, names = secure
    answer = ask(url=f"https://{NAME}/", connect=f"127.0.0.1:{port}", ca_file=str(ca))
    assert (answer["error"], answer["status"]) == ("", 200)
    assert names[-1] == NAME
    assert f"host={NAME} " in answer["body"]
    tls = answer["tls"]
    assert (tls["verified"], tls["subject"], tls["issuer"]) == (True, "commonName=test site", "commonName=test site")
    assert (tls["names"], tls["version"], len(tls["fingerprint_sha256"])) == ([NAME], "TLSv1.3", 64)


def test_an_untrusted_certificate_and_a_wrong_name_are_sentences(secure: tuple[int, Any], ca: Path) -> None:
    connect = f"127.0.0.1:{secure[0]}"
    untrusted = ask(url=f"https://{NAME}/", connect=connect)
    assert untrusted["status"] is None
    assert untrusted["error"].startswith(
        f"GET https://{NAME}/ at {connect}: the certificate is not trusted by the system"
    )
    wrong = ask(url="https://other.localhost/", connect=connect, ca_file=str(ca))
    assert "Hostname mismatch" in wrong["error"] and str(ca) in wrong["error"]
    blind = ask(url="https://other.localhost/", connect=connect, verify=False)
    assert (blind["status"], blind["tls"]["verified"], blind["tls"]["subject"]) == (200, False, "")


def test_a_server_that_does_not_answer_ends_within_the_timeout() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # accepts, and nobody serves
    try:
        port = server.server_address[1]
        silent = ask(url=f"http://127.0.0.1:{port}/", timeout=0.2)
        assert silent["error"] == f"GET http://127.0.0.1:{port}/ was not answered within 0.2 s."
    finally:
        server.server_close()
    refused = ask(url=f"http://127.0.0.1:{port}/")
    assert refused["status"] is None and "refused" in refused["error"]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"url": "ftp://x/"}, "ftp://x/"),
        ({"url": "/path"}, "/path"),
        ({"url": "http://x/", "connect": "127.0.0.1"}, "127.0.0.1"),
        ({"url": "http://x/", "connect": "127.0.0.1:70000"}, "70000"),
        ({"url": "http://x:99999/"}, "99999"),
        ({"url": "https://x/", "ca_file": "/nonexistent.pem"}, "/nonexistent.pem"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_by_name(given: dict[str, Any], word: str) -> None:
    with pytest.raises(edge.BadRequest, match=word):
        edge.parse(given)


def test_an_address_of_ipv6_is_taken_in_brackets() -> None:
    assert edge.parse({"url": "http://x/", "connect": "[::1]:443"}).connect == ("::1", 443)
