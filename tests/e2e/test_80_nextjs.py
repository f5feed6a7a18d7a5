"""An application with Next.js (testbed/nextjs) and the role's defaults: what a framework does, seen from outside."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from publishing import build, images, push
from sitebed import Bed, Response, until
from visitor import Page, Visitor
from writer import Site

pytestmark = pytest.mark.long

NAMESPACE = "abaci-next"
DOMAIN = "next.localhost"
PODS = {"abaci-app-0", "abaci-app-1", "abaci-app-2"}
FOLDER = f"/{images.NEXTJS_FOLDER}"
# Node closes a connection that was idle for 5 s, some time in the second after.
IDLE_S = (5.9, 6.1)
# What this image and a second site on the bed take; the rest is as the role has it.
SETTINGS: dict[str, Any] = {
    "app_image": images.NEXTJS,
    "app_command": "node server.js",
    "app_migrate_command": "node db/migrate.js",
    "app_scratch_paths": [f"{FOLDER}/.next/cache"],
    "app_namespace": NAMESPACE,
    "app_domain": DOMAIN,
    "app_tls": "self_signed",
    "app_tls_certificate_file": "",
    "app_tls_private_key_file": "",
    "app_tls_ca_file": "",
    "app_use_redis": False,
    "keel_state": "absent",
    "storage_state": "unmanaged",
    "app_volumes": [{"name": "uploads-data", "emptyDir": {}}],
    "app_volume_mounts": [{"name": "uploads-data", "mountPath": f"{FOLDER}/data/uploads"}],
}


def bring_up(bed: Bed, **settings: Any) -> None:
    run = bed.playbook("--tags", "app", "-e", json.dumps(SETTINGS | settings))
    assert run.rc == 0, run.output[-6000:]


@pytest.fixture(scope="module")
def site(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application on three pods beside the sample, under a name of its own."""
    push(bed, build.artifact("images-nextjs"), images.NEXTJS.partition("/")[2])
    bring_up(bed)
    yield bed.site(DOMAIN, verify=False, timeout=30)
    bed.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(site)


def rows(bed: Bed, pod: str, query: str) -> str:
    return bed.rows(pod, query, NAMESPACE)


def on_all_pods(visitor: Visitor, what: str, wanted: str) -> None:
    """Look at the first page until each pod has shown it with this text."""
    seen: set[str] = set()

    def everywhere() -> bool:
        page = visitor.view()
        assert page.status == 200, page.html
        if wanted in page.text(what):
            seen.add(page.text("pod"))
        return seen == PODS

    until(everywhere, 60, f"{wanted} on every pod", every=0.1)


def letters(bed: Bed, address: str) -> list[str]:
    log = bed.kubectl("logs", "abaci-app-0", "-n", NAMESPACE, "-c", "app", "--tail=-1")
    return re.findall(rf"mail to {re.escape(address)}: (\S+)", log)


def test_the_database_is_in_wal_mode_and_writable_on_the_primary_only(bed: Bed, site: Site) -> None:
    assert {rows(bed, pod, "pragma journal_mode") for pod in PODS} == {"wal"}
    assert rows(bed, "abaci-app-0", "select count(*) from __drizzle_migrations") == "1"
    write = ("sqlite3", "/litefs/sqlite.db", "insert into note (text) values ('x')")
    for pod in PODS - {"abaci-app-0"}:
        assert "readonly" in bed.in_pod(pod, *write, namespace=NAMESPACE, check=False)


def test_the_first_page_of_each_new_visitor_which_writes_a_row_never_fails(bed: Bed, site: Site) -> None:
    before = int(rows(bed, "abaci-app-0", "select count(*) from guest"))
    pages = [Visitor(site).view() for _ in range(30)]
    assert Counter(page.status for page in pages) == {200: 30}
    assert len({page.text("guest") for page in pages}) == 30
    assert int(rows(bed, "abaci-app-0", "select count(*) from guest")) == before + 30


def test_who_was_here_before_is_served_by_all_pods(visitor: Visitor) -> None:
    on_all_pods(visitor, "guest", visitor.view().text("guest"))


def test_a_link_by_mail_has_the_sites_name_and_signs_in_on_all_pods(bed: Bed, visitor: Visitor) -> None:
    address = f"{time.time_ns()}@example.org"
    sent = visitor.submit(visitor.view(), "sign-in", email=address)
    assert sent.status == 303 and (sent.header("Location") or "").startswith(f"{visitor.site.url}/"), sent
    (link,) = until(lambda: letters(bed, address), 10, "the letter in the log")
    assert link.startswith(f"{visitor.site.url}/api/auth/callback/email?"), link
    answer = visitor.ask("GET", link.removeprefix(visitor.site.url))
    assert answer.status == 302 and (answer.header("Location") or "").startswith(visitor.site.url), answer
    assert "__Secure-authjs.session-token" in visitor.cookies
    on_all_pods(visitor, "user", address)
    assert [rows(bed, pod, f"select count(*) from user where email = '{address}'") for pod in sorted(PODS)] == ["1"] * 3


