"""A node: join the cluster, then containerd, kubelet, kube-proxy, network policies and the pod network."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import resource
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import network, payload, pki, registries, tokens
from .kube import Api, ApiError, kubeconfig
from .options import as_list
from .processes import Processes, Stop, log, notify

RUN = pathlib.Path("/run/k3s")
SOCKET = RUN / "containerd/containerd.sock"
PASSWORD = pathlib.Path("/etc/rancher/node/password")
BOOTSTRAP_USER = "k3s:agent"
SETTINGS = "/api/v1/namespaces/kube-system/configmaps/k3s-cluster-settings"
CSR = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


@dataclass(frozen=True)
class Settings:
    """What every node of a cluster has to know; written by the server, read by the agents."""

    cluster_cidr: str
    service_cidr: str
    node_ports: str
    cluster_dns: str
    cluster_domain: str
    backend: str
    network_policy: bool
    kube_proxy: bool


@dataclass(frozen=True)
class Certificate:
    """One certificate of a node: its file, signer, subject, and whether it names the node's addresses."""

    file: str
    signer: str
    common_name: str
    organizations: tuple[str, ...] = ()
    serving: bool = False


def certificates(node: str) -> tuple[Certificate, ...]:
    client = "kubernetes.io/kube-apiserver-client"
    return (
        Certificate("client-kubelet", f"{client}-kubelet", f"system:node:{node}", ("system:nodes",)),
        Certificate("serving-kubelet", "kubernetes.io/kubelet-serving", f"system:node:{node}", ("system:nodes",), True),
        Certificate("client-kube-proxy", client, "system:kube-proxy"),
        Certificate("client-k3s-controller", client, "system:k3s-controller"),
    )


def node_name(options: Mapping[str, Any]) -> str:
    return str(options["node-name"] or socket.gethostname().split(".")[0]).lower()


def default_address(interface: str = "") -> str:
    """The node's address: that of an interface, or that with which the default route leaves.

    Raises:
        Stop: there is none; k3s needs a default route as well.
    """
    if interface:
        shown = subprocess.run(["ip", "-j", "-4", "addr", "show", interface], capture_output=True, check=False).stdout
        for entry in json.loads(shown or b"[]"):
            for address in entry.get("addr_info", []):
                return str(address["local"])
        raise Stop(f"flannel-iface: interface {interface!r} has no IPv4 address.")
    shown = subprocess.run(["ip", "-j", "-4", "route", "get", "192.0.2.1"], capture_output=True, check=False).stdout
    for entry in json.loads(shown or b"[]"):
        if entry.get("prefsrc"):
            return str(entry["prefsrc"])
    raise Stop('no default routes found in "/proc/net/route": k3s needs one, or node-ip and a dummy route.')


def node_ip(options: Mapping[str, Any]) -> str:
    given = as_list(options["node-ip"])
    return given[0] if given else default_address(str(options["flannel-iface"] or ""))


# ------------------------------------------------------------------------------------------------------- joining


def read_token(options: Mapping[str, Any]) -> str:
    if options["token"]:
        return str(options["token"])
    if options["token-file"]:
        try:
            return pathlib.Path(str(options["token-file"])).read_text()
        except OSError as error:
            raise Stop(f"token-file: {error}") from error
    return ""


def node_password() -> str:
    """This node's own secret, by which the server tells it from another node of the same name."""
    if not PASSWORD.exists():
        pki.write_private(PASSWORD, secrets.token_hex(16).encode())
    return PASSWORD.read_text().strip()


def request_certificates(api: Api, node: str, address: str, folder: pathlib.Path, processes: Processes) -> None:
    """Have the server sign what is missing, and wait for it.

    Raises:
        Stop: the server denied one, with its reason.
    """
    pending: dict[str, Certificate] = {}
    for wanted in certificates(node):
        authority = folder / ("server-ca.crt" if wanted.serving else "client-ca.crt")
        target = folder / f"{wanted.file}.crt"
        key = target.with_suffix(".key")
        if key.exists() and pki.valid(target, authority):
            continue
        names = [node, "localhost", "127.0.0.1", address] if wanted.serving else []
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {
                "generateName": f"{node}-{wanted.file}-",
                "annotations": {"k3s.cattle.io/node-name": node, "k3s.cattle.io/node-password": node_password()},
            },
            "spec": {
                "request": base64.b64encode(
                    pki.make_request(key, wanted.common_name, wanted.organizations, names)
                ).decode(),
                "signerName": wanted.signer,
                "usages": [
                    "digital signature",
                    "key encipherment",
                    "server auth" if wanted.serving else "client auth",
                ],
            },
        }
        pending[api.call("POST", CSR, body)["metadata"]["name"]] = wanted

    def signed() -> bool:
        for name, wanted in list(pending.items()):
            status = api.get(f"{CSR}/{name}").get("status", {})
            for condition in status.get("conditions", []):
                if condition["type"] in ("Denied", "Failed"):
                    raise Stop(f"{condition.get('message', 'the server denied a certificate')}")
            if status.get("certificate"):
                authority = folder / ("server-ca.crt" if wanted.serving else "client-ca.crt")
                leaf = base64.b64decode(status["certificate"])
                pki.write_private(folder / f"{wanted.file}.crt", leaf + authority.read_bytes(), 0o644)
                del pending[name]
        return not pending

    processes.wait_for("the server to sign this node's certificates", signed)


