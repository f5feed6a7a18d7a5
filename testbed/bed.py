#!/usr/bin/env python3
"""The bed: Docker containers that behave like freshly installed hosts, a registry beside them, and their inventory.

Everything that is made carries the label ``abaci.bed=<name>``, and ``down`` removes what carries it and nothing else.
Docker is called through its command line; standard library only, so that any Python 3.11 can run this.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import ipaddress
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TESTBED = pathlib.Path(__file__).resolve().parent
ROOT = TESTBED.parent
LABEL = "abaci.bed"
SUITES = ("trixie", "bookworm")
DOMAIN = "abaci.localhost"
DATA_DIR = "/var/lib/rancher/k3s"
VOLUMES = {"k3s": DATA_DIR, "kubelet": "/var/lib/kubelet"}
IMAGES = {
    "images-app": "antialias/soroban-abacus-flashcards:latest",
    "images-redis": "library/redis:7-alpine",
    "images-busybox": "library/busybox:1.36",
    "images-cert-manager-controller": "jetstack/cert-manager-controller:v1.11.5",
    "images-cert-manager-webhook": "jetstack/cert-manager-webhook:v1.11.5",
    "images-cert-manager-cainjector": "jetstack/cert-manager-cainjector:v1.11.5",
    "images-cert-manager-acmesolver": "jetstack/cert-manager-acmesolver:v1.11.5",
    "images-keel": "keel-hq/keel:0.22.1",
    "images-device-plugin": "squat/generic-device-plugin:0.2.0",
}
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

# What a node needs of its container. SYS_TIME is left out because all containers share the machine's clock. Some
# machines cannot give SYS_RESOURCE, and on others only --privileged opens the cgroups: the first that runs is taken.
_NODE = (
    "--cgroupns=private",
    "--device=/dev/fuse",
    "--device=/dev/kmsg",
    "--stop-signal=SIGRTMIN+3",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
)
_OPEN = (
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--cap-add=ALL",
    "--cap-drop=SYS_TIME",
)
NODE_FLAGS: tuple[tuple[str, ...], ...] = (
    (*_NODE, *_OPEN),
    (*_NODE, *_OPEN, "--cap-drop=SYS_RESOURCE"),
    (*_NODE, "--privileged"),
)


class BedError(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1 of this machine."""

    https: int = 8443
    http: int = 8080
    api: int = 16443

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Ports:
        """Read EDGE_HTTPS_PORT, EDGE_HTTP_PORT and BED_API_PORT.

        Raises:
            BedError: one is not a port, or two are the same.
        """
        names = {"https": "EDGE_HTTPS_PORT", "http": "EDGE_HTTP_PORT", "api": "BED_API_PORT"}
        values: dict[str, int] = {}
        for key, variable in names.items():
            text = env.get(variable) or str(getattr(cls, key))
            if not text.isdigit() or not 0 < int(text) < 65536:
                raise BedError(f"{variable} is {text!r}: give a port from 1 to 65535.")
            values[key] = int(text)
        if len(set(values.values())) != len(values):
            raise BedError("EDGE_HTTPS_PORT, EDGE_HTTP_PORT and BED_API_PORT must differ from each other.")
        return cls(**values)


@dataclass(frozen=True)
class Node:
    """One node: its host name, its container and its address on the bed's network."""

    host: str
    container: str
    address: str

    @property
    def is_server(self) -> bool:
        return self.host.startswith("server-")


@dataclass(frozen=True)
class Plan:
    """What a bed consists of, decided before anything is made."""

    name: str
    suite: str
    ports: Ports
    subnet: ipaddress.IPv4Network
    nodes: tuple[Node, ...]
    registry: str = field(default="")
    acme: str = field(default="")

    @property
    def prefix(self) -> str:
        return f"abaci-{self.name}"


