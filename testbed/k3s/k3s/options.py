"""Options of `k3s server` and `k3s agent`: command line, environment and configuration files become one plain dict.

Rules as documented (docs.k3s.io/installation/configuration): config.yaml first, then config.yaml.d/*.yaml in name
order; the last value of a key wins; `key+` appends to what stood there; the command line replaces, also lists. Pure
functions; reading the files is left to load().
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOTH = ("server", "agent")
SERVER = ("server",)

DISABLEABLE = ("coredns", "local-storage", "metrics-server", "runtimes", "servicelb", "traefik")


class OptionError(Exception):
    """One sentence that names the option and what to do."""


@dataclass(frozen=True)
class Option:
    """One documented option: its commands, its type (str, bool, int or list) and its environment variable."""

    commands: tuple[str, ...]
    kind: str = "str"
    default: object = None
    env: str = ""


SUPPORTED: dict[str, Option] = {
    "data-dir": Option(BOTH, default="/var/lib/rancher/k3s", env="K3S_DATA_DIR"),
    "debug": Option(BOTH, "bool", False, "K3S_DEBUG"),
    "token": Option(BOTH, env="K3S_TOKEN"),
    "token-file": Option(BOTH, env="K3S_TOKEN_FILE"),
    "server": Option(BOTH, env="K3S_URL"),
    "node-name": Option(BOTH, env="K3S_NODE_NAME"),
    "node-ip": Option(BOTH, "list"),
    "node-label": Option(BOTH, "list"),
    "node-taint": Option(BOTH, "list"),
    "kubelet-arg": Option(BOTH, "list"),
    "kube-proxy-arg": Option(BOTH, "list"),
    "private-registry": Option(BOTH, default="/etc/rancher/k3s/registries.yaml"),
    "pause-image": Option(BOTH, default="docker.io/rancher/mirrored-pause:3.6"),
    "snapshotter": Option(BOTH, default="overlayfs"),
    "protect-kernel-defaults": Option(BOTH, "bool", False),
    "resolv-conf": Option(BOTH, env="K3S_RESOLV_CONF"),
    "flannel-iface": Option(BOTH),
    "bind-address": Option(SERVER, default="0.0.0.0"),
    "https-listen-port": Option(SERVER, "int", 6443),
    "advertise-address": Option(SERVER),
    "tls-san": Option(SERVER, "list"),
    "cluster-cidr": Option(SERVER, "list", ["10.42.0.0/16"]),
    "service-cidr": Option(SERVER, "list", ["10.43.0.0/16"]),
    "service-node-port-range": Option(SERVER, default="30000-32767"),
    "cluster-dns": Option(SERVER, "list"),
    "cluster-domain": Option(SERVER, default="cluster.local"),
    "flannel-backend": Option(SERVER, default="vxlan"),
    "write-kubeconfig": Option(SERVER, default="/etc/rancher/k3s/k3s.yaml", env="K3S_KUBECONFIG_OUTPUT"),
    "write-kubeconfig-mode": Option(SERVER, env="K3S_KUBECONFIG_MODE"),
    "write-kubeconfig-group": Option(SERVER, env="K3S_KUBECONFIG_GROUP"),
    "kube-apiserver-arg": Option(SERVER, "list"),
    "kube-controller-manager-arg": Option(SERVER, "list"),
    "kube-scheduler-arg": Option(SERVER, "list"),
    "default-local-storage-path": Option(SERVER),
    "disable": Option(SERVER, "list"),
    "disable-network-policy": Option(SERVER, "bool", False),
    "disable-kube-proxy": Option(SERVER, "bool", False),
    "secrets-encryption": Option(SERVER, "bool", False),
    "secrets-encryption-provider": Option(SERVER, default="aescbc"),
}

# Documented for k3s 1.36 and not built here. They are known, so that the refusal can say which of the two it is.
UNSUPPORTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("advertise-port", "agent-token", "agent-token-file", "cluster-init", "cluster-reset"),
            *("cluster-reset-restore-path", "datastore-cafile", "datastore-certfile", "datastore-endpoint"),
            *("datastore-keyfile", "disable-agent", "disable-apiserver", "disable-cloud-controller"),
            *("disable-controller-manager", "disable-etcd", "disable-helm-controller", "disable-scheduler"),
            *("egress-selector-mode", "embedded-registry", "enable-pprof", "etcd-arg", "etcd-disable-snapshots"),
            *("etcd-expose-metrics", "etcd-s3", "etcd-s3-access-key", "etcd-s3-bucket", "etcd-s3-bucket-lookup-type"),
            *("etcd-s3-config-secret", "etcd-s3-endpoint", "etcd-s3-endpoint-ca", "etcd-s3-folder"),
            *("etcd-s3-insecure", "etcd-s3-proxy", "etcd-s3-region", "etcd-s3-retention", "etcd-s3-secret-key"),
            *("etcd-s3-session-token", "etcd-s3-skip-ssl-verify", "etcd-s3-timeout", "etcd-snapshot-compress"),
            *("etcd-snapshot-dir", "etcd-snapshot-name", "etcd-snapshot-reconcile-interval"),
            *("etcd-snapshot-retention", "etcd-snapshot-schedule-cron", "flannel-external-ip", "flannel-ipv6-masq"),
            *("helm-job-image", "kine-tls", "kube-cloud-controller-manager-arg", "kubeconfig-context-name"),
            *("servicelb-namespace", "supervisor-metrics", "tls-san-security"),
        ),
        SERVER,
    ),
    **dict.fromkeys(
        (
            *("airgap-extra-registry", "alsologtostderr", "container-runtime-endpoint", "default-runtime"),
            *("disable-default-registry-endpoint", "docker", "flannel-cni-conf", "flannel-conf"),
            *("image-credential-provider-bin-dir", "image-credential-provider-config", "image-service-endpoint"),
            *("lb-server-port", "log", "node-external-dns", "node-external-ip", "node-internal-dns"),
            *(
                "nonroot-devices",
                "prefer-bundled-bin",
                "rootless",
                "selinux",
                "system-default-registry",
                "v",
                "vmodule",
            ),
            *("vpn-auth", "vpn-auth-file", "with-node-id"),
        ),
        BOTH,
    ),
}

SHORT = {"-t": "token", "-s": "server", "-d": "data-dir", "-o": "write-kubeconfig", "-c": "config"}
BACKENDS = ("host-gw", "none", "vxlan")


def check_key(command: str, key: str, where: str) -> None:
    """Raise OptionError unless ``key`` is an option of ``command`` that is built here."""
    if key in SUPPORTED:
        if command not in SUPPORTED[key].commands:
            raise OptionError(f"{where}: {key!r} is an option of `k3s server` only; remove it for the {command}.")
        return
    if key in UNSUPPORTED:
        raise OptionError(f"{where}: k3s documents {key!r}, but this stand-in does not have it; remove it.")
    raise OptionError(f"{where}: unknown option {key!r} for `k3s {command}`; compare with docs.k3s.io/cli/{command}.")


def as_list(value: object) -> list[str]:
    """A value of a repeatable option as a list of strings; a plain value is a list of one."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text(item) for item in value]
    return [text(value)]


