"""How long a run with nothing to do takes, always beside something else in the same round.

    bench.py --inventory .bed/test/inventory              # a bed that is up and has its site
    bench.py --parts light                                # light hosts alone, which need no bed
    bench.py --inventory ... --against ../other           # and the site.yml of another checkout with its own .venv

docs/performance.md says what is measured. After each round the table and the JSON are written; a run that fails, or
that changes something where there is nothing to do, ends the part, and what was measured until then is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/tools", "tests/e2e", "testbed")]

import bed  # noqa: E402
import delay  # noqa: E402
import figures  # noqa: E402
import light  # noqa: E402
import plays  # noqa: E402
import sitebed  # noqa: E402
from figures import Comparison, Count  # noqa: E402

PARTS = ("site", "hosts", "status", "manifests", "latency", "light")
LIGHT = (1, 3, 10, 30)
LATENCY_S = 0.1
TIMEOUT_S = 900
HOST_TAGS = ("--tags", "host,fuse,k3s")

SITE = "site.yml"
HOSTS = "site.yml, hosts only"
STATUS = "status.yml"
ONE_CALL = "unchanged manifests in one call"
EACH = "one `kubernetes.core.k8s` each"
FLOOR = "as many modules, setup and ping, for "
OTHER = " of the other checkout"
LATE = ", 100 ms away"


def hosts_looked_at(count: int) -> str:
    return f"look at {count} light host{'s' if count > 1 else ''}"


COMPARISONS = (
    *(Comparison(name, FLOOR + name) for name in (SITE, HOSTS, STATUS)),
    *(Comparison(name, name + OTHER, 0.35) for name in (SITE, HOSTS)),
    *(Comparison(name + LATE, name, 1.5) for name in (SITE, HOSTS)),
    Comparison(ONE_CALL, EACH, 0.2),
    *(Comparison(hosts_looked_at(count), FLOOR + hosts_looked_at(count)) for count in LIGHT),
    *(Comparison(hosts_looked_at(count), hosts_looked_at(count // 10), 2.0) for count in LIGHT if count >= 10),
    *(Comparison(FLOOR + hosts_looked_at(many), FLOOR + hosts_looked_at(many // 10)) for many in LIGHT if many >= 10),
)


class BenchError(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Run:
    """One ansible-playbook. ``quiet``: it has nothing to do, and has to say so."""

    name: str
    playbook: str
    inventory: Path
    arguments: tuple[str, ...] = ()
    root: Path = ROOT
    quiet: bool = True


@dataclass
class Results:
    """What was measured so far. ``series``: seconds of each round by name."""

    rounds: int
    series: dict[str, list[float]] = field(default_factory=dict)
    counts: list[Count] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "rounds": self.rounds,
            "series": self.series,
            "figures": [dataclasses.asdict(one) for one in figures.figures(COMPARISONS, self.series)],
            "counts": [dataclasses.asdict(one) for one in self.counts],
            "notes": self.notes,
        }

    def text(self) -> str:
        done = sorted({len(values) for values in self.series.values()})
        head = f"{machine()}; rounds: {', '.join(map(str, done)) or 'none'}\n\n"
        tables = (figures.table(figures.figures(COMPARISONS, self.series)), figures.count_table(self.counts))
        notes = "".join(f"- {note}\n" for note in self.notes)
        return head + "\n".join(part for part in (*tables, notes) if part)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """What kind of machine this is, in words without a name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return f"{os.cpu_count()} cores, {memory:.0f} GB, hosts in containers on the same machine"


def ansible(run: Run, extra: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a playbook; its seconds as a whole process and its output.

    Each begins without a connection to any host, as a person's first run does.

    Raises:
        BenchError: it failed, or changed something although there was nothing to do.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as connections:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": connections, **(extra or {})}
        command = [str(run.root / ".venv/bin/ansible-playbook"), "-i", str(run.inventory), run.playbook, *run.arguments]
        began = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=run.root, env=environment, timeout=TIMEOUT_S, check=False
        )
        took = time.monotonic() - began
    output = done.stdout + done.stderr
    if done.returncode:
        raise BenchError(f"{run.name} ended with {done.returncode}: {output[-2000:]}")
    changed = sum(map(int, re.findall(r"\bchanged=(\d+)", output.partition("PLAY RECAP")[2])))
    if run.quiet and changed:
        raise BenchError(f"{run.name} had nothing to do and changed {changed}: {output[-4000:]}")
    return took, output


@dataclass(frozen=True)
class Counted:
    """Modules by host, requests to the API and calls of server_side_apply, of one run that was not timed."""

    modules: dict[str, int]
    requests: list[str]
    applied: list[plays.Data]

    @property
    def of_the_app(self) -> list[plays.Data]:
        """The manifests of the role app, from the call that had most of them."""
        calls = (call["objects"] for call in self.applied if call["role"].endswith("app"))
        return max(calls, key=len, default=[])

    @property
    def writing(self) -> list[str]:
        return [one for one in self.requests if not one.startswith("GET ") and "dryRun=All" not in one]