def plan(name: str, nodes: int, suite: str, ports: Ports, subnet: ipaddress.IPv4Network) -> Plan:
    """Name and number everything: the ACME server at .8, the registry at .9, the nodes from .10 on, server-0 first.

    Raises:
        BedError: name, count or suite cannot be used.
    """
    if not NAME.fullmatch(name):
        raise BedError(f"--name {name!r} cannot be a host name: use a-z, 0-9 and '-', at most 32 characters.")
    if not 1 <= nodes <= 50:
        raise BedError(f"--nodes {nodes} is outside 1 to 50.")
    if suite not in SUITES:
        raise BedError(f"--suite {suite!r} is not known: use one of {', '.join(SUITES)}.")
    hosts = ["server-0", *(f"agent-{number}" for number in range(1, nodes))]
    return Plan(
        name=name,
        suite=suite,
        ports=ports,
        subnet=subnet,
        nodes=tuple(
            Node(host=host, container=f"abaci-{name}-{host}", address=str(subnet[10 + number]))
            for number, host in enumerate(hosts)
        ),
        registry=str(subnet[9]),
        acme=str(subnet[8]),
    )


def subnets(name: str) -> Iterator[ipaddress.IPv4Network]:
    """Candidates for a bed's network, in an order of its own per name so that beds seldom meet.

    They keep clear of k3s's own defaults (10.42.0.0/16, 10.43.0.0/16) and of Docker's (172.17.0.0/16 and following).
    """
    start = zlib.crc32(name.encode())
    for step in range(128):
        yield ipaddress.IPv4Network(f"10.{100 + (start + step) % 128}.7.0/24")


def apt_sources(text: str, suite: str) -> str:
    """A deb822 source for ``suite`` that takes its packages from where this machine takes Debian's.

    Args:
        text: the machine's sources.list and sources.list.d, concatenated, in either format.
        suite: Debian's name of the release inside the node.
    """
    addresses = re.findall(r"https?://[^\s\]]+", "\n".join(line.split("#", 1)[0] for line in text.splitlines()))
    mirror = next((a for a in addresses if re.search(r"/debian/?$", a)), "http://deb.debian.org/debian")
    security = next((a for a in addresses if re.search(r"/debian-security/?$", a)), None)
    security = security or "http://deb.debian.org/debian-security"
    signed = "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    return (
        f"Types: deb\nURIs: {mirror}\nSuites: {suite} {suite}-updates\n{signed}\n"
        f"Types: deb\nURIs: {security}\nSuites: {suite}-security\n{signed}"
    )


def apt_conf(dump: str) -> str:
    """The lines of ``apt-config dump`` that say how this machine reaches its sources."""
    wanted = re.compile(r"Acquire::(http|https|Retries|Check-Valid-Until)\b.* \"[^\"]+\";$", re.IGNORECASE)
    return "".join(line + "\n" for line in dump.splitlines() if wanted.match(line))


def resolv_conf(text: str) -> str:
    """The nameservers of ``text`` that a pod can reach; '' if there is none."""
    kept: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(words[1])
                if not address.is_loopback and not address.is_link_local:
                    kept.append(f"nameserver {address}")
    return "".join(line + "\n" for line in kept)


def inventory(bed: Plan, folder: pathlib.Path, settings: Mapping[str, object]) -> dict[str, object]:
    """The inventory as plain data: hosts in their groups and what only this bed knows."""

    def host(node: Node) -> dict[str, object]:
        return {"ansible_host": node.address}

    servers = {node.host: host(node) for node in bed.nodes if node.is_server}
    agents = {node.host: host(node) for node in bed.nodes if not node.is_server}
    cluster_vars = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(folder / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder / 'known_hosts'} -o StrictHostKeyChecking=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    return {
        "all": {
            "children": {
                "k3s_cluster": {
                    "vars": cluster_vars,
                    "children": {"k3s_server": {"hosts": servers}, "k3s_agent": {"hosts": agents}},
                }
            },
            "vars": dict(settings),
        }
    }


def next_steps(name: str, settings: Mapping[str, object]) -> str:
    """Where the site of a bed is and what to do with it, from the inventory's settings, for a shell in the clone."""
    port, kubeconfig = settings["app_https_port"], os.path.relpath(str(settings["k3s_kubeconfig"]), ROOT)
    site, folder = f"{DOMAIN}:{port}", f".bed/{name}"
    used = inventory_folder(name).relative_to(ROOT)
    return (
        f"Site: https://{site}/\n"
        f"Kubeconfig: {kubeconfig}\n"
        f"  curl --cacert {folder}/ca.pem --connect-to {site}:127.0.0.1:{port} https://{site}/\n"
        f"  .venv/bin/kubectl --kubeconfig {kubeconfig} -n abaci get pods\n"
        f"  .venv/bin/ansible-playbook -i {used} site.yml"
    )


