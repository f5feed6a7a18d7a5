"""The limits count per client, and a client cannot choose who it is."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections import Counter
from typing import Any

import pytest
from sitebed import Bed, until

FLOOD = 800  # requests over connections that stay open; the site allows a burst of 100 and 50 a second

# Runs inside a container of the bed's network; prints the statuses it got.
CLIENT = """
import collections, concurrent.futures, http.client, json, socket, ssl, sys, threading, time
address, count, rate, forged = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "forge"
path, visitors = (sys.argv[5:] + ["/"])[0], int((sys.argv[6:] + ["8"])[0])
context = ssl._create_unverified_context()
class Pinned(http.client.HTTPSConnection):
    def connect(self):
        raw = socket.create_connection((address, 443), 10)
        self.sock = self._context.wrap_socket(raw, server_hostname=self.host)
local = threading.local()
def ask(number):
    if not hasattr(local, "connection"):
        local.connection = Pinned("abaci.localhost", timeout=20, context=context)
    liar = f"203.0.113.{number % 250}"
    headers = {"X-Forwarded-For": liar, "X-Real-Ip": liar} if forged else {}
    local.connection.request("GET", path, headers=headers)
    response = local.connection.getresponse()
    response.read()
    return response.status
if rate:
    statuses = []
    for number in range(count):
        statuses.append(ask(number)); time.sleep(1 / rate)
else:
    with concurrent.futures.ThreadPoolExecutor(visitors) as pool:
        statuses = list(pool.map(ask, range(count)))
print(json.dumps(collections.Counter(statuses)))
"""


def start_client(bed: Bed, container: str, *arguments: object) -> subprocess.Popen[str]:
    address = bed.node_address("server-0")
    return subprocess.Popen(
        ["docker", "exec", container, "python3", "-c", CLIENT, address, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def statuses(client: subprocess.Popen[str]) -> Counter[str]:
    output, _ = client.communicate(timeout=120)
    found: dict[str, Any] = json.loads(output)
    return Counter(found)


@pytest.fixture(scope="module")
def clients(bed: Bed) -> Any:
    """Two containers on the bed's network that are no nodes of the cluster."""
    with bed.client_container("flooder") as flooder, bed.client_container("visitor") as visitor:
        yield flooder, visitor


@pytest.mark.parametrize("forge", ["plain", "forge"])
def test_one_client_is_limited_while_another_is_served(bed: Bed, clients: tuple[str, str], forge: str) -> None:
    flooder, visitor = clients
    flood = start_client(bed, flooder, FLOOD, 0, forge)
    visit = start_client(bed, visitor, 20, 5, "plain")
    assert statuses(visit) == Counter({"200": 20})
    answers = statuses(flood)
    assert answers["429"] > 0 and answers["200"] >= 100, answers
    assert set(answers) == {"200", "429"}, answers


def test_thirty_visitors_behind_one_address_get_every_script_of_the_first_page(
    bed: Bed, clients: tuple[str, str]
) -> None:
    """The limit holds for the pages; the sample has none of these files, and 404 is its own answer."""
    flooder, visitor = clients
    scripts = start_client(bed, visitor, 30 * 14, 0, "plain", "/_next/static/chunks/main.js", 30)
    pages = start_client(bed, flooder, FLOOD, 0, "plain")
    assert statuses(scripts) == Counter({"404": 30 * 14})
    assert statuses(pages)["429"] > 0


def test_the_access_log_has_paths_and_not_the_codes_of_sign_in_callbacks(bed: Bed) -> None:
    path = f"/api/auth/callback/{secrets.token_hex(8)}"
    code = secrets.token_hex(8)
    bed.edge("GET", f"{path}?code={code}&state=x")

    def log() -> str:
        return bed.kubectl("logs", "-n", "kube-system", "-l", "app.kubernetes.io/name=traefik", "--tail=200")

    until(lambda: path in log(), 20, "the request is in the log")
    assert code not in log()
