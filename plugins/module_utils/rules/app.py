"""The rules of the role app."""

from __future__ import annotations

import ipaddress
import re
import shlex

from ..values import domain_problems
from . import Look, Values, missing_files

# Of other roles, with what counts where nobody sets them.
OTHERS = {"traefik_trusted_proxies": [], "traefik_flyreplay": True, "keel_state": "present"}

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_PATH = re.compile(r"/[^\s`\"'\\{}]*")
_DATABASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?<!-wal)(?<!-shm)(?<!-journal)(?<!-pos)(?<!-lock)")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?([EPTGMK]i|[EPTGMk])")
# What a container may ask for, as the API takes it.
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?")
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9._/-]+(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_CURVES = ("X25519MLKEM768", "X25519", "CurveP256", "CurveP384", "CurveP521")
_YEAR = 31536000
_LEAST = {
    **dict.fromkeys(("app_hsts_seconds", "app_rate_average", "app_client_ip_depth", "app_primary_ordinal"), 0),
    **dict.fromkeys(("app_rate_burst", "app_in_flight", "app_socket_in_flight", "app_static_in_flight"), 1),
    **dict.fromkeys(("app_answer_timeout", "app_image_pull_timeout", "app_replicas"), 1),
}
# What k3s itself runs in these would be cut off by the namespace's policies.
_CLUSTERS_OWN = ("kube-system", "kube-public", "kube-node-lease")
# What the application must not be told: LiteFS and the pod set it, or a variable of its own does.
_RESERVED = {
    "HOSTNAME": "app_listen_address is what the application alone finds there",
    "POD_NAME": "the pod's own name decides who is primary",
    "POD_IP": "the pod's own address stands there",
    "LITEFS_CANDIDATE": "it is set by who is primary",
    "LITEFS_CLOUD_TOKEN": "it alone makes LiteFS overwrite its data from a backup",
    "PORT": "it is app_port",
    "DATABASE_URL": "it is made from app_database_url_prefix and app_database",
}


def errors(values: Values, look: Look) -> list[str]:
    """See the package."""
    return (
        _names(values)
        + _commands(values)
        + _pod(values)
        + _environment(values)
        + _paths_and_ports(values)
        + _limits(values)
        + _shown(values)
        + _certificate(values, look)
        + _edge(values)
        + _domains(values)
    )


def _covers(pattern: str, path: str) -> bool:
    """Whether LiteFS takes the path for one of the pattern: * stands for anything, a / too (http/proxy_server.go)."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None


def _is_entry(address: object, names: object) -> bool:
    """Whether it is one for /etc/hosts: an address, and a list of host names."""
    try:
        ipaddress.ip_address(str(address))
    except ValueError:
        return False
    return isinstance(names, list) and bool(names) and all(_HOST.fullmatch(str(name)) for name in names)


def _names(values: Values) -> list[str]:
    found = []
    allowed = "use lower case letters, digits and hyphens, at most 42 characters."
    if not _LABEL.fullmatch(str(values["app_name"])):
        found.append(f"app_name {values['app_name']} is no name for Kubernetes objects: {allowed}")
    if not _LABEL.fullmatch(str(values["app_namespace"])):
        found.append(f"app_namespace {values['app_namespace']} is no namespace: {allowed}")
    if values["app_namespace"] in _CLUSTERS_OWN:
        found.append(f"app_namespace {values['app_namespace']} is the cluster's own: name one for the site.")
    if not _IMAGE.fullmatch(str(values["app_image"])):
        found.append(
            f"app_image ({values['app_image']}) is no name of an image: write it as ghcr.io/owner/name:tag or with "
            "@sha256: and 64 digits, without https://, spaces and capitals in its path."
        )
    by_tag = values["app_image_pull_policy"] == "IfNotPresent" and "@" not in str(values["app_image"])
    if by_tag and values["keel_state"] == "present":
        found.append(
            f"app_image_pull_policy is IfNotPresent, with which a tag ({values['app_image']}) never moves on a node "
            "that has it, so that after an update by Keel the nodes would run two builds on one database: set "
            "keel_state to absent, or name a digest."
        )
    if not _SIZE.fullmatch(str(values["app_storage_size"])):
        found.append(f"app_storage_size {values['app_storage_size']} is no size: write it as 5Gi.")
    if not _DATABASE.fullmatch(str(values["app_database"])):
        found.append(
            f"app_database {values['app_database']} is no file name for a database: use letters, digits, dots, hyphens "
            "and underscores, and none of the endings -wal, -shm, -journal, -pos, -lock."
        )
    return found


def _commands(values: Values) -> list[str]:
    found = []
    if not str(values["app_command"]).strip():
        found.append("app_command is empty: set it to the command that starts the application.")
    if not re.fullmatch(r"[0-9A-Fa-f:.]*", str(values["app_listen_address"])):
        found.append(
            f"app_listen_address {values['app_listen_address']} is no address: use 0.0.0.0, or :: where pods have IPv6 "
            "addresses only, or leave it empty."
        )
    if re.search(r"[$\n]", f"{values['app_command']}{values['app_migrate_command']}"):
        found.append(
            "app_command or app_migrate_command has a $ or a line break in it: LiteFS expands $ before it runs "
            "anything, so put the command into a script in the image."
        )
    return found


def _operator(command: str) -> str:
    """What of a shell stands in the command outside quotes, "a quote that is not closed" for that; "" for nothing."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.commenters = ""
    try:
        return next((word for word in words if word and set(word) <= set("();<>|&")), "")
    except ValueError:
        return "a quote that is not closed"


def _pod(values: Values) -> list[str]:
    """What only the API would refuse, when half of the site is there."""
    found = []
    for name in ("app_command", "app_migrate_command"):
        if what := _operator(str(values[name])):
            found.append(
                f"{name} has {what} in it: LiteFS runs it without a shell and would drop the rest, so put it into a "
                "script in the image, or into sh -c '...'."
            )
    resources = values["app_resources"]
    if strange := [str(key) for key in resources if key not in ("requests", "limits")]:
        found.append(f"app_resources has {', '.join(strange)}: it takes requests and limits.")
    for part in ("requests", "limits"):
        given = resources.get(part, {})
        if not isinstance(given, dict):
            found.append(f"app_resources.{part} is {given}: write a dictionary, such as {{memory: 1Gi}}.")
            continue
        bad = [f"{key}: {value}" for key, value in given.items() if not _QUANTITY.fullmatch(str(value))]
        if bad:
            found.append(
                f"app_resources.{part} has {', '.join(bad)}: write 500m or 2 for cpu, 512Mi or 1Gi for memory."
            )
    grace, pause = values["app_termination_grace_seconds"], values["app_pre_stop_seconds"]
    if pause < 0 or grace <= pause:
        found.append(
            f"app_termination_grace_seconds ({grace}) has to be more than app_pre_stop_seconds ({pause}, at least 0), "
            "or the application is killed before it is told to end."
        )
    volumes = [str(volume.get("name")) for volume in values["app_volumes"]]
    lost = [str(one.get("name")) for one in values["app_volume_mounts"] if str(one.get("name")) not in volumes]
    if lost:
        found.append(f"app_volume_mounts names {', '.join(lost)}, which app_volumes has not: add it there.")
    if any(not str(one.get("mountPath", "")).startswith("/") for one in values["app_volume_mounts"]):
        found.append("app_volume_mounts has an entry without a mountPath that begins with /: say where it goes.")
    odd = [f"{key}: {value}" for key, value in values["app_node_selector"].items() if not isinstance(value, str)]
    if odd:
        found.append(f'app_node_selector has {", ".join(odd)}: labels are text, so put the value into quotes ("true").')
    if values["app_registry_token"] != str(values["app_registry_token"]).strip():
        found.append("app_registry_token begins or ends with white space, which no registry takes: remove it.")
    return found


def _environment(values: Values) -> list[str]:
    found = []
    nested = [
        str(name) for name, value in values["app_env"].items() if value is None or isinstance(value, (list, dict))
    ]
    if nested:
        found.append(
            f"app_env has {', '.join(nested)} with nothing, a list or a dictionary in it: what stands in the "
            "environment is text, so write it in quotes."
        )
    env, secrets, removed = values["app_env"], values["app_secrets"], values["app_secrets_removed"]
    names = [*env, *(name for name in [*secrets, *values["app_url_env"]] if name not in env)]
    reserved = [f"{name}, because {why}" for name, why in _RESERVED.items() if name in names]
    if reserved:
        found.append(f"app_env, app_secrets and app_url_env may not set {'; nor '.join(reserved)}.")
    if values["app_use_redis"] and "REDIS_URL" in names:
        found.append(
            "app_env or app_secrets sets REDIS_URL while app_use_redis is true: set app_use_redis to false to "
            "use another Redis."
        )
    both = [name for name in env if name in secrets]
    if both:
        found.append(f"app_env and app_secrets both set {', '.join(both)}: keep it in one of them.")
    bad = [str(name) for name in names if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name))]
    if bad:
        found.append(
            f"app_env, app_secrets or app_url_env has a name that is no environment variable: {', '.join(bad)}."
        )
    kept = [str(name) for name in removed if name in secrets]
    if kept:
        found.append(f"app_secrets_removed names {', '.join(kept)}, which app_secrets has: keep it in one.")
    return found


