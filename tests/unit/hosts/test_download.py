"""A download with its checksum: what is put in place, what is said, and that a proxy's password is never shown."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

FILE = b"a binary" * 1000
SUM = hashlib.sha256(FILE).hexdigest()
ANSIBLE = str(Path(sys.executable).with_name("ansible-playbook"))
MARK = "Mark-0f9e8d7c"
TASKS = Path(__file__).parents[3] / "roles/k3s/tasks/fetch.yml"


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers in the place of every server, and keeps what it was asked."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        there = self.path.endswith("/k3s")
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(FILE) if there else 0))
        self.end_headers()
        self.wfile.write(FILE if there else b"")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:{MARK}@127.0.0.1:{server.server_port}"
    server.shutdown()


def play(folder: Path, proxy: str, *options: str, **given: str) -> str:
    """Run the role's own tasks of a download, and return all that was said."""
    variables = {
        "k3s_source": "release",
        "k3s_download_timeout": 10,
        "k3s_environment": {"HTTP_PROXY": proxy, "http_proxy": proxy, "LEVEL": "2"},
        "__k3s_file": {
            "path": "http://k3s.invalid/k3s",
            "checksum": SUM,
            "variable": "k3s_checksum",
            "dest": str(folder / "k3s"),
            "mode": "0755",
            **given,
        },
        "ansible_python_interpreter": sys.executable,
    }
    handlers = [{"name": "Restart k3s", "ansible.builtin.debug": {"msg": "restarted"}}]
    tasks = [{"ansible.builtin.include_tasks": str(TASKS)}]
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks, "handlers": handlers, "vars": variables}]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    done = subprocess.run(
        [ANSIBLE, "-i", "localhost,", "-c", "local", "-vvv", *options, str(folder / "play.yml")],
        cwd=folder,
        env={**os.environ, "no_proxy": "", "NO_PROXY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert MARK not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_comes_through_the_proxy_once_and_nothing_shows_the_password(proxy: str, tmp_path: Path) -> None:
    assert "changed=1" in play(tmp_path, proxy, "--check") and not (tmp_path / "k3s").exists()
    assert "restarted" in play(tmp_path, proxy)
    assert Proxy.asked[-1][0] == "http://k3s.invalid/k3s" and Proxy.asked[-1][1].startswith("Basic ")
    assert (tmp_path / "k3s").read_bytes() == FILE and (tmp_path / "k3s").stat().st_mode & 0o777 == 0o755
    count = len(Proxy.asked)
    assert "changed=0" in play(tmp_path, proxy) and len(Proxy.asked) == count


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"checksum": "0" * 64}, f"it has the SHA-256 {SUM}"),
        ({"path": "http://k3s.invalid/other"}, "HTTP Error 404: Not Found"),
        ({"path": "ftp2://k3s.invalid/k3s"}, "unknown url type"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_the_old_file_stays(
    proxy: str, tmp_path: Path, given: dict[str, str], why: str
) -> None:
    (tmp_path / "k3s").write_bytes(b"old")
    said = " ".join(play(tmp_path, proxy, **given).split())
    assert why in said and "check the address (k3s_source" in said, json.dumps(said)[-3000:]
    assert (tmp_path / "k3s").read_bytes() == b"old"