def text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def merge(command: str, documents: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Merge the configuration files' contents, given as (name, parsed YAML) in the order in which they are read.

    Raises:
        OptionError: a file is not a mapping, or a key is not an option that is built here.
    """
    merged: dict[str, object] = {}
    for where, document in documents:
        if document is None:
            continue
        if not isinstance(document, Mapping):
            raise OptionError(f"{where}: expected a mapping of options, found a {type(document).__name__}.")
        for raw, value in document.items():
            key = str(raw)
            append = key.endswith("+")
            key = key.removesuffix("+")
            check_key(command, key, where)
            if append and key in merged:
                merged[key] = as_list(merged[key]) + as_list(value)
            else:
                merged[key] = value
    return merged


def parse_arguments(command: str, arguments: Sequence[str]) -> dict[str, object]:
    """The command line as a dict; a repeated list option collects its values.

    Raises:
        OptionError: unknown option, missing value, or an argument that is no option.
    """
    found: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise OptionError(f"command line: {word!r} is not an option of `k3s {command}`.")
        name, equals, value = word.partition("=")
        key = SHORT.get(name, name.lstrip("-"))
        if key != "config":
            check_key(command, key, "command line")
        kind = "str" if key == "config" else SUPPORTED[key].kind
        if not equals:
            if kind == "bool":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise OptionError(f"command line: option {name} needs a value.")
        if kind == "list":
            found[key] = as_list(found.get(key)) + value.split(",")
        else:
            found[key] = value
    return found


def convert(key: str, value: object) -> object:
    """A raw value in the option's type. Raises OptionError with the key."""
    kind = SUPPORTED[key].kind
    if kind == "list":
        return as_list(value)
    if isinstance(value, (list, tuple, dict)):
        raise OptionError(f"{key}: expected a single value, found {value!r}.")
    if kind == "bool":
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "1", "t"):
            return True
        if str(value).lower() in ("false", "0", "f", ""):
            return False
        raise OptionError(f"{key}: expected true or false, found {value!r}.")
    if kind == "int":
        try:
            return int(str(value))
        except ValueError:
            raise OptionError(f"{key}: expected a number, found {value!r}.") from None
    if key == "write-kubeconfig-mode" and not isinstance(value, str):
        raise OptionError(f"{key}: put the mode in quotes: YAML reads 0600 as the number {0o600}.")
    return None if value is None else text(value)