def mirrors(registry: str) -> dict[str, object]:
    """The content of registries.yaml that sends production image names to the bed's registry."""
    endpoint = {"endpoint": [f"http://{registry}:5000"]}
    return {"mirrors": {"docker.io": endpoint, "ghcr.io": endpoint, "quay.io": endpoint}}


def acme_configuration() -> str:
    """Pebble's configuration: it validates at the ports that the whole Internet uses."""
    pebble = {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "0.0.0.0:15000",
        "certificate": "/etc/pebble/server.crt",
        "privateKey": "/etc/pebble/server.key",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "keyAlgorithm": "ecdsa",
        # Two labels: a longer entry makes Pebble stop at any shorter name that is asked for.
        "domainBlocklist": ["blocked.test"],
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {"default": {"description": "90 days", "validityPeriod": 7776000}},
    }
    return json.dumps({"pebble": pebble}, indent=2) + "\n"


# ---------------------------------------------------------------------------------------------------------------- I/O


def say(text: str) -> None:
    print(f"bed: {text}", file=sys.stderr, flush=True)


def run(*command: str, data: bytes | None = None, check: bool = True) -> str:
    """Run a command and give its standard output.

    Raises:
        BedError: it failed; the message holds the command's own last words.
    """
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if check and done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BedError(f"`{' '.join(command[:4])} ...` failed: {words or f'exit {done.returncode}'}")
    return done.stdout.decode(errors="replace").strip()


def docker(*arguments: str, data: bytes | None = None, check: bool = True) -> str:
    return run("docker", *arguments, data=data, check=check)


def caches() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Held while images come and go, so that one bed's end does not take the image that another is starting from."""
    cache = caches() / "abaci-infra"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "bed.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def hand_over(home: pathlib.Path, *made: pathlib.Path) -> None:
    """Give what root made under the folder of a user to that user, who runs the playbooks, kubectl and the builder."""
    owner, there = home.stat(), [str(path) for path in made if path.exists()]
    if os.geteuid() == 0 and owner.st_uid != 0 and there:
        run("chown", "-hR", "--from=0", f"{owner.st_uid}:{owner.st_gid}", *there)


def needed(suite: str, release: str | None) -> tuple[str, ...]:
    """The artifacts of a bed, the long builds first; `components` for the kubectl of this machine."""
    own_k3s = () if release else ("k3s",)
    return (*own_k3s, "components", f"node-{suite}", "node-registry", "pebble", "cert-manager-manifests", *IMAGES)


@contextlib.contextmanager
def builder() -> Iterator[Any]:
    """The module build, whose errors are a bed's."""
    sys.path.insert(0, str(TESTBED))
    import build

    try:
        yield build
    except build.BuildError as error:
        raise BedError(str(error)) from error


def artifact(name: str) -> pathlib.Path:
    with builder() as build:
        path: pathlib.Path = build.artifact(name)
    return path


def build_all(names: Sequence[str]) -> None:
    with builder() as build:
        build.build_all(names)


def tar_of(path: pathlib.Path) -> pathlib.Path:
    """An artifact that is one tar, given as the file or as the folder around it."""
    return path if path.is_file() else next(iter(sorted(path.glob("*.tar"))))


def folder_of(name: str) -> pathlib.Path:
    return ROOT / ".bed" / name


def container_state(name: str) -> str:
    """running, exited, created, ... or '' if there is no such container."""
    return docker("container", "inspect", "-f", "{{.State.Status}}", name, check=False)


def bed_containers(name: str) -> list[str]:
    return docker("ps", "-a", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}").split()


