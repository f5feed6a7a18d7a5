"""Light hosts: containers of the bed's node image in which sshd runs and nothing else. I/O."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "testbed"))

import bed  # noqa: E402

NAME = "bench-light"
SUITE = "trixie"
START = "mkdir -p /run/sshd /run/systemd/system && exec /usr/sbin/sshd -D"
# The release whose pins the role has; nothing is installed, so nothing is fetched.
SETTINGS: dict[str, object] = {"k3s_source": "release", "k3s_version": "v1.36.4+k3s1"}


def plan(count: int) -> bed.Plan:
    network = bed.network(NAME)
    # The first is the server, as the groups of the inventory want one.
    names = ["server-0", *(f"agent-{number}" for number in range(1, count))]
    nodes = tuple(
        bed.Node(host=name, container=f"{NAME}-{name}", address=str(network[10 + number]))
        for number, name in enumerate(names)
    )
    return bed.Plan(name=NAME, suite=SUITE, ports=bed.Ports(), subnet=network, nodes=nodes, acme=str(network[8]))


@contextlib.contextmanager
def hosts(count: int) -> Iterator[bed.Plan]:
    """As many light hosts, which answer by SSH; they are removed in the end.

    Raises:
        bed.BedError: this machine does not run them.
    """
    bed.down(NAME)
    try:
        made = plan(count)
        folder = bed.folder_of(NAME)
        bed.make_keys(made, folder)
        with bed.lock():
            tag = bed.image(f"node-{SUITE}")
            flags = bed.node_flags(tag)
            for node in made.nodes:
                bed.docker(
                    *("create", "--init", "--name", node.container, "--hostname", node.host),
                    *("--label", f"{bed.LABEL}={NAME}", "--network", f"abaci-{NAME}", "--ip", node.address),
                    *(*flags, tag, "/bin/sh", "-c", START),
                )
                bed.docker("cp", "-", f"{node.container}:/", data=bed.node_files(made, node, folder))
                bed.docker("start", node.container)
        bed.wait_ssh(made)
        yield made
    finally:
        bed.down(NAME)


def inventory(made: bed.Plan, count: int, target: Path) -> Path:
    """Write an inventory of the first ``count`` of them, with the group variables of the bed."""
    some = bed.Plan(name=NAME, suite=SUITE, ports=made.ports, subnet=made.subnet, nodes=made.nodes[:count])
    target.mkdir()
    (target / "group_vars").symlink_to(ROOT / "inventories/local/group_vars")
    (target / "hosts.yml").write_text(json.dumps(bed.inventory(some, bed.folder_of(NAME), SETTINGS)) + "\n")
    return target
