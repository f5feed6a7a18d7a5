"""`k3s server`: certificates and tokens, the control plane, what k3s adds to it, and a node of its own."""

from __future__ import annotations

import base64
import dataclasses
import grp
import ipaddress
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Mapping
from typing import Any

from . import agent, controllers, payload, pki, tokens
from .agent import Settings, arguments, node_ip, node_name
from .kube import Api, ApiError, kubeconfig
from .options import as_list
from .processes import Stop, log, notify

AUDIENCES = "https://kubernetes.default.svc.cluster.local,k3s"


def nth(cidr: str, number: int) -> str:
    return str(ipaddress.ip_network(cidr)[number])


def settings_of(options: Mapping[str, Any]) -> Settings:
    """What the nodes have to know, from the server's options."""
    service_cidr = as_list(options["service-cidr"])[0]
    given_dns = as_list(options["cluster-dns"])
    return Settings(
        cluster_cidr=as_list(options["cluster-cidr"])[0],
        service_cidr=service_cidr,
        node_ports=str(options["service-node-port-range"]),
        cluster_dns=given_dns[0] if given_dns else nth(service_cidr, 10),
        cluster_domain=str(options["cluster-domain"]),
        backend=str(options["flannel-backend"]),
        network_policy=not options["disable-network-policy"],
        kube_proxy=not options["disable-kube-proxy"],
    )


def make_certificates(options: Mapping[str, Any], tls: pathlib.Path) -> None:
    """Every certificate of the server, under k3s's own names."""
    now = int(time.time())
    for name in ("server-ca", "client-ca", "request-header-ca"):
        pki.make_ca(tls, name, f"k3s-{name}@{now}")
    settings = settings_of(options)
    node, address = node_name(options), node_ip(options)
    domain = settings.cluster_domain
    names = [
        *("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"),
        *("localhost", "127.0.0.1", node, address, nth(settings.service_cidr, 1)),
        *as_list(options["tls-san"]),
    ]
    pki.make_leaf(tls / "serving-kube-apiserver", tls, "server-ca", "kube-apiserver", (), names)
    for file, common_name, organizations in (
        ("client-admin", "system:admin", ("system:masters",)),
        ("client-supervisor", "system:k3s-supervisor", ("system:masters",)),
        ("client-controller", "system:kube-controller-manager", ()),
        ("client-scheduler", "system:kube-scheduler", ()),
        ("client-kube-apiserver", "kube-apiserver", ()),
    ):
        pki.make_leaf(tls / file, tls, "client-ca", common_name, organizations)
    pki.make_leaf(tls / "client-auth-proxy", tls, "request-header-ca", "system:auth-proxy")
    pki.make_key(tls / "service.key")


def own_node_certificates(tls: pathlib.Path, folder: pathlib.Path, node: str, address: str) -> None:
    """The server signs its own node's certificates without a request."""
    for name in ("server-ca.crt", "client-ca.crt"):
        shutil.copyfile(tls / name, folder / name)
    for wanted in agent.certificates(node):
        authority = "server-ca" if wanted.serving else "client-ca"
        names = [node, "localhost", "127.0.0.1", address] if wanted.serving else []
        pki.make_leaf(folder / wanted.file, tls, authority, wanted.common_name, wanted.organizations, names)


def write_token(options: Mapping[str, Any], folder: pathlib.Path, authority: bytes) -> str:
    """Write server/token and node-token; gives the password.

    A token of the configuration must be the one with which the datastore was made.

    Raises:
        Stop: it is another one, or it belongs to another cluster.
    """
    path = folder / "token"
    try:
        given = agent.read_token(options)
        wanted = tokens.parse(given) if given else None
        if wanted:
            tokens.check_ca(wanted, authority)
        if path.exists():
            known = tokens.parse(path.read_text())
            if wanted and wanted.password != known.password:
                raise Stop("token: bootstrap data already found and encrypted with different token: "
                           f"give the token of {path} or none.")  # fmt: skip
            wanted = known
    except tokens.TokenError as error:
        raise Stop(f"token: {error}") from error
    password = wanted.password if wanted else secrets.token_hex(16)
    if any(mark in password for mark in ',"\n'):
        raise Stop("token: it must not contain a comma, a quotation mark or a line break.")
    pki.write_private(path, (tokens.long_form(password, authority) + "\n").encode())
    link = folder / "node-token"
    if not link.is_symlink():
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return password


