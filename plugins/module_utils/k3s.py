"""Decisions about k3s: reports (node_types) or other plain data in, plain data or sentences out, no I/O."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict
from urllib.parse import quote, urlsplit

from . import clock, conditions
from .node_types import Fetch, K3sDesired, K3sProbe, Kubeconfig, Report
from .objects import Part
from .preflight import by_text, node_name

Config = dict[str, Any]


class Given(TypedDict):
    """The inventory's values for one node; ``server_layers`` are its server's, as far as another host can know them."""

    server: bool
    layers: dict[str, Config]
    server_layers: list[Config]
    data_dir: str
    url: str
    api: str
    address: str
    token_file: str
    token_given: bool


class Settings(TypedDict):
    """What follows from the inventory alone: config.yaml, its errors, and where the server keeps what others read."""

    config: Config
    errors: list[str]
    kubeconfig: str
    storage: str


# In every unit of ours, see roles/k3s/templates/service.j2
STAMP = "/run/%N.inputs"
# Keys that the role writes itself, each with what to use instead.
OWNED_KEYS = {
    "server": "k3s_server_url",
    "token": "k3s_token",
    "token-file": "k3s_token",
    "data-dir": "k3s_data_dir",
    "cluster-init": "one server for now; more servers are not supported yet",
}
VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)\+k3s(\d+)")
TOKEN = re.compile(r"K10([0-9a-f]{64})::(.+)", re.DOTALL)
RUNBOOK = "docs/runbooks/server-lost.md"
ANEW = 'docs/operations.md, "A host that was installed anew"'
REJECTED = "the server knows a node of this name by another password, since the host is new or two hosts have one name"
# The binary says armhf where the lists say arm.
ARCHITECTURES = {"amd64": "", "arm64": "-arm64", "arm": "-armhf"}


# --- versions and artifacts ------------------------------------------------------------------------------------------


def parse_version(text: str) -> tuple[int, int, int, int]:
    """Return (major, minor, patch, build) of a release such as v1.36.4+k3s1.

    Raises ValueError with a sentence for anything else, release candidates included (they sort after their release).
    """
    match = VERSION.fullmatch(text)
    if not match:
        raise ValueError(f"k3s_version is {text!r}, which is no release of k3s; write it as v1.36.4+k3s1.")
    major, minor, patch, build = (int(part) for part in match.groups())
    return major, minor, patch, build


def artifact(version: str, source: str, base: str, arch: str) -> dict[str, str]:
    """Return where one architecture's files of a release are: ``binary``, ``images``, ``sums`` and their file names.

    ``base`` is an address for the sources release and mirror, and a folder for the source folder, which holds the files
    of one version without a level for it.
    """
    suffix = ARCHITECTURES[arch]
    names = {
        "binary": f"k3s{suffix}",
        "images": f"k3s-airgap-images-{arch}.tar",
        "sums": f"sha256sum-{arch}.txt",
    }
    root = base.rstrip("/") if source == "folder" else f"{base.rstrip('/')}/{quote(version, safe='')}"
    return {**{name: f"{root}/{file}" for name, file in names.items()}, "images_name": names["images"]}


def lacking(probe: K3sProbe, desired: K3sDesired) -> list[Fetch]:
    """Return the files of the release that a node lacks."""
    arch = probe["arch"]
    place = artifact(desired["version"], desired["source"], desired["base"], arch)
    binary = Fetch(
        variable="k3s_checksum",
        checksum=checksum(desired, arch),
        name="k3s" + ARCHITECTURES[arch],
        path=place["binary"],
        dest="/usr/local/bin/k3s",
        mode="0755",
    )
    images = Fetch(
        variable="k3s_images_checksum",
        checksum=desired["images_checksum"],
        name=place["images_name"],
        path=place["images"],
        dest=f"{desired['data_dir']}/agent/images/{place['images_name']}",
        mode="0644",
    )
    found = []
    if not binary["checksum"] or probe["binary_sha256"] != binary["checksum"]:
        found.append(binary)
    if desired["images_enabled"] and (not images["checksum"] or probe["images_sha256"] != images["checksum"]):
        found.append(images)
    return found


def checksum(desired: K3sDesired, arch: str) -> str:
    """Return the SHA-256 that the binary has to have; empty where none is known."""
    return desired["checksum"] or desired["pins"].get(arch, "")


def in_folder(probe: K3sProbe, desired: K3sDesired) -> list[str]:
    """Return the paths of the files that a node is to get from a folder of the controller."""
    if desired["source"] != "folder" or not desired["base"] or probe["arch"] not in ARCHITECTURES:
        return []
    return [file["path"] for file in lacking(probe, desired)]


def _file_error(file: Fetch, found: str) -> str:
    """Why a file in the folder with the SHA-256 ``found`` (empty: no file) is not the right one; empty where it is."""
    if not found:
        return f"{file['path']} does not exist; k3s_artifact_dir has to be the folder with the files of the release."
    if found != file["checksum"]:
        return (
            f"{file['path']} has the SHA-256 {found}, but {file['variable']} is {file['checksum']}; "
            "get the right file, or correct the variable."
        )
    return ""


def upgrade_error(installed: str, wanted: str, allowed: bool) -> str:
    """Return why a node may not go from the installed version to the wanted one; empty where it may."""
    if not installed or installed == wanted:
        return ""
    try:
        old, new = parse_version(installed), parse_version(wanted)
    except ValueError:
        return (
            f"{installed} is installed, which is no release of k3s, so nothing says what may follow it; leave this "
            "host out of the inventory."
        )
    if new < old:
        return (
            f"{installed} is installed and k3s_version is {wanted}; k3s cannot be downgraded, "
            f"so set k3s_version to {installed} or newer."
        )
    if new[0] != old[0] or new[1] > old[1] + 1:
        return (
            f"{installed} is installed and k3s_version is {wanted}; no minor version may be skipped, "
            f"so upgrade to v{old[0]}.{old[1] + 1} first."
        )
    if not allowed:
        return (
            f"{installed} is installed and k3s_version is {wanted}; set k3s_allow_upgrade: true to upgrade in this "
            f"run, or k3s_version: {installed} to stay."
        )
    return ""


# --- configuration ---------------------------------------------------------------------------------------------------


def settings(given: Given) -> Settings:
    """Return what the inventory's values come to, before any host was asked."""
    mine = config(given)
    # An agent knows of its server what the inventory gives it, and no default of the role names these keys.
    servers = mine if given["server"] else merge_config(given["server_layers"])
    return {
        "config": mine,
        "errors": config_errors(given["layers"]),
        "kubeconfig": servers.get("write-kubeconfig", "/etc/rancher/k3s/k3s.yaml"),
        "storage": servers.get("default-local-storage-path", f"{given['data_dir']}/storage"),
    }