def join(options: Mapping[str, Any], folder: pathlib.Path, processes: Processes) -> tuple[str, int, Settings]:
    """Verify the server by the token, get settings and certificates. Gives the API's host and port.

    Raises:
        Stop: the token is missing, belongs to another cluster, or is refused.
    """
    url = urlsplit(str(options["server"]))
    if url.scheme != "https" or not url.hostname:
        raise Stop(f"server: {options['server']!r} is not an address of the form https://host:6443.")
    host, port = url.hostname, url.port or 6443
    try:
        token = tokens.parse(read_token(options))
    except tokens.TokenError as error:
        raise Stop(f"token: {error}") from error
    if not token.ca_hash:
        log(
            "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. "
            "Use the full token from the server's node-token file to enable Cluster CA validation.",
            "warning",
        )
    found = b""
    told = ""

    def reachable() -> bool:
        nonlocal found, told
        try:
            found = pki.fetch_ca(host, port)
        except pki.PkiError as error:
            if str(error) != told:
                log(f"Failed to validate connection to cluster at https://{host}:{port}: {error}", "error")
            told = str(error)
            return False
        return True

    processes.wait_for(f"the server at https://{host}:{port}", reachable, 0.5)
    try:
        tokens.check_ca(token, found)
    except tokens.TokenError as error:
        raise Stop(str(error)) from error
    pki.write_private(folder / "server-ca.crt", found, 0o644)
    api = Api(host, port, folder / "server-ca.crt", token=token.password)
    answer: dict[str, Any] = {}

    def settings() -> bool:
        try:
            answer["settings"] = api.get(SETTINGS)["data"]
            answer["authority"] = api.get(
                "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
            )["data"]["client-ca-file"]
        except ApiError as error:
            if error.code == 401:
                raise Stop(f"token: the server at https://{host}:{port} refused it: not authorized.") from error
            return False
        return True

    processes.wait_for("the cluster's settings", settings, 0.5)
    authority = pki.openssl("x509", "-outform", "PEM", data=answer["authority"].encode())
    pki.write_private(folder / "client-ca.crt", authority, 0o644)
    request_certificates(api, node_name(options), node_ip(options), folder, processes)
    return host, port, Settings(**json.loads(answer["settings"]["settings"]))


# ---------------------------------------------------------------------------------------------------- configuration


def unified_cgroups() -> bool:
    return pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()


def cgroup_driver() -> str:
    """As k3s decides it: systemd where systemd started it on cgroup v2."""
    return "systemd" if unified_cgroups() and os.environ.get("INVOCATION_ID") else "cgroupfs"


def kubelet_config(
    options: Mapping[str, Any], settings: Settings, folder: pathlib.Path, resolver: str, unified: bool, files: int
) -> dict[str, Any]:
    """KubeletConfiguration. What differs from k3s for the sake of nodes in containers is in ../README.md."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "client-ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": cgroup_driver(),
        "clusterDNS": [settings.cluster_dns],
        "clusterDomain": settings.cluster_domain,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "enforceNodeAllocatable": [],
        "evictionHard": {"imagefs.available": "1%", "nodefs.available": "1%", "memory.available": "50Mi"},
        "failSwapOn": False,
        "healthzBindAddress": "127.0.0.1",
        "imageGCHighThresholdPercent": 100,
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "maxOpenFiles": files,
        "protectKernelDefaults": options["protect-kernel-defaults"],
        "resolvConf": resolver,
        "serializeImagePulls": False,
        "staticPodPath": str(folder / "pod-manifests"),
        "tlsCertFile": str(folder / "serving-kubelet.crt"),
        "tlsPrivateKeyFile": str(folder / "serving-kubelet.key"),
    }
    if not unified:
        config["failCgroupV1"] = False
    return config


def containerd_config(options: Mapping[str, Any], folder: pathlib.Path, binaries: pathlib.Path, auth: str) -> str:
    quoted = {
        "root": folder / "containerd",
        "state": RUN / "containerd",
        "address": SOCKET,
        "certs": folder / "etc/containerd/certs.d",
        "bin": binaries,
        "conf": folder / "etc/cni/net.d",
        "pause": options["pause-image"],
        "snapshotter": options["snapshotter"],
    }
    values = {key: json.dumps(str(value)) for key, value in quoted.items()}
    return f"""# Written by k3s at every start.