def encryption(options: Mapping[str, Any], path: pathlib.Path) -> bool:
    """Write the key for Secrets once; gives whether Secrets are encrypted. A key that exists is always used."""
    if path.exists():
        return True
    if not options["secrets-encryption"]:
        return False
    key = {"name": f"{options['secrets-encryption-provider']}key", "secret": base64.b64encode(os.urandom(32)).decode()}
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [{str(options["secrets-encryption-provider"]): {"keys": [key]}}, {"identity": {}}],
            }
        ],
    }
    pki.write_private(path, json.dumps(document).encode())
    return True


def api_command(
    options: Mapping[str, Any], settings: Settings, folder: pathlib.Path, address: str, encrypted: bool
) -> list[str]:
    tls, cred = folder / "tls", folder / "cred"
    command = [
        f"--advertise-address={options['advertise-address'] or address}",
        "--allow-privileged=true",
        "--anonymous-auth=false",
        f"--api-audiences={AUDIENCES}",
        "--authorization-mode=Node,RBAC",
        f"--bind-address={options['bind-address']}",
        f"--cert-dir={tls / 'temporary-certs'}",
        f"--client-ca-file={tls / 'client-ca.crt'}",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-aggregator-routing=true",
        f"--etcd-servers=unix://{folder / 'kine.sock'}",
        f"--kubelet-certificate-authority={tls / 'server-ca.crt'}",
        f"--kubelet-client-certificate={tls / 'client-kube-apiserver.crt'}",
        f"--kubelet-client-key={tls / 'client-kube-apiserver.key'}",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--profiling=false",
        f"--proxy-client-cert-file={tls / 'client-auth-proxy.crt'}",
        f"--proxy-client-key-file={tls / 'client-auth-proxy.key'}",
        "--requestheader-allowed-names=system:auth-proxy",
        f"--requestheader-client-ca-file={tls / 'request-header-ca.crt'}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--secure-port={options['https-listen-port']}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={tls / 'service.key'}",
        f"--service-account-signing-key-file={tls / 'service.key'}",
        f"--service-cluster-ip-range={settings.service_cidr}",
        f"--service-node-port-range={settings.node_ports}",
        "--storage-backend=etcd3",
        f"--tls-cert-file={tls / 'serving-kube-apiserver.crt'}",
        f"--tls-private-key-file={tls / 'serving-kube-apiserver.key'}",
        f"--token-auth-file={cred / 'passwd'}",
    ]
    if encrypted:
        command.append(f"--encryption-provider-config={cred / 'encryption-config.json'}")
    return command + arguments(options["kube-apiserver-arg"])


def manager_command(options: Mapping[str, Any], settings: Settings, folder: pathlib.Path) -> list[str]:
    tls, config = folder / "tls", folder / "cred/controller.kubeconfig"
    signers = {
        "kube-apiserver-client": "client-ca",
        "kubelet-client": "client-ca",
        "kubelet-serving": "server-ca",
        "legacy-unknown": "server-ca",
    }
    return [
        "--allocate-node-cidrs=true",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--cluster-cidr={settings.cluster_cidr}",
        *(f"--cluster-signing-{signer}-cert-file={tls / f'{ca}.crt'}" for signer, ca in signers.items()),
        *(f"--cluster-signing-{signer}-key-file={tls / f'{ca}.key'}" for signer, ca in signers.items()),
        "--configure-cloud-routes=false",
        "--controllers=*,tokencleaner",
        f"--kubeconfig={config}",
        "--leader-elect=false",
        "--profiling=false",
        f"--root-ca-file={tls / 'server-ca.crt'}",
        f"--service-account-private-key-file={tls / 'service.key'}",
        f"--service-cluster-ip-range={settings.service_cidr}",
        "--use-service-account-credentials=true",
        *arguments(options["kube-controller-manager-arg"]),
    ]


def scheduler_command(options: Mapping[str, Any], folder: pathlib.Path) -> list[str]:
    config = folder / "cred/scheduler.kubeconfig"
    return [
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--kubeconfig={config}",
        "--leader-elect=false",
        "--profiling=false",
        *arguments(options["kube-scheduler-arg"]),
    ]


def write_kubeconfig(options: Mapping[str, Any], tls: pathlib.Path) -> None:
    """k3s.yaml for the administrator, 0600 unless the options say otherwise.

    Raises:
        Stop: the mode or the group is none.
    """
    mode = str(options["write-kubeconfig-mode"] or "0600")
    try:
        bits = int(mode, 8)
    except ValueError:
        raise Stop(f"write-kubeconfig-mode: {mode!r} is not an octal mode.") from None
    path = pathlib.Path(str(options["write-kubeconfig"]))
    server = f"https://127.0.0.1:{options['https-listen-port']}"
    text = kubeconfig(server, tls / "server-ca.crt", tls / "client-admin", embed=True)
    pki.write_private(path, text.encode(), bits)
    if options["write-kubeconfig-group"]:
        try:
            os.chown(path, -1, grp.getgrnam(str(options["write-kubeconfig-group"])).gr_gid)
        except KeyError:
            raise Stop(f"write-kubeconfig-group: no group {options['write-kubeconfig-group']!r} here.") from None