def config(given: Given) -> Config:
    """Return a node's config.yaml: the inventory's layers, then the keys that the role owns."""
    owned: Config = {"data-dir": given["data_dir"]}
    if given["server"]:
        owned["tls-san"] = san(given["api"], given["address"])
        owned |= {"token-file": given["token_file"]} if given["token_given"] else {}
    else:
        owned |= {"server": given["url"], "token-file": given["token_file"]}
    return merge_config([*given["layers"].values(), owned])


def merge_config(layers: Iterable[Mapping[str, Any]]) -> Config:
    """Return one config.yaml from several dictionaries: the later wins, lists append (each value once), in order."""
    merged: Config = {}
    for layer in layers:
        for key, value in layer.items():
            before = merged.get(key)
            if isinstance(before, list) or (isinstance(value, list) and before is not None):
                merged[key] = _once(_as_list(before) + _as_list(value))
            else:
                merged[key] = _once(value) if isinstance(value, list) else value
    return merged


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _once(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def config_errors(layers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each key that the role owns and for each key that k3s could not read.

    ``layers`` maps the name of the variable to its value.
    """
    found = []
    for variable, layer in layers.items():
        for key in layer:
            if key.rstrip("+") in OWNED_KEYS:
                found.append(f"{variable} sets {key}, which the role writes itself; use {OWNED_KEYS[key.rstrip('+')]}.")
            elif "_" in key:
                found.append(
                    f"{variable} sets {key}; k3s writes its keys with hyphens, so use {key.replace('_', '-')}."
                )
    return found


def san(url: str, *addresses: str) -> list[str]:
    """Return the names that the API's certificate needs besides its own: none for the loopback addresses."""
    host = urlsplit(url).hostname or ""
    return _once([name for name in (*addresses, host) if name and name not in ("127.0.0.1", "localhost", "::1")])


# --- who belongs to which cluster ------------------------------------------------------------------------------------


def cluster_errors(reports: Iterable[Report]) -> list[str]:
    """Return one sentence for each thing in the inventory or on the nodes that would break or split a cluster.

    The inventory's servers and agents count whether they take part in this run or not.
    """
    reports = [report for report in reports if "k3s" in report["desired"]]
    if not reports:
        return []
    servers, agents = reports[0]["desired"]["k3s"]["servers"], reports[0]["desired"]["k3s"]["agents"]
    by_name = {report["name"]: report for report in reports if not report["reason"]}
    found = list(dict.fromkeys(text for report in reports for text in report["desired"]["k3s"]["config_errors"]))
    found += _inventory(servers, agents)
    found += by_text({name: _one_node(report, by_name) for name, report in by_name.items()})
    if len(servers) == 1 and servers[0] in by_name:
        server = by_name[servers[0]]
        found += _foreign(server, [by_name[name] for name in agents if name in by_name])
        # Of a server that was lost the agents know the cluster.
        known = [report["probe"]["k3s"]["ca_hash"] for report in (server, *by_name.values())]
        refusal = kubeconfig_refusal(server["kubeconfig"], next(filter(None, known), ""))
        found += [refusal] if refusal else []
    return found


def _inventory(servers: list[str], agents: list[str]) -> list[str]:
    found = []
    if not servers:
        found.append("The inventory group k3s_server is empty; put the host that shall be the cluster's server there.")
    if len(servers) > 1:
        found.append(
            f"The inventory group k3s_server holds {len(servers)} hosts ({', '.join(servers)}), and more than one "
            "server is not supported yet; leave one there and move the others to the agents."
        )
    both = sorted(set(servers) & set(agents))
    if both:
        found.append(
            f"{', '.join(both)} is both server and agent in the inventory; a server runs pods too, "
            "so take it from the agents."
        )
    return found


def _one_node(report: Report, by_name: Mapping[str, Report]) -> list[str]:
    probe, desired = report["probe"]["k3s"], report["desired"]["k3s"]
    try:
        parse_version(desired["version"])
    except ValueError as exc:
        return [str(exc)]
    if probe["arch"] not in ARCHITECTURES:
        return [f"the processor is {probe['arch']}, and k3s has no release for it; use amd64, arm64 or arm."]
    found = [*_source(report), _renamed(report), _by_hand(report), _ended(probe)]
    is_server = report["name"] in desired["servers"]
    other = "k3s-agent" if is_server else "k3s"
    if other in probe["units"]:
        found.append(
            f"the service {other} is installed, but the inventory says {'server' if is_server else 'agent'}; put the "
            f"host back into its group, or put its k3s aside first. {_kept(probe)}"
        )
    wanted = checksum(desired, probe["arch"])
    if probe["binary_sha256"] and probe["binary_sha256"] == wanted:
        if probe["installed_version"] != desired["version"]:
            found.append(
                f"the binary with k3s_checksum {wanted} calls itself {probe['installed_version']}, but k3s_version is "
                f"{desired['version']}; correct one of the two."
            )
        return [text for text in found if text]
    # An agent behind a server that has the version already is an upgrade that was interrupted: it goes on.
    server = next((by_name[name] for name in desired["servers"] if name in by_name), None)
    interrupted = (
        server is not None
        and server is not report
        and server["probe"]["k3s"]["installed_version"] == desired["version"]
    )
    allowed = desired["allow_upgrade"] or interrupted
    found.append(upgrade_error(probe["installed_version"], desired["version"], allowed))
    return [text for text in found if text]


def by_hand(unit: str, service: str, environment: str, config: str) -> list[str]:
    """Return the unit's file and the names of what is set, where the unit is none of ours; empty where it is, or none.

    From the text of its file, of its environment and of config.yaml. No values: there are passwords among them.
    """
    if not service or STAMP in service:
        return []
    # Of one letter, too: -d is the data's place.
    command = re.search(r"^ExecStart=((?:.*\\\n)*.*)", service, re.MULTILINE)
    flags = re.findall(r"(?<=[\s'\"])--?[a-z][a-z0-9-]*", command.group(1) if command else "")
    set_there = "\n".join(re.findall(r"^Environment=(.*)", service, re.MULTILINE))
    variables = re.findall(r"(?:^|[\s'\"])([A-Za-z_]\w*)=", set_there)
    variables += re.findall(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=", environment, re.MULTILINE)
    keys = re.findall(r"^[\"']?([a-z][a-z0-9-]*)[\"']?\+?:", config, re.MULTILINE)
    return [f"/etc/systemd/system/{unit}.service", *dict.fromkeys((*flags, *variables, *keys))]


def _by_hand(report: Report) -> str:
    """Why another's k3s is not made ours unasked: with other flags a server comes up empty, or on another network."""
    probe, desired = report["probe"]["k3s"], report["desired"]["k3s"]
    if not probe["by_hand"]:
        return ""
    unit, *names = probe["by_hand"]
    if desired["take_over"]:
        moved = "k3s" in probe["active"] or not {"-d", "--data-dir", "K3S_DATA_DIR", "data-dir"}.isdisjoint(names)
        if report["name"] not in desired["servers"] or probe["ca_hash"] or not moved:
            return ""
        return (
            f"the k3s that would be taken over has its data elsewhere than in {desired['data_dir']}, where it would "
            "come up as an empty cluster: set k3s_data_dir to where it is."
        )
    return (
        f"k3s was installed here by other means ({unit} is none of this collection's), and its unit, environment and "
        f"config.yaml would be replaced; it sets {', '.join(names) or 'nothing of its own'}. Put what shall stay into "
        "k3s_config, k3s_server_config, k3s_node_config or k3s_environment, and set k3s_take_over: true; a copy of "
        "each file is left beside it."
    )


def _renamed(report: Report) -> str:
    """Why a host may not become another node than it is: the volumes on its disk are tied to the name of the first."""
    probe, name = report["probe"]["k3s"], node_name(report)
    if not probe["volumes"] or probe["registered"] in ("", name.lower()):
        return ""
    old = probe["registered"]
    return (
        f"the host is the node {old}, to whose name the volumes in {probe['storage']} are tied, and would become "
        f"another node, {name}; keep the name (host_hostname: {old}), or only the node's with "
        f"k3s_node_config: {{node-name: {old}}}."
    )


def _source(report: Report) -> list[str]:
    probe, desired = report["probe"]["k3s"], report["desired"]["k3s"]
    if not desired["base"]:
        places = {"release": "k3s_release_url", "mirror": "k3s_mirror_url", "folder": "k3s_artifact_dir"}
        source = desired["source"]
        return [f"k3s_source is {source}, so {places[source]} has to say where the files are."]
    sums = artifact(desired["version"], desired["source"], desired["base"], probe["arch"])["sums"]
    show = f"cat {sums}" if desired["source"] == "folder" else f"curl -sfL {sums}"
    found = []
    for file in lacking(probe, desired):
        variable, name = file["variable"], file["name"]
        if not file["checksum"]:
            found.append(
                f"{variable} is not set, and no checksum of {name} {desired['version']} is known here; set it to what "
                f'"{show} | grep -w {name}" shows.'
            )
        elif not re.fullmatch(r"[0-9a-f]{64}", file["checksum"]):
            found.append(
                f'{variable} is no SHA-256 of 64 hexadecimal digits; set it to what "{show} | grep -w {name}" shows.'
            )
        elif file["path"] in report["folder"] and (error := _file_error(file, report["folder"][file["path"]])):
            found.append(error)
    return found


def _foreign(server: Report, agents: list[Report]) -> list[str]:
    probe = server["probe"]["k3s"]
    found = []
    if probe["token_matches"] is False:
        found.append(
            f"k3s_token is the token of another cluster than the one that lives on {server['name']}; "
            "remove k3s_token from the inventory (the cluster keeps its own), or correct it."
        )
    found += [error for agent in agents if (error := foreign_error(agent, probe["ca_hash"]))]
    found += [error for agent in agents if (error := _installed_anew(agent, probe["nodes"]))]
    if not probe["ca_hash"] and server["desired"]["k3s"]["token_is_long"]:
        found.append(
            "k3s_token has the long form (K10...) of a cluster that exists, but there is none on "
            f"{server['name']}; give the short form, or leave k3s_token out and let k3s make one."
        )
    return found


def _installed_anew(agent: Report, nodes: Iterable[Part]) -> str:
    """Why the server would reject an agent: it knows a node of its name by a password that the host does not have."""
    name = node_name(agent).lower()
    if agent["probe"]["k3s"]["node_password"] or name not in [node["metadata"]["name"] for node in nodes]:
        return ""
    return (
        f"{agent['name']} has no node password, as after a new installation, and the cluster has a node {name} with "
        f"one, so it would reject the host; let the cluster forget that node, or give the host another name: {ANEW}."
    )


def foreign_error(agent: Report, server_hash: str) -> str:
    """Return why an agent may not join the server's cluster: it belongs to one with another CA. Empty hash: none."""
    name, probe, server = agent["name"], agent["probe"]["k3s"], agent["desired"]["k3s"]["servers"][0]
    if not probe["ca_hash"] or probe["ca_hash"] == server_hash:
        return ""
    if not server_hash:
        return (
            f"{name} belongs to a cluster, but {server} has none, and a second one must not be founded; check that "
            f"{server} is the right host and its data directory is mounted. Where its disk is lost, bring the cluster "
            f"back with playbooks/cluster_restore.yml, or without a backup of it by {RUNBOOK}. {_kept(probe)}"
        )
    return (
        f"{name} belongs to another cluster than the one on {server}; take the host out of this inventory, or put its "
        f"k3s aside first. {_kept(probe)}"
    )


def _kept(probe: K3sProbe) -> str:
    """What the host still holds, and where it is written how to copy it away. No command: it would be pasted unread."""
    names = probe["volumes"]
    if not names:
        return f"It holds no volumes in {probe['storage']}; {RUNBOOK} says how to put k3s aside."
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"It holds {len(names)} volume{'' if len(names) == 1 else 's'} in {probe['storage']} ({shown}), which may be "
        f"the last copies of a database: {RUNBOOK} says how to copy them away, and how to put k3s aside without them."
    )


def ca_hash(token: str) -> str:
    """Return the hash of the cluster's CA that the long form of a token carries; empty for the short form."""
    match = TOKEN.fullmatch(token.strip())
    return match.group(1) if match else ""


def same_token(given: str, living: str) -> bool:
    """Whether a token from the inventory, in short or long form, is the server token of the living cluster."""
    match_given, match_living = TOKEN.fullmatch(given.strip()), TOKEN.fullmatch(living.strip())
    if match_given and match_living and match_given.group(1) != match_living.group(1):
        return False
    return _password(match_given.group(2) if match_given else given) == _password(
        match_living.group(2) if match_living else living
    )


def _password(credentials: str) -> str:
    return credentials.strip().rsplit(":", 1)[-1]


def mark(token: str) -> str:
    """Return a hash by which two tokens are compared; a slow one, since a person may have chosen a short password."""
    salt = b"abaci.infra"
    return hashlib.scrypt(token.encode(), salt=salt, n=2**14, r=8, p=1, dklen=16).hex() if token else ""


# --- k3s's own certificates -------------------------------------------------------------------------------------------
# They last a year. A start renews those that end within 120 days, or 90 with releases before May 2025.

RENEW_S = 30 * 86400
WINDOW_S = 90 * 86400


def renewal(probe: K3sProbe) -> str:
    """Return the day on which k3s's certificates end, where that is soon and a restart renews them; else nothing."""
    ends = probe["certificates_end"]
    soon = ends is not None and ends - probe["now"] < RENEW_S
    return _day(ends) if ends is not None and soon and probe["started"] < ends - WINDOW_S else ""


def renewal_note(report: Report) -> str:
    """Return what to know of certificates that end soon although k3s had the occasion to renew them; mostly nothing."""
    probe = report["probe"]["k3s"]
    ends = probe["certificates_end"]
    if ends is None or ends - probe["now"] >= RENEW_S or renewal(probe):
        return ""
    unit = "k3s" if report["name"] in report["desired"]["k3s"]["servers"] else "k3s-agent"
    return (
        f"k3s's own certificates end on {_day(ends)}, and its last start did not renew them; on the host: systemctl "
        f"stop {unit}; k3s certificate rotate; systemctl start {unit}."
    )


def _ended(probe: K3sProbe) -> str:
    """Why nothing can be asked of a cluster whose certificates have ended: k3s itself renews them, when it starts."""
    ends = probe["certificates_end"]
    if ends is None or ends > probe["now"] or not probe["active"]:
        return ""
    return (
        f"k3s's own certificates ended on {_day(ends)}, so nobody is let in any more; k3s renews them when it starts: "
        "systemctl restart k3s on the server, then systemctl restart k3s-agent on the agents, then site.yml --tags k3s "
        "for the new kubeconfig, then site.yml."
    )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


# --- kubeconfig ------------------------------------------------------------------------------------------------------
# k3s writes its own as YAML or JSON, always of one form, and a host need not have a reader for YAML: patterns it is.

SERVER = re.compile(r'(\bserver"?:\s*)"?https?://[^\s",}]+"?')
AUTHORITY = re.compile(r'certificate-authority-data"?:\s*"?([A-Za-z0-9+/=]+)')


def kubeconfig_for(text: str, server: str) -> str:
    """Return the server's own kubeconfig with the address under which the reader reaches the API."""
    return SERVER.sub(lambda match: f'{match.group(1)}"{server}"', text)


def kubeconfig_ca(text: str) -> str:
    """Return the hash of the CA of a kubeconfig's first cluster, as the long form of a token has it; empty: none."""
    match = AUTHORITY.search(text)
    return hashlib.sha256(base64.b64decode(match.group(1))).hexdigest() if match else ""


def kubeconfig_facts(path: str, mode: str, text: str, document: Any) -> Kubeconfig:
    """Return what the decisions need to know of a kubeconfig; ``document`` is its text as YAML reads it."""
    clusters = document.get("clusters") if isinstance(document, Mapping) else None
    readable = isinstance(clusters, list) and all(isinstance(entry, Mapping) for entry in clusters)
    return {
        "path": path,
        "mode": mode,
        "sha256": hashlib.sha256(text.encode()).hexdigest() if document else "",
        "clusters": len(clusters or []) if readable else -1,
        "ca_hash": _ca(clusters[0]) if readable and clusters else "",
    }


def kubeconfig_refusal(existing: Kubeconfig, living: str) -> str:
    """Return why an existing kubeconfig must not be overwritten; empty where it is ours or there is none.

    It is ours when it holds one cluster and the hash of its CA is ``living``, that of the cluster on the server (empty:
    there is none yet, so the file is somebody else's). Addresses and client certificates may change.
    """
    if not existing["sha256"]:
        return ""
    path, way_out = existing["path"], "move it away, or set k3s_kubeconfig to another path."
    if existing["clusters"] < 0:
        return f"{path} (k3s_kubeconfig) exists and is no kubeconfig; {way_out}"
    if existing["clusters"] > 1:
        return f"{path} (k3s_kubeconfig) holds {existing['clusters']} clusters and would be overwritten; {way_out}"
    if existing["clusters"] and existing["ca_hash"] != living:
        return (
            f"{path} (k3s_kubeconfig) is the kubeconfig of another cluster than the inventory's and is left as it is; "
            f"{way_out}"
        )
    return ""


def _ca(entry: Mapping[str, Any]) -> str:
    cluster = entry.get("cluster")
    data = str(cluster.get("certificate-authority-data", "")) if isinstance(cluster, Mapping) else ""
    try:
        return hashlib.sha256(base64.b64decode(data, validate=True)).hexdigest() if data else "none"
    except ValueError:
        return "none"


# --- waiting ---------------------------------------------------------------------------------------------------------


def nodes_not_ready(nodes: Iterable[Part], wanted: Mapping[str, float], version: str) -> dict[str, str]:
    """Return, by node name, what is still missing; empty when every wanted node is Ready in the wanted version.

    ``wanted`` maps a node's name to when its kubelet was started (seconds since the epoch, that node's clock): a Ready
    that was reported before is the one from the last life of the kubelet. A cordoned node counts as ready.
    """
    by_name = {node["metadata"]["name"]: node for node in nodes}
    missing = {}
    for name, since in wanted.items():
        node = by_name.get(name)
        if node is None:
            missing[name] = "the node has not registered"
            continue
        ready = conditions.condition(node, "Ready")
        reported = clock.moment(ready.get("lastHeartbeatTime"))
        running = node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
        if ready.get("status") != "True":
            missing[name] = f"the node is not Ready ({ready.get('message') or ready.get('reason') or 'no report yet'})"
        elif reported is None or reported.timestamp() < int(since):
            missing[name] = "the node has not reported since its kubelet was started"
        elif running and version and _kubernetes(running) != _kubernetes(version):
            missing[name] = f"the node runs {running} instead of {version}"
    return missing


def _kubernetes(version: str) -> str:
    return version.split("+", 1)[0]


def likely_cause(journal: str) -> str:
    """Return the line of a service's journal that tells most: the last fatal one, else the last error, or the last.

    The one of a rejected node is told in our words, since k3s advises another name, which would cut off the volumes.
    """
    lines = [line.strip() for line in journal.splitlines() if line.strip() and not line.startswith("modprobe:")]
    for pattern in (r"level=fatal|\bFATAL\b|^F\d{4} ", r"level=error|\bERROR\b|^E\d{4} |panic:|[Ee]rror:"):
        for line in reversed(lines):
            if re.search(pattern, line):
                return _message(line)
    return _message(lines[-1]) if lines else ""


def _message(line: str) -> str:
    if "Node password rejected" in line:
        return f"{REJECTED} ({ANEW})"
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    text = match.group(1).replace('\\"', '"') if match else line
    return text[:400]
