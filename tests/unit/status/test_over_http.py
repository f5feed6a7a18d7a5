"""The whole playbook against the fake API over HTTP: what a module gets from JSON is what the tests gave it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import well

ROOT = Path(__file__).parents[3]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


@pytest.fixture
def server() -> Iterator[tuple[well.Site, str]]:
    api = well.Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, date, content = api._send("GET", self.path, None, {})
            self.send_response_only(status)
            self.send_header("Date", date or "")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield api, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_status_as_a_person_runs_it(server: tuple[well.Site, str], tmp_path: Path) -> None:
    api, address = server
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": address}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "kubeconfig").chmod(0o600)
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {f"node-{n}": here for n in range(3)}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": {"k3s_server": {"hosts": hosts}}}}))
    given = {"abaci_kubeconfig": str(tmp_path / "kubeconfig"), "status_output": "html", "app_tls": "upstream"}
    given["status_file"] = str(tmp_path / "site.html")
    command = [str(PLAYBOOK), "-i", str(tmp_path / "hosts.json"), "playbooks/status.yml", "-e", json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    page = (tmp_path / "site.html").read_text()
    # Nobody listens where a pod's LiteFS would, so the site is down; everything else is as on the API.
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No running primary holds the recorded cluster" in page
    assert page.count("<td>node-") >= 3 and "traefik 1/1, coredns 1/1, redis 1/1, keel 1/1" in page
    assert len([one for one in api.requests if one.subresource not in ("proxy", "portforward")]) == 11
    assert "Traceback" not in done.stdout + done.stderr