def publish_settings(api: Api, settings: Settings) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": agent.SETTINGS.rsplit("/", 1)[1], "namespace": "kube-system"},
        "data": {"settings": json.dumps(dataclasses.asdict(settings))},
    }
    api.apply(agent.SETTINGS, body, "k3s")


def run(options: Mapping[str, Any]) -> int:
    """`k3s server`."""
    log(f"Starting k3s {payload.version()}")
    node_folder, binaries, processes = agent.prepare(options)
    data = pathlib.Path(str(options["data-dir"]))
    folder = data / "server"
    tls, cred = folder / "tls", folder / "cred"
    port = int(options["https-listen-port"])
    settings = settings_of(options)

    def body() -> None:
        node, address = node_name(options), node_ip(options)
        for path in (tls, cred):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        make_certificates(options, tls)
        password = write_token(options, folder, (tls / "server-ca.crt").read_bytes())
        pki.write_private(cred / "passwd", f'{password},{agent.BOOTSTRAP_USER},k3s-agent,"k3s:agents"\n'.encode())
        encrypted = encryption(options, cred / "encryption-config.json")
        local = f"https://127.0.0.1:{port}"
        for name, client in (("admin", "client-supervisor"), ("controller",) * 2, ("scheduler",) * 2):
            client = client if client.startswith("client-") else f"client-{client}"
            pki.write_private(
                cred / f"{name}.kubeconfig", kubeconfig(local, tls / "server-ca.crt", tls / client).encode()
            )
        own_node_certificates(tls, node_folder, node, address)
        manifests = folder / "manifests"
        disabled = as_list(options["disable"])
        values = {
            "CLUSTER_DNS": settings.cluster_dns,
            "CLUSTER_DOMAIN": settings.cluster_domain,
            "DEFAULT_LOCAL_STORAGE_PATH": str(options["default-local-storage-path"] or data / "storage"),
        }
        crds = sorted((binaries.parent / "traefik/crds").iterdir())
        controllers.write_bundled(manifests, disabled, values, crds)

        (folder / "kine.sock").unlink(missing_ok=True)
        processes.start(
            "kine",
            [
                *(str(binaries / "kine"), "--endpoint=sqlite://", f"--listen-address=unix://{folder / 'kine.sock'}"),
                "--metrics-bind-address=0",
            ],
            cwd=folder,
        )
        agent.start_containerd(options, node_folder, binaries, processes)
        processes.wait_for("the datastore", (folder / "kine.sock").exists, 0.05)
        processes.start(
            "kube-apiserver",
            [str(binaries / "kube-apiserver"), *api_command(options, settings, folder, address, encrypted)],
            cwd=folder,
        )

        def api() -> Api:
            return Api("127.0.0.1", port, tls / "server-ca.crt", tls / "client-supervisor")

        main_api = api()

        def ready() -> bool:
            try:
                main_api.get("/readyz")
            except ApiError:
                return False
            return True

        processes.wait_for("the API", ready)
        log("Kube API server is now running")
        manager = manager_command(options, settings, folder)
        processes.start("kube-controller-manager", [str(binaries / "kube-controller-manager"), *manager])
        processes.start("kube-scheduler", [str(binaries / "kube-scheduler"), *scheduler_command(options, folder)])
        kubectl = controllers.Kubectl(binaries / "kubectl", cred / "admin.kubeconfig")
        publish_settings(main_api, settings)
        own = "\n---\n".join(payload.bundled(f"manifests/{name}.yaml") for name in ("rolebindings", "helm-crds"))
        kubectl.apply("k3s", "--filename=-", data=own)
        controllers.remove_disabled(kubectl, disabled)
        write_kubeconfig(options, tls)
        joining = controllers.Joining(api(), node)
        joining.remember(node, agent.node_password())
        processes.background("joining nodes", joining.step, 0.5)
        processes.background("manifests", controllers.Deploy(kubectl, manifests).step, 2.0)
        processes.background("helm", controllers.Helm(api(), kubectl).step, 1.0)
        if "servicelb" not in disabled:
            processes.background("servicelb", controllers.ServiceLB(api()).step, 1.0)
        agent.start_node(
            options, settings, "127.0.0.1", port, node_folder, binaries, processes,
            ["node.kubernetes.io/instance-type=k3s"],
        )  # fmt: skip
        log("k3s is up and running")
        notify("READY=1")

    return agent.guarded(body, processes)