version = 3
root = {values["root"]}
state = {values["state"]}

[grpc]
  address = {values["address"]}

[plugins.'io.containerd.internal.v1.opt']
  path = {values["root"]}

[plugins.'io.containerd.cri.v1.images']
  snapshotter = {values["snapshotter"]}
  disable_snapshot_annotations = true
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = {values["pause"]}
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = {values["certs"]}

[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = true
  enable_unprivileged_icmp = true
  enable_unprivileged_ports = true
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{values["bin"]}]
    conf_dir = {values["conf"]}
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = {"true" if cgroup_driver() == "systemd" else "false"}

{auth}"""


def kubelet_command(
    options: Mapping[str, Any], folder: pathlib.Path, node: str, address: str, labels: Sequence[str]
) -> list[str]:
    command = [
        "kubelet",
        f"--config-dir={folder / 'etc/kubelet.conf.d'}",
        f"--hostname-override={node}",
        f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
        f"--node-ip={address}",
    ]
    labels = [*labels, *as_list(options["node-label"])]
    if labels:
        command.append(f"--node-labels={','.join(labels)}")
    if options["node-taint"]:
        command.append(f"--register-with-taints={','.join(as_list(options['node-taint']))}")
    return command + arguments(options["kubelet-arg"])


def arguments(given: object) -> list[str]:
    """A *-arg option's entries as flags of the component."""
    return [entry if entry.startswith("--") else f"--{entry}" for entry in as_list(given)]


def resolver_file(options: Mapping[str, Any], folder: pathlib.Path) -> str:
    """The resolv.conf for pods: the node's own, unless it names only addresses of the node itself, as k3s decides."""
    if options["resolv-conf"]:
        return str(options["resolv-conf"])
    for name in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        path = pathlib.Path(name)
        lines = path.read_text().splitlines() if path.exists() else []
        servers = [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]
        if any(not server.startswith(("127.", "::1")) for server in servers):
            return name
    own = folder / "etc/resolv.conf"
    pki.write_private(own, b"nameserver 8.8.8.8\n", 0o644)
    log(f"Host resolv.conf includes loopback nameservers only; kubelet will use {own} with 8.8.8.8", "warning")
    return str(own)


