"""An application with Next.js (testbed/nextjs) and the role's defaults: what a framework does, seen from outside."""

from __future__ import annotations

import contextlib
import hashlib
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
from sitebed import ROOT, Bed, Response, until
from visitor import Page, Visitor, slowly
from writer import Site

pytestmark = pytest.mark.long

NAMESPACE = "abaci-next"
DOMAIN = "next.localhost"
PODS = {"abaci-app-0", "abaci-app-1", "abaci-app-2"}
FOLDER = f"/{images.NEXTJS_FOLDER}"
PRIMARY, REPLICAS = "abaci-app-0", ("abaci-app-1", "abaci-app-2")
# Node closes a connection that was idle for 5 s, some time in the second after; LiteFS one of Traefik after 30 s.
NODE_CLOSES_S, LITEFS_CLOSES_S = (5.9, 6.1), (29.9, 30.1)
LAG_S = 0.25
RELAY_PORT, RELAY_MARK = 20299, 77
# The first process of one container, by its id.
FIRST = 'grep -ls "$1" /proc/[0-9]*/cgroup | cut -d/ -f3 | sort -n | head -1'
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


def sign_in(bed: Bed, visitor: Visitor) -> str:
    """Ask for a link and follow it; the address."""
    address = f"{time.time_ns()}@example.org"
    sent = visitor.submit(visitor.view(), "sign-in", email=address)
    assert sent.status == 303 and (sent.header("Location") or "").startswith(f"{visitor.site.url}/"), sent
    (link,) = until(lambda: letters(bed, address), 10, "the letter in the log")
    assert link.startswith(f"{visitor.site.url}/api/auth/callback/email?"), link
    answer = visitor.ask("GET", link.removeprefix(visitor.site.url))
    assert answer.status == 302 and (answer.header("Location") or "").startswith(visitor.site.url), answer
    assert "__Secure-authjs.session-token" in visitor.cookies
    return address


def test_a_link_by_mail_has_the_sites_name_and_signs_in_on_all_pods(bed: Bed, visitor: Visitor) -> None:
    address = sign_in(bed, visitor)
    on_all_pods(visitor, "user", address)
    assert [rows(bed, pod, f"select count(*) from user where email = '{address}'") for pod in sorted(PODS)] == ["1"] * 3


def first_process(bed: Bed, pod: dict[str, Any]) -> str:
    """The number that LiteFS's process in the pod has on its node."""
    (app,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "app"]
    container = app["containerID"].removeprefix("containerd://")
    return bed.node_exec(pod["spec"]["nodeName"], "sh", "-c", FIRST, "sh", container).strip()


@contextlib.contextmanager
def lagging(bed: Bed, name: str, primary: str) -> Iterator[None]:
    """What the replica gets of the primary comes LAG_S late: through a relay within its pod's network."""
    pod = bed.get("pod", name, "-n", NAMESPACE)
    node, process = pod["spec"]["nodeName"], first_process(bed, pod)
    inside = ("nsenter", "-t", process, "-n")
    program = (ROOT / "tests/tools/delay.py").read_text()
    given = f"--listen {RELAY_PORT} --to {primary}:20202 --seconds {LAG_S} --mark {RELAY_MARK}"
    run = f'setsid {" ".join(inside)} python3 -c "$1" {given} >/dev/null 2>&1 & echo $!'
    relay = bed.node_exec(node, "sh", "-c", run, "sh", program).strip()
    to_primary = f"OUTPUT -p tcp -d {primary} --dport 20202 -m mark ! --mark {RELAY_MARK} -j".split()
    through = (*to_primary, "DNAT", "--to-destination", f"127.0.0.1:{RELAY_PORT}")
    cut = (*to_primary, "REJECT", "--reject-with", "tcp-reset")
    try:
        bed.node_exec(node, *inside, "iptables", "-t", "nat", "-A", *through)
        # What is connected already goes on as it was, until it breaks off.
        bed.node_exec(node, *inside, "iptables", "-I", *cut)
        time.sleep(3)
        bed.node_exec(node, *inside, "iptables", "-D", *cut)
        yield
    finally:
        bed.node_exec(node, *inside, "iptables", "-D", *cut, check=False)
        bed.node_exec(node, *inside, "iptables", "-t", "nat", "-D", *through)
        # With the relay its connections end, and LiteFS makes new ones.
        bed.node_exec(node, "kill", relay)


def callbacks(bed: Bed) -> Counter[str]:
    """How many sign-in callbacks Traefik has sent to which address."""
    selector = ("-l", "app.kubernetes.io/name=traefik")
    log = bed.kubectl("logs", "-n", "kube-system", *selector, "--tail=-1", "--max-log-requests=20")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{") and "/api/auth/callback" in line]
    here = [line for line in lines if str(line.get("RequestHost", "")).startswith(DOMAIN)]
    return Counter(str(line.get("ServiceAddr", "")).rpartition(":")[0] for line in here)


def test_ten_callbacks_on_replicas_that_lag_sign_in_on_all_pods_at_once(bed: Bed, site: Site) -> None:
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in bed.pods(NAMESPACE)}
    replicas = {addresses[name] for name in REPLICAS}
    before = callbacks(bed)

    def on_replicas() -> int:
        return sum(count for address, count in (callbacks(bed) - before).items() if address in replicas)

    with contextlib.ExitStack() as stack:
        for name in REPLICAS:
            stack.enter_context(lagging(bed, name, addresses[PRIMARY]))
        # They lag: who has not LiteFS's cookie does not see at once what was written.
        late = 0
        for number in range(20):
            writer, text = Visitor(site), f"late {number} {time.time_ns()}"
            page = writer.view()
            strangers = [Visitor(site) for _ in range(3)]
            assert writer.submit(page, "note", text=text).status == 200
            late += any(text not in stranger.view().text("notes") for stranger in strangers)
        assert late >= 5, late
        landed = 0
        for _ in range(4):
            for _ in range(10):
                visitor = Visitor(site)
                address = sign_in(bed, visitor)
                pages = [visitor.view() for _ in range(6)]
                assert {page.text("user") for page in pages} == {address}
                assert {page.text("pod") for page in pages} == PODS
            landed = on_replicas()
            if landed >= 10:
                break
        assert landed >= 10, callbacks(bed) - before


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