def counted(run: Run, scratch: Path, api: int) -> Counted:
    """Run it once, to count what it executes, and to be warm."""
    target, noted, kept = scratch / "count.json", scratch / "requests", scratch / "manifests.jsonl"
    noted.write_text("")
    callbacks = (ROOT / "tests/tools/callbacks", ROOT / "tests/bench/callbacks")
    environment = {
        "ANSIBLE_CALLBACK_PLUGINS": ":".join(map(str, callbacks)),
        "ANSIBLE_CALLBACKS_ENABLED": "count,manifests",
        "MANIFESTS_FILE": str(kept),
        "COUNT_FILE": str(target),
        "PYTHONPATH": str(ROOT / "tests/tools/requests"),
        "COUNT_REQUESTS": str(noted),
        "COUNT_REQUESTS_PORT": str(api),
    }
    ansible(run, environment)
    return Counted(
        modules=json.loads(target.read_text())["modules"],
        requests=sitebed.api_requests(noted.read_text()),
        applied=[json.loads(line) for line in kept.read_text().splitlines()],
    )


def floor(name: str, modules: dict[str, int], inventory: Path, scratch: Path) -> Run:
    """What Ansible itself takes for as many modules."""
    path = scratch / f"floor-{re.sub(r'[^a-z0-9]+', '-', name)}.yml"
    path.write_text(json.dumps(plays.floor(modules)))
    return Run(FLOOR + name, str(path), inventory, quiet=False)


def relay(to: tuple[str, int]) -> int:
    """A relay on 127.0.0.1 whose answers come 100 ms later, and a connection takes as long; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def connect(client: socket.socket) -> None:
        time.sleep(LATENCY_S)
        try:
            server = socket.create_connection(to)
        except OSError:
            client.close()
            return
        threading.Thread(target=delay.hold_back, args=(client, server, 0.0), daemon=True).start()
        delay.hold_back(server, client, LATENCY_S)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=connect, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def far_inventory(inventory: Path, hosts: dict[str, Any], scratch: Path) -> Path:
    """The bed's inventory with relays in front of SSH and API."""
    settings = hosts["all"]["vars"]
    server = settings["k3s_kubeconfig_server"]
    host, _, port = server.removeprefix("https://").rpartition(":")
    api = relay((host, int(port)))
    kubeconfig = scratch / "kubeconfig"
    kubeconfig.touch(0o600)
    kubeconfig.write_text(Path(settings["k3s_kubeconfig"]).read_text().replace(server, f"https://127.0.0.1:{api}"))
    ssh = {name: relay((address, 22)) for name, address in plays.addresses(hosts).items()}
    target = scratch / "far"
    target.mkdir()
    (target / "group_vars").symlink_to((inventory / "group_vars").resolve())
    document = plays.behind_relays(hosts, ssh, str(kubeconfig), api)
    (target / "hosts.yml").write_text(json.dumps(document))
    return target


def manifests(objects: Sequence[plays.Data], kubeconfig: str, inventory: Path, scratch: Path) -> list[Run]:
    """The application's manifests, as site.yml compared them, in one call; and each in a task of its own."""
    if not objects:
        raise BenchError("site.yml applied no manifests of the role app: is app_state present?")
    whole, together, each = (scratch / name for name in ("objects.json", "one-call.yml", "one-task-each.yml"))
    files = [scratch / f"object-{number:02}.json" for number in range(len(objects))]
    for file, content in zip((whole, *files), (objects, *objects), strict=True):
        file.write_text(json.dumps(content))
    together.write_text(json.dumps(plays.one_call(kubeconfig, str(whole))))
    each.write_text(json.dumps(plays.one_task_each(kubeconfig, [str(file) for file in files])))
    return [Run(ONE_CALL, str(together), inventory), Run(EACH, str(each), inventory, quiet=False)]


def finds_nothing_to_do(run: Run, results: Results) -> bool:
    """Whether a run of another checkout would change nothing on this bed; if not, a note says why it was left out."""
    try:
        ansible(dataclasses.replace(run, arguments=(*run.arguments, "--check")))
    except BenchError as error:
        results.notes.append(f"{run.name} was not measured: {' '.join(str(error).split())[:300]}")
        say(f"{run.name} was not measured: {error}")
        return False
    return True


def measure(runs: Sequence[Run], results: Results, save: Callable[[], None]) -> None:
    """Run them in turn, round by round. A round that does not end is not kept."""
    for number in range(results.rounds):
        took = {}
        for run in runs:
            took[run.name], _ = ansible(run)
            say(f"round {number + 1} of {results.rounds}: {took[run.name]:6.1f} s  {run.name}")
        for name, seconds in took.items():
            results.series.setdefault(name, []).append(seconds)
        save()


