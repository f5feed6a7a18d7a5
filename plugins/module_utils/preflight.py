"""Decisions about hosts, before anything on them is changed: reports in (node_types), sentences out, no I/O.

Every function returns all the errors it finds, so that one run names them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .node_types import FuseProbe, HostDesired, Listener, Probe, Report
from .wording import listed, said

CGROUP_V1_REFUSED_FROM = (1, 35)
# A node's name is also the value of its label kubernetes.io/hostname, which 63 characters bound.
NODE_NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# Units whose processes may hold the cluster's own ports: k3s itself and the pods that it runs.
OWN_UNITS = ("k3s.service", "k3s-agent.service", "kubepods")


def host_errors(reports: Iterable[Report]) -> list[str]:
    """Return one sentence for each thing that is wrong on a host or between hosts; an empty list means go."""
    reports = list(reports)
    found = by_text(
        {report["name"]: [text for texts in by_topic(report).values() for text in texts] for report in reports}
    )
    return found + [text for texts in between(reports).values() for text in texts]


def host_notes(reports: Iterable[Report]) -> list[str]:
    """Return what may be right and often is not: a firewall on a host lets pass only what somebody opened."""
    return by_text({report["name"]: firewall_notes(report) for report in reports})


def firewall_notes(report: Report) -> list[str]:
    """Return one sentence for each firewall that filters on a host."""
    if report["reason"] or "host" not in report["desired"]:
        return []
    return [
        f"{name} filters here, and closed ports between hosts show late, as pods that do not get ready; "
        'docs/operations.md, "Ports between the hosts", lists what has to be open.'
        for name in report["probe"]["firewalls"]
    ]


def by_text(found: Mapping[str, Iterable[str]]) -> list[str]:
    """Return each sentence once, behind the names of all hosts that it is about."""
    names: dict[str, list[str]] = {}
    for name, texts in found.items():
        for text in texts:
            names.setdefault(text, []).append(name)
    return [f"{', '.join(hosts)}: {text}" for text, hosts in names.items()]


def by_topic(report: Report) -> dict[str, list[str]]:
    """Return what is wrong on a host, by what it is about; no topic is there for nothing."""
    if report["reason"]:
        return {"reached": [_unreachable(report)]}
    probe = report["probe"]
    fuse = fuse_error(probe["fuse"], probe["kernel"])
    if "host" not in report["desired"]:
        return {"fuse": [fuse]} if fuse and "fuse" in report["desired"] else {}
    desired = report["desired"]["host"]
    found = {
        "system": _system(probe, desired),
        "name": [_name(report)],
        "cgroup": [_cgroup(probe, desired)],
        "ports": _ports(probe, desired),
        "size": _size(probe, desired),
        "route": [_route(probe)],
        "time": [_time(probe, desired)],
        "fuse": [fuse if desired["fuse_required"] else ""],
    }
    told = {topic: [text for text in texts if text] for topic, texts in found.items()}
    return {topic: texts for topic, texts in told.items() if texts}


def between(reports: Iterable[Report]) -> dict[str, list[str]]:
    """Return what is wrong between hosts, by what it is about."""
    asked = [report for report in reports if "host" in report["desired"]]
    addresses, hostnames = _same_twice(asked)
    return {"address": addresses, "name": hostnames, "clock": clock_errors(asked)}


def _unreachable(report: Report) -> str:
    desired = report["desired"].get("host")
    where = f" at {desired['address']}" if desired else ""
    return (
        f"the host cannot be reached{where} ({said(report['reason'])}); check that it runs and that ansible_host, "
        "ansible_port, ansible_user and its SSH key in the inventory are right, or leave it out with "
        f"--limit 'all:localhost:!{report['name']}'."
    )


def _system(probe: Probe, desired: HostDesired) -> list[str]:
    supported = desired["supported_systems"]
    name, version = probe["os"]["id"], probe["os"]["version"]
    known = ", ".join(f"{system} {least}" for system, least in sorted(supported.items()))
    found = []
    if name not in supported:
        found.append(
            f"the operating system is {name or 'unknown'} {version}; use one of {known} or newer, "
            "or add it to host_supported_systems if it has apt and you know that it works."
        )
    elif _numbers(version) < _numbers(supported[name]):
        found.append(
            f"the operating system is {name} {version}; upgrade it to {supported[name]} or newer "
            "(host_supported_systems holds the oldest that is allowed)."
        )
    if not probe["systemd"]:
        found.append(
            "the host was not started by systemd, which k3s's service needs; use a host with systemd as PID 1."
        )
    return found


def node_name(report: Report) -> str:
    """Return the name under which the host is, or would be, a node, as the inventory writes it."""
    desired = report["desired"]
    given = desired["k3s"]["node_name"] if "k3s" in desired else ""
    # Ansible makes a number of a name that is one.
    return str(given or (desired["host"]["hostname"] if "host" in desired else "") or report["probe"]["hostname"])


def _name(report: Report) -> str:
    """Whether Kubernetes takes the name, which k3s writes in lower case."""
    given = "k3s" in report["desired"] and report["desired"]["k3s"]["node_name"]
    name = node_name(report)
    if NODE_NAME.fullmatch(name.lower()):
        return ""
    labels = (re.sub(r"[^a-z0-9]+", "-", label).strip("-") for label in name.lower().split("."))
    fitting = ".".join(label for label in labels if label)[:63].rstrip("-.") or "node"
    cure = f"set node-name: {fitting} in k3s_node_config" if given else f"set host_hostname: {fitting} for it"
    return (
        f"Kubernetes takes no node of the name {name} (letters and digits, hyphens and dots between them, at most 63 "
        f"characters); {cure}."
    )


def _cgroup(probe: Probe, desired: HostDesired) -> str:
    version = _numbers(desired["k3s_version"])[:2]
    refused = not version or version >= CGROUP_V1_REFUSED_FROM
    if probe["cgroup"] == 2 or not refused or desired["cgroup_v1_allowed"]:
        return ""
    return (
        f"the host uses cgroup v1, which the kubelet of {desired['k3s_version'] or 'newer k3s versions'} refuses; "
        "boot it with systemd.unified_cgroup_hierarchy=1, or set host_cgroup_v1_allowed: true together with "
        "k3s_kubelet_config: {failCgroupV1: false}."
    )


def _ports(probe: Probe, desired: HostDesired) -> list[str]:
    wanted = [int(port) for port in desired["ports"]]
    if desired["server"]:
        wanted += [int(port) for port in desired["server_ports"]]
    found = []
    for port in sorted(set(wanted)):
        holders = sorted(
            {
                _holder(listener)
                for listener in probe["listeners"]
                if listener["port"] == port and not any(unit in listener["unit"] for unit in OWN_UNITS)
            }
        )
        if holders:
            found.append(
                f"port {port} is taken by {', '.join(holders)}; stop and disable that service, "
                "since the cluster needs the port on this host (host_ports, host_server_ports)."
            )
    return found


def _holder(listener: Listener) -> str:
    unit = listener["unit"].rsplit("/", 1)[-1]
    process = listener["process"] or "an unknown process"
    return f"{process} ({unit})" if unit else process


def _size(probe: Probe, desired: HostDesired) -> list[str]:
    found = []
    if probe["memory_mb"] < int(desired["min_memory_mb"]):
        found.append(
            f"the host has {probe['memory_mb']} MB of memory; give it at least {int(desired['min_memory_mb'])} MB, "
            "or lower host_min_memory_mb."
        )
    # Only before the first install: a host that already holds its images and data has the space it was asked for.
    if not probe["k3s_installed"] and probe["disk_free_mb"] < int(desired["min_disk_mb"]):
        found.append(
            f"{probe['disk_path']} has {probe['disk_free_mb']} MB free; make room for at least "
            f"{int(desired['min_disk_mb'])} MB, or lower host_min_disk_mb."
        )
    return found


def _route(probe: Probe) -> str:
    if probe["default_route"]:
        return ""
    return (
        "the host has no default route, and k3s finds its own address by it; add one "
        "(on an isolated network a route through a dummy interface is enough)."
    )


def _time(probe: Probe, desired: HostDesired) -> str:
    if desired["time_sync"] != "existing" or probe["clock_synchronised"]:
        return ""
    return (
        "host_time_sync is existing, but the kernel says that nothing keeps the clock synchronised; start the time "
        "service that you use, or set host_time_sync: chrony."
    )


def fuse_error(fuse: FuseProbe, kernel: str) -> str:
    """Return why no FUSE file system can be mounted on a host, or an empty string where one can (or could be)."""
    if not fuse["in_kernel"] and not fuse["module"]:
        return (
            f"the kernel {kernel} has neither FUSE built in nor a fuse module, and LiteFS needs it; install "
            "the distribution's full kernel package (on Ubuntu linux-modules-extra), or use another host."
        )
    if fuse["in_kernel"] and not fuse["device"]:
        return (
            "/dev/fuse does not exist although the kernel knows FUSE, and LiteFS needs it; in a container pass "
            "--device /dev/fuse, on a machine run mknod /dev/fuse c 10 229."
        )
    return ""


def _same_twice(reports: list[Report]) -> tuple[list[str], list[str]]:
    """(hosts of one address, other hosts of one name)."""
    found: list[str] = []
    alike: list[str] = []
    hostnames: dict[str, list[str]] = {}
    addresses: dict[str, list[str]] = {}
    for report in reports:
        desired = report["desired"]["host"]
        addresses.setdefault(desired["address"], []).append(report["name"])
        if not report["reason"]:
            hostname = desired["hostname"] or report["probe"]["hostname"]
            hostnames.setdefault(hostname.lower(), []).append(report["name"])
    for address, names in addresses.items():
        if len(names) > 1:
            found.append(
                f"{listed(names)} have the same address {address} in the inventory; correct ansible_host of one of "
                "them."
            )
    twice = {name for names in addresses.values() if len(names) > 1 for name in names}
    for hostname, names in hostnames.items():
        if len(names) > 1 and not set(names) <= twice:
            alike.append(
                f"{listed(names)} all have the host name {hostname}, and the cluster can hold only one node of a name; "
                "set host_hostname for them, or rename one with hostnamectl set-hostname."
            )
    return found, alike


def clock_errors(reports: Iterable[Report]) -> list[str]:
    """Return one sentence where two clocks surely differ by more than desired; hosts of chrony are left out.

    ``probe["clock"]`` is the interval [least, most] in seconds that holds the host's offset from the controller: what
    a slow connection adds widens the interval, and only a gap between two intervals counts as a difference.
    """
    clocks = [
        (report["name"], report["probe"]["clock"], float(report["desired"]["host"]["clock_skew_max"]))
        for report in reports
        if not report["reason"] and report["desired"]["host"]["time_sync"] != "chrony"
    ]
    if len(clocks) < 2:
        return []
    ahead = max(clocks, key=lambda entry: float(entry[1][0]))
    behind = min(clocks, key=lambda entry: float(entry[1][1]))
    gap = ahead[1][0] - behind[1][1]
    if gap <= min(entry[2] for entry in clocks):
        return []
    return [
        f"the clock of {ahead[0]} is at least {gap:.1f} s ahead of that of {behind[0]}, and the site needs one time; "
        "set host_time_sync: chrony, or repair the time service on both (host_clock_skew_max holds the limit)."
    ]


def _numbers(version: object) -> tuple[int, ...]:
    """The leading numbers of a version: v1.36.4+k3s1 is (1, 36, 4)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", str(version))
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()
