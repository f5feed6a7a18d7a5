"""The pod network of a node: a bridge with host-local addresses, and a route per peer node (host-gw) or a VXLAN device.

The decisions are pure functions that give the `ip` and `bridge` commands; Network.step() runs what changed.
"""

from __future__ import annotations

import ipaddress
import json
import pathlib
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .kube import Api
from .pki import write_private
from .processes import log

DEVICE = "flannel.1"
VXLAN_PORT = 8472
VXLAN_COST = 50


@dataclass(frozen=True, order=True)
class Peer:
    """Another node: its address and the range of its pods."""

    address: str
    cidr: str


def peers(nodes: Iterable[Mapping[str, Any]], own: str) -> list[Peer]:
    """All nodes but this one that have an address and a range, sorted."""
    found = []
    for node in nodes:
        cidr = node["spec"].get("podCIDR")
        addresses = node.get("status", {}).get("addresses", [])
        address = next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")
        if node["metadata"]["name"] != own and cidr and address:
            found.append(Peer(address, cidr))
    return sorted(found)


def hardware_address(address: str) -> str:
    """The VXLAN device's hardware address on the node with this address: known everywhere without asking."""
    return "0e:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def first(cidr: str) -> str:
    return str(ipaddress.ip_network(cidr).network_address)


def join_commands(backend: str, peer: Peer) -> list[list[str]]:
    """What makes a peer's pods reachable; repeating it is harmless."""
    if backend == "host-gw":
        return [["ip", "route", "replace", peer.cidr, "via", peer.address]]
    mac = hardware_address(peer.address)
    return [
        ["ip", "neigh", "replace", first(peer.cidr), "lladdr", mac, "dev", DEVICE, "nud", "permanent"],
        ["bridge", "fdb", "replace", mac, "dev", DEVICE, "dst", peer.address],
        ["ip", "route", "replace", peer.cidr, "via", first(peer.cidr), "dev", DEVICE, "onlink"],
    ]


def leave_commands(backend: str, peer: Peer) -> list[list[str]]:
    """What forgets a peer that is gone."""
    if backend == "host-gw":
        return [["ip", "route", "del", peer.cidr, "via", peer.address]]
    mac = hardware_address(peer.address)
    return [
        ["ip", "route", "del", peer.cidr, "dev", DEVICE],
        ["bridge", "fdb", "del", mac, "dev", DEVICE],
        ["ip", "neigh", "del", first(peer.cidr), "dev", DEVICE],
    ]


def device_commands(address: str, cidr: str, mtu: int, interface: str) -> list[list[str]]:
    """Make this node's VXLAN device."""
    return [
        [
            *("ip", "link", "add", DEVICE, "type", "vxlan", "id", "1", "local", address, "dev", interface),
            *("dstport", str(VXLAN_PORT), "nolearning"),
        ],
        ["ip", "link", "set", DEVICE, "address", hardware_address(address), "mtu", str(mtu)],
        ["ip", "addr", "replace", f"{first(cidr)}/32", "dev", DEVICE],
        ["ip", "link", "set", DEVICE, "up"],
    ]


def cni_config(cidr: str, mtu: int) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "mtu": mtu,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": cidr}]], "dataDir": "/var/lib/cni/networks"},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, portmap]}


def masquerade(cidr: str, cluster_cidr: str) -> str:
    """nftables rules: what leaves the pod network goes out under the node's address."""
    return f"""table ip k3s-masquerade
delete table ip k3s-masquerade
table ip k3s-masquerade {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {cidr} ip daddr != {{ {cluster_cidr}, 224.0.0.0/4 }} oifname != "cni0" masquerade
  }}
}}
"""


def command(words: list[str], data: str | None = None, check: bool = True) -> str:
    done = subprocess.run(words, input=data, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"`{' '.join(words)}`: {done.stderr.strip()}")
    return done.stdout


def device_of(address: str) -> tuple[str, int]:
    """Name and MTU of the device that carries an address."""
    for link in json.loads(command(["ip", "-j", "-4", "addr", "show"])):
        if any(entry.get("local") == address for entry in link.get("addr_info", [])):
            return str(link["ifname"]), int(link["mtu"])
    raise RuntimeError(f"node-ip {address} is on no device of this node")


class Network:
    """Keeps this node's routes as the API's nodes say."""

    def __init__(
        self, api: Api, node: str, address: str, cluster_cidr: str, backend: str, folder: pathlib.Path
    ) -> None:
        self._api = api
        self._node = node
        self._address = address
        self._cluster_cidr = cluster_cidr
        self._backend = backend
        self._file = folder / "10-flannel.conflist"
        self._known: set[Peer] = set()
        self.configured = threading.Event()

    def step(self) -> None:
        nodes = self._api.items("/api/v1/nodes")
        if not self.configured.is_set():
            own = next((n for n in nodes if n["metadata"]["name"] == self._node), None)
            cidr = own["spec"].get("podCIDR") if own else None
            if not cidr:
                return
            self._configure(cidr)
            self.configured.set()
        if self._backend == "none":
            return
        wanted = set(peers(nodes, self._node))
        for peer in self._known - wanted:
            for words in leave_commands(self._backend, peer):
                command(words, check=False)
        for peer in wanted - self._known:
            for words in join_commands(self._backend, peer):
                command(words)
            log(f"Pod network: {peer.cidr} is reached by {peer.address}")
        self._known = wanted

    def _configure(self, cidr: str) -> None:
        if self._backend == "none":
            return
        interface, mtu = device_of(self._address)
        if self._backend == "vxlan":
            mtu -= VXLAN_COST
            command(["ip", "link", "del", DEVICE], check=False)
            for words in device_commands(self._address, cidr, mtu, interface):
                command(words)
        command(["nft", "-f", "-"], masquerade(cidr, self._cluster_cidr))
        write_private(self._file, json.dumps(cni_config(cidr, mtu), indent=2).encode(), 0o644)