def resolve(
    command: str, documents: Sequence[tuple[str, object]], env: Mapping[str, str], arguments: Sequence[str]
) -> dict[str, object]:
    """All options of ``command`` with their values: defaults, files, environment, command line, the later the stronger.

    Raises:
        OptionError: as merge() and parse_arguments(), or values that do not go together.
    """
    given: dict[str, object] = merge(command, documents)
    for key, option in SUPPORTED.items():
        if option.env and env.get(option.env) and command in option.commands:
            given[key] = env[option.env]
    line = parse_arguments(command, arguments)
    line.pop("config", None)
    given.update(line)
    options = {
        key: convert(key, given[key]) if key in given else option.default
        for key, option in SUPPORTED.items()
        if command in option.commands
    }
    return checked(command, options)


def checked(command: str, options: dict[str, object]) -> dict[str, object]:
    """Refuse values that this stand-in cannot honour, in one sentence each."""
    if command == "server":
        if options["server"]:
            raise OptionError("server: joining a second server is not in this stand-in; run one server and agents.")
        backend = options["flannel-backend"]
        if backend not in BACKENDS:
            raise OptionError(
                f"flannel-backend: {backend!r} is not in this stand-in; use one of {', '.join(BACKENDS)}."
            )
        disabled = [name for entry in as_list(options["disable"]) for name in entry.split(",")]
        options["disable"] = disabled
        for name in disabled:
            if name not in DISABLEABLE:
                raise OptionError(f"disable: {name!r} is no packaged component; use one of {', '.join(DISABLEABLE)}.")
        if options["secrets-encryption-provider"] not in ("aescbc", "secretbox"):
            raise OptionError("secrets-encryption-provider: use aescbc or secretbox.")
        for key in ("cluster-cidr", "service-cidr", "cluster-dns"):
            if len(as_list(options[key])) > 1:
                raise OptionError(f"{key}: dual stack is not in this stand-in; give one value.")
    elif not options["server"]:
        raise OptionError("server: an agent needs the address of its server (--server or K3S_URL).")
    if len(as_list(options["node-ip"])) > 1:
        raise OptionError("node-ip: dual stack is not in this stand-in; give one address.")
    return options


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """The configuration files in the order in which they are read."""
    folder = path.with_name(path.name + ".d")
    return [p for p in (path, *sorted(folder.glob("*.yaml"))) if p.is_file()]


def load(command: str, env: Mapping[str, str], arguments: Sequence[str]) -> dict[str, object]:
    """Read the files that the command line or the environment name, and resolve everything.

    Raises:
        OptionError: also for a file that is not YAML.
    """
    import yaml

    path = env.get("K3S_CONFIG_FILE") or "/etc/rancher/k3s/config.yaml"
    words = list(arguments)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("-c", "--config"):
            path = value if equals else words[index + 1] if index + 1 < len(words) else path
    documents: list[tuple[str, object]] = []
    for file in files(pathlib.Path(path)):
        try:
            documents.append((str(file), yaml.safe_load(file.read_text())))
        except yaml.YAMLError as error:
            raise OptionError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    return resolve(command, documents, env, arguments)