def write_registries(options: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Write certs.d from registries.yaml; gives the credentials' part of containerd's configuration.

    Raises:
        Stop: a key that is not understood.
    """
    import shutil

    import yaml

    path = pathlib.Path(str(options["private-registry"]))
    try:
        document = registries.check(yaml.safe_load(path.read_text()) if path.exists() else None)
    except (registries.RegistriesError, yaml.YAMLError) as error:
        raise Stop(f"{path}: {' '.join(str(error).split())}") from error
    target = folder / "etc/containerd/certs.d"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, content in registries.hosts_toml(document).items():
        pki.write_private(target / name / "hosts.toml", content.encode())
    return registries.auth_toml(document)


# -------------------------------------------------------------------------------------------------------- running


def start_containerd(
    options: Mapping[str, Any], folder: pathlib.Path, binaries: pathlib.Path, processes: Processes
) -> None:
    for name in ("config.toml.tmpl", "config-v3.toml.tmpl"):
        template = folder / "etc/containerd" / name
        if template.exists():
            raise Stop(f"{template}: templates for containerd's configuration are not in this stand-in; remove it.")
    auth = write_registries(options, folder)
    config = folder / "etc/containerd/config.toml"
    pki.write_private(config, containerd_config(options, folder, binaries, auth).encode())
    (folder / "containerd").mkdir(parents=True, exist_ok=True)
    (RUN / "containerd").mkdir(parents=True, exist_ok=True)
    processes.start(
        "containerd", [str(binaries / "containerd"), "-c", str(config)], output=folder / "containerd/containerd.log"
    )


def containerd_ready(binaries: pathlib.Path) -> bool:
    return (
        SOCKET.exists()
        and subprocess.run(
            [binaries / "ctr", "-a", str(SOCKET), "version"], capture_output=True, check=False
        ).returncode
        == 0
    )


def import_images(folder: pathlib.Path, binaries: pathlib.Path) -> None:
    """Import every archive in the images folder that this containerd has not seen with this size and time."""
    record = folder / "containerd/imported.json"
    seen: dict[str, list[float]] = json.loads(record.read_text()) if record.exists() else {}
    for path in sorted((folder / "images").glob("*.tar")):
        mark = [path.stat().st_size, path.stat().st_mtime]
        if seen.get(path.name) == mark:
            continue
        begun = time.monotonic()
        done = subprocess.run(
            [binaries / "ctr", "-a", str(SOCKET), "-n", "k8s.io", "images", "import", "--all-platforms", str(path)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            log(f"Failed to import images from {path}: {done.stderr.decode(errors='replace').strip()}", "error")
            continue
        log(f"Imported images from {path} in {time.monotonic() - begun:.3f} s")
        seen[path.name] = mark
        pki.write_private(record, json.dumps(seen).encode())


def kernel_settings() -> None:
    """What the pod network needs; a value that stands already is not written, since it may be read-only."""
    for name, value in {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/forwarding": "1",
        "net/bridge/bridge-nf-call-iptables": "1",
    }.items():
        path = pathlib.Path("/proc/sys") / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            log(f"Failed to set sysctl {name}: {error}", "warning")


def start_node(
    options: Mapping[str, Any],
    settings: Settings,
    host: str,
    port: int,
    folder: pathlib.Path,
    binaries: pathlib.Path,
    processes: Processes,
    labels: Sequence[str] = (),
) -> None:
    """Start what runs on every node. containerd must be on its way; the API may still be coming up."""
    node, address = node_name(options), node_ip(options)
    server = f"https://{host}:{port}"
    for name in ("kubelet", "kube-proxy", "k3s-controller"):
        # k3s's own names: kubelet.kubeconfig, kubeproxy.kubeconfig, k3scontroller.kubeconfig
        path = folder / f"{name.replace('-', '')}.kubeconfig"
        text = kubeconfig(server, folder / "server-ca.crt", folder / f"client-{name}")
        pki.write_private(path, text.encode())
    (folder / "pod-manifests").mkdir(exist_ok=True)
    kernel_settings()
    files = min(1_000_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    config = kubelet_config(options, settings, folder, resolver_file(options, folder), unified_cgroups(), files)
    pki.write_private(folder / "etc/kubelet.conf.d/00-k3s-defaults.conf", json.dumps(config, indent=2).encode())
    processes.wait_for("containerd", lambda: containerd_ready(binaries))
    import_images(folder, binaries)
    processes.start(
        "kubelet", [str(binaries / "kubelet"), *kubelet_command(options, folder, node, address, labels)[1:]]
    )
    if settings.kube_proxy:
        processes.start(
            "kube-proxy",
            [
                str(binaries / "kube-proxy"),
                f"--cluster-cidr={settings.cluster_cidr}",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-close-wait=0",
                "--conntrack-tcp-timeout-established=0",
                "--healthz-bind-address=127.0.0.1",
                f"--hostname-override={node}",
                f"--kubeconfig={folder / 'kubeproxy.kubeconfig'}",
                "--metrics-bind-address=127.0.0.1:10249",
                "--proxy-mode=nftables",
                *arguments(options["kube-proxy-arg"]),
            ],
        )
    api = Api(host, port, folder / "server-ca.crt", folder / "client-k3s-controller")
    routes = network.Network(api, node, address, settings.cluster_cidr, settings.backend, folder / "etc/cni/net.d")
    processes.background("network", routes.step, 1.0)
    if settings.network_policy:
        processes.wait_for("this node's pod network", routes.configured.is_set)
        processes.start(
            "network policy controller",
            [
                *(str(binaries / "netpol"), f"--kubeconfig={folder / 'k3scontroller.kubeconfig'}"),
                *(f"--node-name={node}", f"--service-cluster-ip-range={settings.service_cidr}"),
                f"--service-node-port-range={settings.node_ports}",
            ],
        )


def prepare(options: Mapping[str, Any]) -> tuple[pathlib.Path, pathlib.Path, Processes]:
    """Unpack, and give the agent's folder, the binaries' folder and the process table."""
    data = pathlib.Path(str(options["data-dir"]))
    binaries = payload.unpack(data) / "bin"
    folder = data / "agent"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return folder, binaries, Processes(f"{binaries}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def guarded(body: Any, processes: Processes) -> int:
    """Run until told to end; 0 for an ordinary end, 1 with a message otherwise."""
    code = 0
    try:
        body()
        processes.watch()
    except (Stop, pki.PkiError) as stop:
        if str(stop):
            log(str(stop), "fatal")
            code = 1
    finally:
        notify("STOPPING=1")
        processes.end()
    return code


def run(options: Mapping[str, Any]) -> int:
    """`k3s agent`."""
    log(f"Starting k3s agent {payload.version()}")
    folder, binaries, processes = prepare(options)

    def body() -> None:
        host, port, settings = join(options, folder, processes)
        start_containerd(options, folder, binaries, processes)
        start_node(options, settings, host, port, folder, binaries, processes)
        log("k3s agent is up and running")
        notify("READY=1")

    return guarded(body, processes)