def test_an_upload_of_200_mb_arrives_whole(bed: Bed, site: Site) -> None:
    piece = random.Random(200).randbytes(1_000_000)
    digest = hashlib.sha256(piece * 200).hexdigest()
    visitor = Visitor(bed.site(DOMAIN, verify=False, timeout=180))
    headers = {"Content-Length": str(200 * len(piece))}
    answer = visitor.ask("PUT", "/api/uploads/film.bin", (piece for _ in range(200)), headers)
    assert (answer.status, answer.json()) == (201, {"bytes": 200_000_000, "pod": PRIMARY}), answer
    file = f"{FOLDER}/data/uploads/film.bin"
    assert bed.in_pod(PRIMARY, "sha256sum", file, namespace=NAMESPACE).split()[0] == digest
    bed.in_pod(PRIMARY, "rm", file, namespace=NAMESPACE)
    # It passed through the pod, and did not stay in its memory.
    (pod,) = [pod for pod in bed.pods(NAMESPACE) if pod["metadata"]["name"] == PRIMARY]
    assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0]


def test_an_upload_over_a_slow_line_takes_more_than_five_minutes(bed: Bed, visitor: Visitor) -> None:
    """Over Traefik's own limit of a minute, and Node's of 300 s."""
    data = random.Random(5).randbytes(600_000)
    headers = {"Content-Length": str(len(data))}
    began = time.monotonic()
    answer = visitor.ask("PUT", "/api/uploads/slow.bin", slowly(data, 305, pieces=120), headers)
    assert (answer.status, answer.json()) == (201, {"bytes": len(data), "pod": PRIMARY}), answer
    assert time.monotonic() - began >= 305


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


def lost_while_idle(site: Site, clients: int, rounds: int, pause: tuple[float, float]) -> list[Response]:
    """Write after pauses at whose end connections are closed; many at once, since each proxy keeps more than one."""
    visitors = [Visitor(site) for _ in range(clients)]
    page = visitors[0].view()
    dice = random.Random(6)
    answers: list[Response] = []
    with ThreadPoolExecutor(clients) as pool:
        for number in range(rounds):
            answers += pool.map(lambda who, text=f"idle {number}": who.submit(page, "note", text=text), visitors)
            time.sleep(dice.uniform(*pause))
    return [answer for answer in answers if answer.status != 200]


@pytest.mark.parametrize("pause", [NODE_CLOSES_S, LITEFS_CLOSES_S], ids=str)
def test_of_a_thousand_writes_none_is_lost_as_idle_connections_are_closed(
    bed: Bed, site: Site, pause: tuple[float, float]
) -> None:
    before = int(rows(bed, PRIMARY, "select count(*) from note"))
    assert lost_while_idle(site, 50, 20, pause) == []
    assert int(rows(bed, PRIMARY, "select count(*) from note")) == before + 1000


def test_what_is_under_way_is_answered_when_its_pod_is_told_to_end(bed: Bed, site: Site) -> None:
    """Writes whose bodies are on their way to the primary, and streams from every pod; one pod after the other ends."""
    page = Visitor(site).view()
    text = f"under way {time.time_ns()}"

    def write(number: int) -> int:
        return Visitor(site).submit(page, "note", seconds=6, text=f"{text} {number}").status

    def read(_: int) -> list[str]:
        return [line.split()[1] for line in Visitor(site).lines("/api/stream") if line]

    for pod in (*REPLICAS, PRIMARY):
        uid = bed.get("pod", pod, "-n", NAMESPACE)["metadata"]["uid"]
        with ThreadPoolExecutor(16) as pool:
            writes = [pool.submit(write, number) for number in range(4 if pod == PRIMARY else 0)]
            streams = [pool.submit(read, number) for number in range(9)]
            # All of them have begun; none has its answer.
            time.sleep(1)
            bed.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--wait=false")
            assert [future.result(60) for future in writes] == [200] * len(writes)
            assert [future.result(60) for future in streams] == [["1", "2", "3", "4", "5"]] * 9

        def back(name: str = pod, old: str = uid) -> bool:
            found = bed.get("pod", name, "-n", NAMESPACE)
            ready = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}.get("Ready")
            return found["metadata"]["uid"] != old and ready == "True"

        until(back, 180, f"{pod} is back")
    assert rows(bed, PRIMARY, f"select count(*) from note where text like '{text} %'") == "4"


def test_nexts_own_server_does_the_same_but_for_sockets(bed: Bed, site: Site) -> None:
    """The same image by another command. That server has its address and its patience from the role alone."""
    bring_up(bed, app_command="node standalone.js")
    assert Counter(Visitor(site).view().status for _ in range(30)) == {200: 30}
    visitor = Visitor(site)
    answer = visitor.submit(visitor.view(), "note", text="by Next's own server")
    assert answer.status == 200 and "by Next" in Page(answer).text("notes")
    assert lost_while_idle(site, 3, 20, NODE_CLOSES_S) == []