def _paths_and_ports(values: Values) -> list[str]:
    found = []
    if not all(_PATH.fullmatch(str(values[name])) for name in ("app_health_path", "app_verify_path")):
        found.append("app_health_path and app_verify_path have to begin with / and may hold neither spaces nor quotes.")
    sockets = [str(path) for path in values["app_socket_paths"] if not _PATH.fullmatch(str(path)) or path == "/"]
    if sockets:
        found.append(
            f"app_socket_paths has {', '.join(sockets)}: name prefixes of WebSockets that begin with / and hold "
            "neither spaces nor quotes, and not the whole site, which would take every request away from LiteFS."
        )
    strange = [str(path) for path in values["app_forward_paths"] if not re.fullmatch(r"[/*]\S*", str(path))]
    if strange:
        found.append(
            f"app_forward_paths has an entry that is no path, {', '.join(strange)}: begin it with /, and use * as the "
            "only wildcard."
        )
    if any(_covers(str(path), str(values["app_health_path"])) for path in values["app_forward_paths"]):
        found.append(
            f"app_forward_paths covers app_health_path ({values['app_health_path']}), and a replica would answer "
            "for it without asking its application, so that a dead one stays in service: name the paths more narrowly."
        )
    mounts = [str(mount.get("mountPath", "")).rstrip("/") for mount in values["app_volume_mounts"]]
    taken = ["/litefs", "/var/lib/litefs", "/etc/litefs", "/identity", *mounts]
    scratch = [str(path) for path in values["app_scratch_paths"]]
    bad = [path for path in scratch if not _PATH.fullmatch(path) or path.rstrip("/") in ("", *taken)]
    if bad or len({path.rstrip("/") for path in scratch}) < len(scratch):
        found.append(
            f"app_scratch_paths has {', '.join(bad) or 'a path twice'}: name absolute directories, each once, and "
            "none that app_volume_mounts or LiteFS has."
        )
    strange = [str(address) for address, names in values["app_extra_hosts"].items() if not _is_entry(address, names)]
    if strange:
        found.append(
            f"app_extra_hosts has an entry that is none, {', '.join(strange)}: each is an IP address with a list of "
            "names, as in {192.0.2.5: [nas.example.org]}."
        )
    static = [str(path) for path in values["app_static_paths"] if not _PATH.fullmatch(str(path)) or path == "/"]
    if static:
        found.append(
            f"app_static_paths has {', '.join(static)}: name prefixes that begin with /, and not the whole site, which "
            "would have no rate limit."
        )
    ports = {values["app_port"], values["app_proxy_port"], values["app_litefs_port"]}
    if len([port for port in ports if 1 <= port <= 65535]) < 3:
        found.append("app_port, app_proxy_port and app_litefs_port have to be three different ports from 1 to 65535.")
    if not 1 <= values["app_https_port"] <= 65535:
        found.append("app_https_port has to be a port from 1 to 65535.")
    return found


