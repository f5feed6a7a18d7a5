"""What is to be done on a host, by role and topic: reports (node_types) in, a plan out, no I/O.

A topic is a file of tasks of its role. It is in the plan only where one of its tasks would change or refuse something,
so that a host on which everything is as desired runs none of them. roles/*/tasks/changes.yml has their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from . import k3s, preflight
from .node_types import File, FuseDesired, HostDesired, Plan, Probe, Report


def errors(reports: Iterable[Report]) -> list[str]:
    """Return one sentence for each thing on the hosts or between them that ends the run before anything is changed."""
    reports = list(reports)
    return preflight.host_errors(reports) + k3s.cluster_errors(reports)


def notes(reports: Iterable[Report]) -> list[str]:
    """Return what ends no run and should be known: firewalls, and certificates of k3s that no restart renewed."""
    reports = list(reports)
    asked = [report for report in reports if "k3s" in report["desired"] and not report["reason"]]
    stuck = {report["name"]: [note] for report in asked if (note := k3s.renewal_note(report))}
    return preflight.host_notes(reports) + preflight.by_text(stuck)


def differing(desired: Iterable[Mapping[str, Any]], found: Mapping[str, File]) -> list[str]:
    """Return the topics of the files that are not as desired.

    A file is ``{"topic", "dest", "mode", "content"}``; without content any is right, which is also how a folder is
    written down. With ``absent`` it must not be there, and without ``needed`` (by default true) nobody cares.
    """
    needed = [file for file in desired if file.get("needed", True)]
    return sorted({str(file["topic"]) for file in needed if not _as_desired(file, found.get(file["dest"]))})


def _as_desired(file: Mapping[str, Any], found: File | None) -> bool:
    if file.get("absent") or found is None:
        return bool(file.get("absent")) == (found is None)
    if file["mode"] != found["mode"]:
        return False
    content = str(file.get("content") or "")
    return not content or hashlib.sha256(content.encode()).hexdigest() == found["sha256"]


def plan(report: Report, server: Report | None) -> Plan:
    """Return what is to be done on one host; ``server`` is the report of its cluster's server, None without it."""
    desired, probe, files = report["desired"], report["probe"], report["differing"]
    if server is not None and "k3s" not in server["probe"]:
        server = None  # it was asked for another role last
    made: Plan = {"host": [], "fuse": [], "k3s": [], "fetch": [], "links": [], "renew": ""}
    if "host" in desired:
        made["host"] = _host(desired["host"], probe, files["host"])
    if "fuse" in desired:
        made["fuse"] = _fuse(desired["fuse"], probe, files["fuse"])
    if "k3s" in desired:
        made["fetch"] = k3s.lacking(probe["k3s"], desired["k3s"])
        made["links"] = [name for name, state in probe["k3s"]["links"].items() if state == "absent"]
        made["renew"] = k3s.renewal(probe["k3s"])
        made["k3s"] = _k3s(report, server, made)
    return made


def _chosen(topics: Mapping[str, bool]) -> list[str]:
    return [topic for topic, needed in topics.items() if needed]


def _host(desired: HostDesired, probe: Probe, files: list[str]) -> list[str]:
    wanted = {name: " ".join(str(value).split()) for name, value in desired["sysctl"].items()}
    entries = [f"{address} {name}" for name, address in sorted(desired["entries"].items())]
    hostname = desired["hostname"]
    chrony = probe["services"].get("chrony", {"active": "", "enabled": ""})
    runs = (chrony["active"], chrony["enabled"]) == ("active", "enabled")
    return _chosen(
        {
            "packages": _missing(desired["packages"], probe),
            "names": hostname not in ("", probe["hostname"]) or (bool(entries) and entries != probe["hosts_block"]),
            "sysctl": "sysctl" in files or any(probe["sysctl"].get(name) != value for name, value in wanted.items()),
            "swap": desired["swap"] == "off" and (bool(probe["swaps"]) or probe["fstab_swap"]),
            "chrony": desired["time_sync"] == "chrony"
            and ("chrony" in files or not runs or not probe["clock_synchronised"]),
        }
    )


def _fuse(desired: FuseDesired, probe: Probe, files: list[str]) -> list[str]:
    fuse = probe["fuse"]
    topics = _chosen(
        {
            "packages": _missing(desired["packages"], probe),
            "module": fuse["module"] and ("module" in files or not fuse["in_kernel"]),
            "device": fuse["device"] != desired["device_mode"] or (fuse["udev"] and "device" in files),
        }
    )
    # A mount that worked is the proof, unless something is changed after it; None is check mode, which mounts nothing.
    return [*topics, "mount"] if topics or fuse["mounted"] is False else []


def _missing(packages: list[str], probe: Probe) -> bool:
    return not set(packages).isdisjoint(probe["packages_missing"])


def _k3s(report: Report, server: Report | None, made: Plan) -> list[str]:
    probe, desired, files = report["probe"]["k3s"], report["desired"]["k3s"], report["differing"]["k3s"]
    name = report["name"]
    is_server = name in desired["servers"]
    unit = "k3s" if is_server else "k3s-agent"
    lacking = {file["variable"] for file in made["fetch"]}
    token = "token" in files
    if not is_server:
        token = token or server is None or probe["token_mark"] != server["probe"]["k3s"]["token_mark"]
    changes = {
        "binary": "k3s_checksum" in lacking,
        "images": "k3s_images_checksum" in lacking or "images" in files,
        "links": bool(made["links"]),
        "token": token,
        "configure": "configure" in files,
    }
    service = any(changes.values()) or bool(made["renew"]) or not _runs(report, unit, server)
    # A server that starts may renew the certificate in its own.
    return _chosen(
        {**changes, "service": service, "kubeconfig": is_server and (service or not _kubeconfig_is_there(report))}
    )


def _kubeconfig_is_there(report: Report) -> bool:
    here, own = report["kubeconfig"], report["probe"]["k3s"]["kubeconfig_sha256"]
    return bool(own) and (here["sha256"], here["mode"]) == (own, "0600")


def _runs(report: Report, unit: str, server: Report | None) -> bool:
    """Whether the service runs with what is on disk, comes back at boot, and the server says that the node is Ready."""
    probe, desired = report["probe"]["k3s"], report["desired"]["k3s"]
    service = report["probe"]["services"][unit]
    if (service["active"], service["enabled"]) != ("active", "enabled") or probe["stale_inputs"] or server is None:
        return False
    # A server that was restarted meanwhile is asked again.
    if server["name"] != report["name"] and "service" in plan(server, server)["k3s"]:
        return False
    node = desired["node_name"] or probe["node_name"]
    return not k3s.nodes_not_ready(server["probe"]["k3s"]["nodes"], {node: probe["started"]}, desired["version"])