def network(name: str) -> ipaddress.IPv4Network:
    """The bed's network; it is made where it is missing, on the first candidate that nothing else uses."""
    full = f"abaci-{name}"
    found = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", full, check=False)
    if found:
        return ipaddress.IPv4Network(found)
    used = run("ip", "-4", "route", "show", check=False)
    for candidate in subnets(name):
        if f"{candidate.network_address}/" in used:
            continue
        made = docker("network", "create", "--subnet", str(candidate), "--label", f"{LABEL}={name}", full, check=False)
        if made:
            return candidate
    raise BedError(
        f"No free network for abaci-{name} among 10.100.7.0/24 to 10.227.7.0/24: remove one with `make down`."
    )


def image(name: str) -> str:
    """Bring a root file system into Docker once and give its image name."""
    tar = tar_of(artifact(name))
    key = (tar.parent.name if tar.parent.name.startswith(name) else tar.stem).removeprefix(f"{name}-")
    tag = f"abaci-{name}:{key}"
    if not docker("image", "inspect", "-f", "{{.Id}}", tag, check=False):
        say(f"importing {tag}")
        docker("import", str(tar), tag)
    return tag


def node_flags(tag: str) -> tuple[str, ...]:
    """The first set of flags with which this machine runs a container."""
    words = ""
    for flags in NODE_FLAGS:
        done = subprocess.run(
            ["docker", "run", "--rm", *flags, "--network=none", tag, "/bin/mount", "--make-rshared", "/"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return flags
        words = done.stderr.strip()
    raise BedError(f"This machine's Docker runs no node container; with --privileged it said: {words}")


def add_file(tar: tarfile.TarFile, path: str, content: str | bytes, mode: int = 0o644) -> None:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode, info.mtime = len(data), mode, int(time.time())
    tar.addfile(info, io.BytesIO(data))


def read(*paths: pathlib.Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in paths if path.is_file())


def node_files(bed: Plan, node: Node, folder: pathlib.Path) -> bytes:
    """What the installer of a real host would have left there: keys, sources, resolver; and the way into systemd."""
    apt = pathlib.Path("/etc/apt")
    sources = read(apt / "sources.list", *sorted((apt / "sources.list.d").glob("*")))
    names = read(pathlib.Path("/run/systemd/resolve/resolv.conf")) or read(pathlib.Path("/etc/resolv.conf"))
    key = folder / "host_keys" / node.host
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add_file(tar, "/usr/local/lib/bed/entry", (TESTBED / "node/entry.sh").read_bytes(), 0o755)
        unit = "bed-proc-cgroups.service"
        add_file(tar, f"/etc/systemd/system/{unit}", (TESTBED / "node" / unit).read_bytes())
        link = tarfile.TarInfo(f"etc/systemd/system/sysinit.target.wants/{unit}")
        link.type, link.linkname = tarfile.SYMTYPE, f"/etc/systemd/system/{unit}"
        tar.addfile(link)
        add_file(tar, "/etc/bed/resolv.conf", resolv_conf(names))
        add_file(tar, "/root/.ssh/authorized_keys", (folder / "id_ed25519.pub").read_bytes(), 0o600)
        add_file(tar, "/etc/ssh/ssh_host_ed25519_key", key.read_bytes(), 0o600)
        add_file(tar, "/etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_bytes())
        add_file(tar, "/etc/ssh/sshd_config.d/bed.conf", "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n")
        add_file(tar, "/etc/apt/sources.list", "")
        add_file(tar, "/etc/apt/sources.list.d/debian.sources", apt_sources(sources, bed.suite))
        add_file(tar, "/etc/apt/apt.conf.d/90bed", apt_conf(run("apt-config", "dump", check=False)))
        for certificate in sorted(pathlib.Path("/usr/local/share/ca-certificates").rglob("*.crt")):
            add_file(tar, f"/usr/local/share/ca-certificates/bed/{certificate.name}", certificate.read_bytes())
    return buffer.getvalue()


def make_keys(bed: Plan, folder: pathlib.Path) -> None:
    """SSH keys, the site's CA and its certificate; what exists is kept, so that a repeated run changes nothing."""
    (folder / "host_keys").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    keys = {folder / "id_ed25519": "bed", **{folder / "host_keys" / n.host: n.host for n in bed.nodes}}
    for path, comment in keys.items():
        if not path.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
    (folder / "known_hosts").write_text(
        "".join(
            f"{node.address} {' '.join((folder / 'host_keys' / f'{node.host}.pub').read_text().split()[:2])}\n"
            for node in bed.nodes
        )
    )
    ca, ca_key = folder / "site-ca.crt", folder / "site-ca.key"
    if not ca.exists():
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "3650", "-subj", "/CN=abaci bed site CA", "-keyout", str(ca_key), "-out", str(ca)),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
    sign(folder, "site", DOMAIN, f"DNS:{DOMAIN},DNS:*.{DOMAIN}")
    sign(folder, "acme", "abaci bed ACME server", f"IP:{bed.acme}")


def sign(folder: pathlib.Path, stem: str, name: str, names: str) -> None:
    """Make <stem>.key and a certificate <stem>.crt for `names` (as in subjectAltName), signed by the site's CA."""
    certificate, key, request = (folder / f"{stem}.{ending}" for ending in ("crt", "key", "csr"))
    if certificate.exists():
        return
    extensions = folder / f"{stem}.ext"
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        f"subjectAltName={names}\n"
    )
    run(
        *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
    )
    run(
        *("openssl", "x509", "-req", "-in", str(request), "-CA", str(folder / "site-ca.crt")),
        *("-CAkey", str(folder / "site-ca.key"), "-CAcreateserial", "-days", "825", "-extfile", str(extensions)),
        *("-out", str(certificate)),
    )


def check_ports(ports: Ports) -> None:
    """Refuse a taken port before anything is made.

    Raises:
        BedError: names the port and the variable that moves it.
    """
    for port, variable in (
        (ports.https, "EDGE_HTTPS_PORT"),
        (ports.http, "EDGE_HTTP_PORT"),
        (ports.api, "BED_API_PORT"),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise BedError(f"Port {port} on 127.0.0.1 is taken: free it or set {variable} to another.") from error


def start_node(bed: Plan, node: Node, tag: str, flags: Sequence[str], folder: pathlib.Path) -> None:
    state = container_state(node.container)
    if state == "running":
        return
    if not state:
        volumes = {f"{node.container}-{short}": path for short, path in VOLUMES.items()}
        for volume in volumes:
            docker("volume", "create", "--label", f"{LABEL}={bed.name}", volume)
        publish = (
            [
                f"--publish=127.0.0.1:{bed.ports.https}:443",
                f"--publish=127.0.0.1:{bed.ports.http}:80",
                f"--publish=127.0.0.1:{bed.ports.api}:6443",
            ]
            if node.is_server
            else []
        )
        modules = ["--volume=/lib/modules:/lib/modules:ro"] if pathlib.Path("/lib/modules").is_dir() else []
        docker(
            *("create", "--name", node.container, "--hostname", node.host, "--label", f"{LABEL}={bed.name}"),
            *("--network", bed.prefix, "--ip", node.address, "--restart=unless-stopped", "--env=container=docker"),
            *flags,
            *publish,
            *modules,
            *(f"--volume={volume}:{path}" for volume, path in volumes.items()),
            *(tag, "/usr/local/lib/bed/entry"),
        )
        docker("cp", "-", f"{node.container}:/", data=node_files(bed, node, folder))
    docker("start", node.container)


def wait_ssh(bed: Plan, timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    for node in bed.nodes:
        while True:
            with contextlib.suppress(OSError), socket.create_connection((node.address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    break
            if container_state(node.container) != "running":
                words = docker("logs", "--tail", "3", node.container, check=False)
                raise BedError(f"Node {node.host} stopped while it started: {words}")
            if time.monotonic() > deadline:
                raise BedError(f"Node {node.host} ({node.address}) does not answer on port 22 within {timeout:.0f} s.")
            time.sleep(0.2)


def start_registry(bed: Plan) -> None:
    name = f"{bed.prefix}-registry"
    state = container_state(name)
    if state == "running":
        return
    if not state:
        tag = image("node-registry")
        docker("volume", "create", "--label", f"{LABEL}={bed.name}", f"{name}-data")
        docker(
            *("create", "--name", name, "--hostname", "registry", "--label", f"{LABEL}={bed.name}", "--init"),
            *("--network", bed.prefix, "--ip", bed.registry, "--restart=unless-stopped"),
            "--env=OTEL_TRACES_EXPORTER=none",
            *(f"--volume={name}-data:/var/lib/docker-registry", tag),
            *("/usr/bin/docker-registry", "serve", "/etc/docker/registry/config.yml"),
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            add_file(tar, "/etc/docker/registry/config.yml", (TESTBED / "node/registry.yml").read_bytes())
        docker("cp", "-", f"{name}:/", data=buffer.getvalue())
    docker("start", name)


ACME_START = """\
/opt/pebble/pebble-challtestsrv -defaultIPv4 "$1" -defaultIPv6 "" -dnsserver :8053 \
  -http01 "" -https01 "" -tlsalpn01 "" -doh "" -management :8055 &
exec /opt/pebble/pebble -config /etc/pebble/config.json -dnsserver 127.0.0.1:8053
"""


def start_acme(bed: Plan, folder: pathlib.Path) -> None:
    """Start the ACME server, for which every name in the world is server-0, and write down the root it issues from."""
    name = f"{bed.prefix}-acme"
    state = container_state(name)
    if not state:
        programs = artifact("pebble")
        docker(
            *("create", "--name", name, "--hostname", "acme", "--label", f"{LABEL}={bed.name}", "--init"),
            *("--network", bed.prefix, "--ip", bed.acme, "--restart=unless-stopped"),
            # Validation begins at once, no nonce is refused to try the client, and each order takes a new challenge.
            *("--env=PEBBLE_VA_NOSLEEP=1", "--env=PEBBLE_WFE_NONCEREJECT=0", "--env=PEBBLE_AUTHZREUSE=0"),
            *(image("node-registry"), "/bin/sh", "-c", ACME_START, "acme", bed.nodes[0].address),
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for program in ("pebble", "pebble-challtestsrv"):
                add_file(tar, f"/opt/pebble/{program}", (programs / program).read_bytes(), 0o755)
            add_file(tar, "/etc/pebble/config.json", acme_configuration())
            for ending in ("crt", "key"):
                add_file(tar, f"/etc/pebble/server.{ending}", (folder / f"acme.{ending}").read_bytes(), 0o600)
        docker("cp", "-", f"{name}:/", data=buffer.getvalue())
    if state != "running":
        docker("start", name)
    # Pebble makes a root at each start; visitors trust it and the site's own CA.
    root = acme_root(bed, folder)
    (folder / "acme-root.crt").write_text(root)
    (folder / "ca.pem").write_text((folder / "site-ca.crt").read_text() + root)


def acme_root(bed: Plan, folder: pathlib.Path, timeout: float = 30.0) -> str:
    """The root certificate (PEM) of the ACME server, which it gives out at its management port."""
    context = ssl.create_default_context(cafile=str(folder / "site-ca.crt"))
    address = f"https://{bed.acme}:15000/roots/0"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    deadline = time.monotonic() + timeout
    while True:
        try:
            with direct.open(address, timeout=5) as answer:
                text: str = answer.read().decode("ascii")
                return text
        except OSError as error:
            if time.monotonic() > deadline:
                words = docker("logs", "--tail", "3", f"{bed.prefix}-acme", check=False)
                raise BedError(f"The ACME server does not answer at {address} ({error}): {words}") from error
        time.sleep(0.3)


def push(bed_name: str) -> None:
    """Push the images that pods of the site run into the bed's registry, built anew where they changed."""
    name = f"abaci-{bed_name}-registry"
    if container_state(name) != "running":
        raise BedError(f"The registry of bed {bed_name!r} is not running: start it with `make up`.")
    paths = {artifact_name: tar_of(artifact(artifact_name)) for artifact_name in IMAGES}
    for artifact_name, reference in IMAGES.items():
        source = f"/tmp/{artifact_name}.tar"
        docker("cp", str(paths[artifact_name]), f"{name}:{source}")
        for attempt in range(20):
            done = subprocess.run(
                [
                    *(
                        "docker",
                        "exec",
                        name,
                        "skopeo",
                        "copy",
                        "--insecure-policy",
                        "--quiet",
                        "--dest-tls-verify=false",
                    ),
                    *(f"oci-archive:{source}", f"docker://127.0.0.1:5000/{reference}"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                break
            if attempt == 19 or "connection refused" not in done.stderr:
                raise BedError(f"{reference} could not be pushed: {done.stderr.strip()}")
            time.sleep(0.3)
        docker("exec", name, "rm", "-f", source)
        say(f"pushed {reference}")


def k3s_settings(release: str | None) -> dict[str, object]:
    """Where the k3s role finds its artifacts: the stand-in's folder, or the release that was asked for."""
    if release:
        unified = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        drop_in = {} if unified else {"k3s_kubelet_config": {"failCgroupV1": False}}
        return {"k3s_source": "release", "k3s_version": release, **drop_in}
    folder = artifact("k3s")
    lines = (folder / "sha256sum-amd64.txt").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    version = next(line.split()[2] for line in run(sys.executable, str(folder / "k3s"), "--version").splitlines()[:1])
    return {
        "k3s_source": "folder",
        "k3s_artifact_dir": str(folder),
        "k3s_version": version,
        "k3s_checksum": sums["k3s"],
        # No way to a container registry from here: what k3s starts itself comes from the image archive.
        "k3s_images_state": "present",
        "k3s_images_checksum": sums["k3s-airgap-images-amd64.tar"],
    }


def cert_manager_settings(bed: Plan, folder: pathlib.Path) -> dict[str, object]:
    """Where the cert_manager role finds its manifest, and the ACME server behind the production issuer."""
    release = max((p for p in artifact("cert-manager-manifests").glob("v1.11.*")), key=lambda path: path.name)
    return {
        "cert_manager_source": "folder",
        "cert_manager_artifact_dir": str(release),
        "cert_manager_version": release.name,
        "cert_manager_checksum": (release / "sha256sum.txt").read_text().split()[0],
        "cert_manager_acme_directory": f"https://{bed.acme}:14000/dir",
        "cert_manager_acme_ca_file": str(folder / "site-ca.crt"),
    }


def inventory_folder(name: str) -> pathlib.Path:
    return ROOT / "inventories/local" if name == "local" else folder_of(name) / "inventory"


def write_inventory(bed: Plan, folder: pathlib.Path, release: str | None) -> pathlib.Path:
    target = inventory_folder(bed.name)
    if bed.name != "local":
        target.mkdir(exist_ok=True)
        link = target / "group_vars"
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(ROOT / "inventories/local/group_vars", target))
    kubeconfig = target / "kubeconfig" if bed.name == "local" else folder / "kubeconfig"
    settings: dict[str, object] = {
        **k3s_settings(release),
        **cert_manager_settings(bed, folder),
        "k3s_kubeconfig": str(kubeconfig),
        "k3s_kubeconfig_server": f"https://127.0.0.1:{bed.ports.api}",
        "k3s_registries": mirrors(bed.registry),
        # A pod has no part in the mirrors of its node.
        "keel_env": {"KEEL_STANDIN_REGISTRY": f"http://{bed.registry}:5000"},
        "app_tls_certificate_file": str(folder / "site.crt"),
        "app_tls_private_key_file": str(folder / "site.key"),
        "app_tls_ca_file": str(folder / "ca.pem"),
        "app_https_port": bed.ports.https,
        "app_edge_address": "127.0.0.1",
        "app_edge_https_port": bed.ports.https,
        "app_edge_http_port": bed.ports.http,
    }
    path = target / "hosts.yml"
    head = "# Written by testbed/bed.py; JSON is YAML.\n"
    path.write_text(head + json.dumps(inventory(bed, folder, settings), indent=2) + "\n")
    return path


def up(name: str, nodes: int, suite: str, ports: Ports, release: str | None) -> None:
    if not NAME.fullmatch(name):
        plan(name, nodes, suite, ports, ipaddress.IPv4Network("10.100.7.0/24"))
    existing = [c for c in bed_containers(name) if not c.endswith(("-registry", "-acme"))]
    if existing and len(existing) != nodes:
        raise BedError(f"Bed {name!r} has {len(existing)} nodes and {nodes} were asked for: run `make down` first.")
    if not existing:
        check_ports(ports)
    # Nothing of the bed exists until everything that it needs does.
    build_all(needed(suite, release))
    bed = plan(name, nodes, suite, ports, network(name))
    folder = folder_of(name)
    make_keys(bed, folder)
    with lock():
        tag = image(f"node-{suite}")
        flags = node_flags(tag) if not existing else ()
        for node in bed.nodes:
            start_node(bed, node, tag, flags, folder)
        start_registry(bed)
        start_acme(bed, folder)
    push(name)
    wait_ssh(bed)
    say(f"{nodes} node(s) answer; inventory {write_inventory(bed, folder, release)}")


def renew(name: str, host: str, suite: str, ports: Ports) -> None:
    """Make one node anew, with empty disks, under its name, address and SSH host key: a host whose disk was replaced.

    Raises:
        BedError: the bed has no such node.
    """
    existing = [c for c in bed_containers(name) if not c.endswith(("-registry", "-acme"))]
    bed = plan(name, max(len(existing), 1), suite, ports, network(name))
    node = next((node for node in bed.nodes if node.host == host), None)
    if node is None or node.container not in existing:
        raise BedError(f"Bed {name!r} has no node {host!r}: it has {', '.join(existing) or 'none'}.")
    with lock():
        tag = image(f"node-{suite}")
        docker("rm", "-f", "-v", node.container)
        docker("volume", "rm", *(f"{node.container}-{short}" for short in VOLUMES))
        start_node(bed, node, tag, node_flags(tag), folder_of(name))
    wait_ssh(bed)
    say(f"{host} is a new host with empty disks")


def down(name: str) -> None:
    selected = ("--filter", f"label={LABEL}={name}")
    with lock():
        containers = docker("ps", "-aq", *selected).split()
        images = {docker("inspect", "-f", "{{.Config.Image}}", c, check=False) for c in containers} - {""}
        if containers:
            docker("rm", "-f", "-v", *containers)
        for kind in ("volume", "network"):
            found = docker(kind, "ls", "-q", *selected).split()
            if found:
                docker(kind, "rm", *found)
        for tag in images:
            docker("rmi", tag, check=False)  # refused while another bed uses it, and then it stays
    shutil.rmtree(folder_of(name), ignore_errors=True)
    if name == "local":
        for left in ("hosts.yml", "kubeconfig"):
            (ROOT / "inventories/local" / left).unlink(missing_ok=True)
    say(f"{len(containers)} container(s) of bed {name!r} removed")


def status(name: str) -> None:
    rows = docker(*("ps", "-a", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}\t{{.Status}}\t{{.Ports}}"))
    print(rows or f"There is no bed {name!r}.")
    written = inventory_folder(name) / "hosts.yml"
    if rows and written.exists():
        print(next_steps(name, json.loads(written.read_text().split("\n", 1)[1])["all"]["vars"]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=("build", "up", "renew", "down", "push", "status"))
    parser.add_argument("--name", default="local", help="name of the bed (default: local)")
    parser.add_argument("--host", default="server-0", help="the node to make anew (default: server-0)")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes, one of them the server (default: 3)")
    parser.add_argument("--suite", default="trixie", choices=SUITES, help="Debian release of the nodes")
    parser.add_argument("--k3s", metavar="VERSION", default="", help="install this k3s release instead of the stand-in")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.action == "build":
            build_all(needed(chosen.suite, chosen.k3s or None))
        elif chosen.action == "up":
            up(chosen.name, chosen.nodes, chosen.suite, Ports.from_env(os.environ), chosen.k3s or None)
        elif chosen.action == "renew":
            renew(chosen.name, chosen.host, chosen.suite, Ports.from_env(os.environ))
        elif chosen.action == "down":
            down(chosen.name)
        elif chosen.action == "push":
            push(chosen.name)
        else:
            status(chosen.name)
    except BedError as error:
        print(f"bed: {error}", file=sys.stderr)
        return 1
    finally:
        if chosen.action in ("build", "up"):
            hand_over(ROOT, ROOT)
            hand_over(caches(), caches() / "abaci-infra", caches() / "go-build")
    return 0


if __name__ == "__main__":
    sys.exit(main())