def _limits(values: Values) -> list[str]:
    found = []
    if any(not rule or set(rule) - {"to", "ports"} for rule in values["app_egress"]):
        found.append(
            "app_egress has an entry that is no egress rule: each is a dictionary of to and ports, as in a "
            "NetworkPolicy."
        )
    found += [
        f"{name} is {values[name]}, and has to be at least {least}."
        for name, least in _LEAST.items()
        if values[name] < least
    ]
    long = values["app_hsts_subdomains"] and values["app_hsts_seconds"] >= _YEAR
    if values["app_hsts_preload"] and not long:
        found.append(
            f"app_hsts_preload needs app_hsts_subdomains: true and app_hsts_seconds of a year ({_YEAR}) or more; "
            "browsers' lists take no other."
        )
    return found


def _shown(values: Values) -> list[str]:
    """What Traefik would drop without a word to anybody but its log."""
    found = []
    curves = [str(curve) for curve in values["app_tls_curves"] if curve not in _CURVES]
    if curves:
        found.append(f"app_tls_curves has {', '.join(curves)}: choose among {', '.join(_CURVES)}.")
    page = str(values["app_unavailable_page"]).strip()
    if page and "<" not in page:
        found.append(
            f"app_unavailable_page ({page[:60]}) is no HTML: for a file write \"{{{{ lookup('ansible.builtin.file', "
            "'away.html') }}\"."
        )
    return found