def test_a_server_action_runs_on_the_primary_whatever_pod_made_its_form(bed: Bed, visitor: Visitor) -> None:
    visitor.view()
    forms: dict[str, Page] = {}
    until(lambda: forms.update({(page := visitor.view()).text("pod"): page}) or set(forms) == PODS, 60, "a form each")
    for pod, page in forms.items():
        answer = visitor.submit(page, "note", text=f"written from {pod}")
        assert answer.status == 200 and f"written from {pod}" in Page(answer).text("notes"), answer
        # LiteFS's cookie: whoever wrote sees it from any pod.
        assert f"written from {pod}" in visitor.view().text("notes")
    notes = rows(bed, "abaci-app-0", "select text from note where text like 'written from %' order by text")
    assert notes.splitlines() == [f"written from {pod}" for pod in sorted(PODS)]


def test_an_upload_is_written_by_the_primary(bed: Bed, visitor: Visitor) -> None:
    data = random.Random(80).randbytes(5_000_000)
    answer = visitor.ask("PUT", "/api/uploads/picture.bin", data)
    assert (answer.status, answer.json()) == (201, {"bytes": len(data), "pod": "abaci-app-0"}), answer
    size = bed.in_pod("abaci-app-0", "stat", "-c", "%s", f"{FOLDER}/data/uploads/picture.bin", namespace=NAMESPACE)
    assert int(size) == len(data)


def test_a_stream_comes_line_by_line(visitor: Visitor) -> None:
    began = time.monotonic()
    arrived = [(line, time.monotonic() - began) for line in visitor.lines("/api/stream") if line]
    assert [line.split()[1] for line, _ in arrived] == ["1", "2", "3", "4", "5"]
    # They are sent half a second apart.
    assert arrived[-1][1] - arrived[0][1] >= 1.5, arrived


def test_sockets_reach_the_primary_by_polling_and_by_websocket(visitor: Visitor) -> None:
    for number in range(5):
        assert visitor.echo_by_polling(f"polled {number}") == ["echo", f"polled {number}", "abaci-app-0"]
        assert visitor.echo_by_websocket(f"socket {number}") == ["echo", f"socket {number}", "abaci-app-0"]


def test_pictures_are_made_once_on_each_pod(bed: Bed, visitor: Visitor) -> None:
    picture = visitor.view().image()
    # A pod's first answers may be made beside each other.
    answers = [visitor.ask("GET", picture, headers={"Accept": "image/webp"}) for _ in range(24)]
    assert Counter(answer.status for answer in answers) == {200: 24}
    said = Counter(answer.header("X-Nextjs-Cache") for answer in answers)
    assert said["HIT"] >= 24 - 2 * len(PODS), said
    for pod in PODS:
        assert bed.in_pod(pod, "ls", f"{FOLDER}/.next/cache/images", namespace=NAMESPACE).strip(), pod


def test_thirty_visitors_behind_one_address_get_all_that_the_first_page_loads(site: Site) -> None:
    def visit(_: int) -> list[int]:
        visitor = Visitor(site)
        page = visitor.view()
        return [page.status, *(visitor.ask("GET", script).status for script in page.scripts())]

    with ThreadPoolExecutor(30) as pool:
        visits = list(pool.map(visit, range(30)))
    assert all(len(visit) >= 6 for visit in visits), visits[0]
    assert Counter(status for visit in visits for status in visit).keys() == {200}, visits


def lost_while_idle(site: Site, clients: int, rounds: int) -> list[Response]:
    """Write after pauses at whose end Node closes connections; several at once, since LiteFS keeps more than one."""
    visitors = [Visitor(site) for _ in range(clients)]
    page = visitors[0].view()
    dice = random.Random(6)
    answers: list[Response] = []
    with ThreadPoolExecutor(clients) as pool:
        for number in range(rounds):
            answers += pool.map(lambda who, text=f"idle {number}": who.submit(page, "note", text=text), visitors)
            time.sleep(dice.uniform(*IDLE_S))
    return [answer for answer in answers if answer.status != 200]


def test_no_write_is_lost_as_node_closes_idle_connections(bed: Bed, site: Site) -> None:
    before = int(rows(bed, "abaci-app-0", "select count(*) from note"))
    assert lost_while_idle(site, clients=3, rounds=20) == []
    assert int(rows(bed, "abaci-app-0", "select count(*) from note")) == before + 60


def test_nexts_own_server_does_the_same_but_for_sockets(bed: Bed, site: Site) -> None:
    """The same image by another command. That server has its address and its patience from the role alone."""
    bring_up(bed, app_command="node standalone.js")
    assert Counter(Visitor(site).view().status for _ in range(30)) == {200: 30}
    visitor = Visitor(site)
    answer = visitor.submit(visitor.view(), "note", text="by Next's own server")
    assert answer.status == 200 and "by Next" in Page(answer).text("notes")
    assert lost_while_idle(site, clients=3, rounds=20) == []