def of_a_bed(asked: argparse.Namespace, results: Results, scratch: Path, save: Callable[[], None]) -> None:
    """Everything that needs a bed with its site."""
    inventory: Path = asked.inventory.absolute()
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    settings = hosts["all"]["vars"]
    api = int(settings["k3s_kubeconfig_server"].rpartition(":")[2])
    site = Run(SITE, "site.yml", inventory)
    only = Run(HOSTS, "site.yml", inventory, HOST_TAGS)
    say("site.yml until it has nothing to do")
    ansible(dataclasses.replace(site, quiet=False))
    found = counted(site, scratch, api)
    results.counts += counts_of_the_site(found)
    measured = [run for run, part in ((site, "site"), (only, "hosts")) if asked.parts & {part, "latency"}]
    runs = list(measured)
    if "site" in asked.parts:
        runs.append(floor(SITE, found.modules, inventory, scratch))
    if "hosts" in asked.parts:
        runs.append(floor(HOSTS, counted(only, scratch, api).modules, inventory, scratch))
    if "manifests" in asked.parts:
        runs += manifests(found.of_the_app, settings["k3s_kubeconfig"], inventory, scratch)
    if "status" in asked.parts:
        status = Run(STATUS, "playbooks/status.yml", inventory)
        look = counted(status, scratch, api)
        results.counts += counts_of_status(look)
        runs += [status, floor(STATUS, look.modules, inventory, scratch)]
    if "latency" in asked.parts:
        far = far_inventory(inventory, hosts, scratch)
        runs += [dataclasses.replace(run, name=run.name + LATE, inventory=far) for run in measured]
    if asked.against:
        there = (asked.against_inventory or inventory).absolute()
        others = [
            dataclasses.replace(run, name=run.name + OTHER, root=asked.against.resolve(), inventory=there)
            for run in measured
        ]
        runs += [run for run in others if finds_nothing_to_do(run, results)]
    measure(runs, results, save)


def counts_of_the_site(found: Counted) -> list[Count]:
    on_hosts = [count for host, count in found.modules.items() if host != "localhost"]
    return [
        Count("modules on a host, site.yml", max(on_hosts), 8),
        Count("modules on localhost, site.yml", found.modules.get("localhost", 0), 25),
        Count("requests to the API, site.yml", len(found.requests), 40),
        Count("of them writing", len(found.writing), 0),
        Count("manifests of the role app", len(found.of_the_app)),
    ]


def counts_of_status(look: Counted) -> list[Count]:
    to_pods = sum("WebSocket" in request for request in look.requests)
    return [
        Count("requests to the API, status.yml", len(look.requests) - to_pods, 12),
        Count("connections to pods through the API, status.yml", to_pods),
    ]


def of_light_hosts(asked: argparse.Namespace, results: Results, scratch: Path, save: Callable[[], None]) -> None:
    """The look at hosts against 1 to 30 of them, and Ansible's own setup of as many."""
    counts = [count for count in LIGHT if count <= asked.most]
    with light.hosts(max(counts)) as made:
        runs = []
        for count in counts:
            inventory = light.inventory(made, count, scratch / f"light-{count}")
            name = hosts_looked_at(count)
            runs.append(Run(name, "tests/bench/probe.yml", inventory))
            runs.append(floor(name, {node.host: 1 for node in made.nodes[:count]}, inventory, scratch))
        for run in runs[:2]:
            ansible(run)  # to be warm
        measure(runs, results, save)


@contextlib.contextmanager
def own_bed(name: str) -> Iterator[None]:
    """A bed of three nodes, unless KEEP_BED says that it is up and stays."""
    keep = os.environ.get("KEEP_BED") == "1"
    try:
        if not keep:
            sitebed.run_bed("down", name)
            sitebed.run_bed("up", name, "--nodes", "3")
        yield
    finally:
        if not keep:
            sitebed.run_bed("down", name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", type=Path, help="of a bed that is up (default: a bed by BED_NAME and KEEP_BED)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--most", type=int, default=max(LIGHT), help="light hosts at most (default: 30)")
    parser.add_argument("--against", type=Path, help="another checkout of this project with its own .venv")
    parser.add_argument(
        "--against-inventory", type=Path, help="where its variables have other names (default: the same)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / ".bed/bench", help="for .json and .md (default: .bed/bench)")
    asked = parser.parse_args()
    asked.parts = set(asked.parts)
    # Hosts and beds that were made are removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(asked.rounds)

    def save() -> None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.with_suffix(".json").write_text(json.dumps(results.document(), indent=1) + "\n")
        asked.out.with_suffix(".md").write_text(results.text())

    failed = False
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        try:
            if asked.parts - {"light"}:
                if not asked.inventory:
                    name = os.environ.get("BED_NAME") or "bench"
                    stack.enter_context(own_bed(name))
                    asked.inventory = bed.inventory_folder(name)
                of_a_bed(asked, results, Path(folder), save)
            if "light" in asked.parts:
                of_light_hosts(asked, results, Path(folder), save)
        except (BenchError, bed.BedError, subprocess.SubprocessError) as error:
            say(str(error))
            results.notes.append(f"It ended early: {str(error).splitlines()[0][:300]}")
            failed = True
    save()
    print(results.text())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