def _certificate(values: Values, look: Look) -> list[str]:
    found = []
    text, file = str(values["app_tls_certificate"]), str(values["app_tls_certificate_file"])
    key_text, key_file = str(values["app_tls_private_key"]), str(values["app_tls_private_key_file"])
    if text and file:
        found.append("app_tls_certificate and app_tls_certificate_file are both set: keep one.")
    if values["app_tls"] == "provided" and not text and not file:
        found.append(
            "app_tls is provided, and no certificate is given: set app_tls_certificate_file and "
            "app_tls_private_key_file, or choose acme."
        )
    if bool(text) != bool(key_text) or bool(file) != bool(key_file):
        found.append(
            "A certificate needs its key: set app_tls_private_key_file with app_tls_certificate_file, or "
            "app_tls_private_key with app_tls_certificate, or neither."
        )
    missing = missing_files(values, look, "app_tls_certificate_file", "app_tls_private_key_file", "app_tls_ca_file")
    if values["app_tls"] != "provided" or not (text or file) or missing:
        return found + missing
    if "BEGIN CERTIFICATE" not in (look.text(file) if file else text):
        found.append(
            "The certificate (app_tls_certificate_file or app_tls_certificate) is not in PEM form: it has to hold "
            "BEGIN CERTIFICATE."
        )
    elif not re.search(r"BEGIN [A-Z ]*PRIVATE KEY", look.text(key_file) if key_file else key_text):
        found.append(
            "The key (app_tls_private_key_file or app_tls_private_key) is not in PEM form: it has to hold BEGIN "
            "PRIVATE KEY."
        )
    return found


def _edge(values: Values) -> list[str]:
    found = []
    upstream = values["app_tls"] == "upstream"
    if upstream and not values["traefik_trusted_proxies"]:
        found.append(
            "app_tls is upstream, and traefik_trusted_proxies is empty, so that all visitors would share one rate "
            "limit: name the addresses of the proxy there."
        )
    if values["traefik_flyreplay"] is False:
        found.append(
            "traefik_flyreplay is false, and every route names that plugin, so that all would answer 404: set it to "
            "true."
        )
    if upstream and values["app_verify"] and not values["app_edge_address"]:
        found.append(
            "app_tls is upstream, and app_edge_address is empty, since the inventory has no group k3s_server: set it "
            "to an address where Traefik answers without the proxy, or app_verify to false."
        )
    probe = values["app_write_probe"]
    needed, more = {"method", "path", "status"}, {"body", "headers"}
    if probe and (needed - set(probe) or set(probe) - needed - more):
        found.append("app_write_probe needs method, path and status (the expected one), and may have body and headers.")
    return found


def _domains(values: Values) -> list[str]:
    domain, extra = values["app_domain"], values["app_extra_domains"]
    found: list[str] = domain_problems([domain], "app_domain") + domain_problems(extra, "app_extra_domains")
    if domain in extra:
        found.append(f"app_extra_domains repeats {domain}: leave it out there.")
    strange = [name for name in values["app_redirect_domains"] if name not in extra]
    if strange:
        found.append(
            f"app_redirect_domains names {', '.join(strange)}, which app_extra_domains has not: add it there, so "
            "that the certificate has it, too."
        )
    return found
