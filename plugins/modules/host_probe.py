#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host: everything that the roles host, fuse and k3s decide by, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_probe
short_description: Observe a host once, for all roles that run on it
description:
  - Reads what the roles C(host), C(fuse) and C(k3s) decide by (system, ports, memory, packages, kernel settings, files,
    services, FUSE, k3s) and changes nothing. Each role asks by an option of its name.
  - An action plugin of the same name adds what only the controller can tell. It compares the files with the content
    that they should have, which is not sent to the host, and bounds how far the host's clock is off.
  - The result is the report that the filters C(node_findings) and C(node_plan) read.
options:
  name:
    description: The host's name in the inventory, for sentences.
    type: str
    default: ""
  host:
    description: What the role C(host) asks.
    type: dict
    suboptions:
      disk_path:
        description: Path whose file system has to have room; its nearest existing parent is measured.
        type: path
        default: /var/lib
      sysctl:
        description: Names of kernel settings to read.
        type: list
        elements: str
        default: []
      packages: &packages
        description: Debian package names; those that are not installed come back in C(probe.packages_missing).
        type: list
        elements: str
        default: []
      services:
        description: Names of systemd units.
        type: list
        elements: str
        default: []
      files: &files
        description: Files and folders with C(topic), C(dest), C(mode) and C(content); empty is any content.
        type: list
        elements: dict
        default: []
      desired: &desired
        description: What the role is asked for, returned for the decisions. Handled by the action plugin.
        type: dict
        default: {}
  fuse:
    description: What the role C(fuse) asks. With it a FUSE file system is mounted for a moment, but not in check mode.
    type: dict
    suboptions:
      packages: *packages
      files: *files
      desired: *desired
  k3s:
    description: What the role C(k3s) asks.
    type: dict
    suboptions:
      files: *files
      desired: *desired
      data_dir:
        description: k3s's data directory.
        type: path
        default: /var/lib/rancher/k3s
      storage_dir:
        description: Where local-path keeps the volumes; empty is C(storage) in the data directory.
        type: path
        default: ""
      token:
        description: Token of the inventory, to compare with the living cluster's; empty compares nothing.
        type: str
        default: ""
      links:
        description: Names of further commands that k3s can be.
        type: list
        elements: str
        default: []
      kubeconfig:
        description: On a server, where it writes its own kubeconfig; empty on an agent.
        type: path
        default: ""
      kubeconfig_server:
        description: Where the controller reaches the API.
        type: str
        default: ""
      kubeconfig_here:
        description: The kubeconfig on the controller. Handled by the action plugin.
        type: path
        default: ""
  clock_timeout:
    description: Seconds to wait until the clock is synchronised; the look at everything else comes after it.
    type: int
    default: 0
  keep_going:
    description:
      - Return why in RV(reason) for a host that cannot be reached, instead of ending the play.
      - Handled by the action plugin.
    type: bool
    default: false
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Observe the host
  abaci.infra.host_probe:
    name: "{{ inventory_hostname }}"
    host:
      sysctl: [vm.overcommit_memory]
      packages: [chrony]
  register: __host_observed
"""

RETURN = r"""
name:
  description: As it was given.
  returned: always
  type: str
reason:
  description: Why the host cannot be reached; empty where it can be.
  returned: always
  type: str
desired:
  description: What each role is asked for, by its name.
  returned: always
  type: dict
probe:
  description: What was observed; empty for a host that cannot be reached.
  returned: always
  type: dict
differing:
  description: By role, the topics with a file that is not as desired.
  returned: always
  type: dict
kubeconfig:
  description: What is known of the kubeconfig on the controller.
  returned: always
  type: dict
folder:
  description: SHA-256 by path of the files that the host would get from a folder of the controller.
  returned: always
  type: dict
"""

import ctypes
import glob
import os
import platform
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import fuse_mount, k3s_observe
from ansible_collections.abaci.infra.plugins.module_utils.k3s_observe import read
from ansible_collections.abaci.infra.plugins.module_utils.node_types import File, FuseProbe, Listener, Service, System
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell

TCP_LISTEN = "0A"
STA_UNSYNC = 0x0040
# Around the names that the role host writes into /etc/hosts
BLOCK = re.compile(r"^# BEGIN abaci\.infra\n(.*?)^# END abaci\.infra$", re.MULTILINE | re.DOTALL)
# As roles/host/tasks/swap.yml has it
SWAP = re.compile(r"^([ \t]*[^#\s]\S*[ \t]+\S+[ \t]+swap([ \t].*)?)$", re.MULTILINE)


def os_release() -> System:
    values = dict(re.findall(r'^(\w+)="?(.*?)"?$', read("/etc/os-release"), re.MULTILINE))
    return {"id": values.get("ID", ""), "version": values.get("VERSION_ID", "")}


def cgroup_version() -> int:
    for line in read("/proc/mounts").splitlines():
        fields = line.split()
        if fields[1] == "/sys/fs/cgroup":
            return 2 if fields[2] == "cgroup2" else 1
    return 1


def memory_mb() -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def disk_free_mb(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free // (1024 * 1024)


def default_route() -> bool:
    routes4 = [line.split() for line in read("/proc/net/route").splitlines()[1:]]
    if any(len(route) > 7 and route[1] == "00000000" and route[7] == "00000000" for route in routes4):
        return True
    routes6 = [line.split() for line in read("/proc/net/ipv6_route").splitlines()]
    return any(route[0] == "0" * 32 and route[1] == "00" and route[9] != "lo" for route in routes6 if len(route) > 9)


def clock_synchronised() -> bool:
    """Whether the kernel considers its clock synchronised, whichever service does it (adjtimex without modes)."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(512)
    if libc.adjtimex(buffer) < 0:
        return False
    # struct timex: unsigned modes, then longs offset, freq, maxerror, esterror, then int status.
    long = ctypes.sizeof(ctypes.c_long)
    status = ctypes.c_int.from_buffer(buffer, long * 5).value
    return not status & STA_UNSYNC


def listeners() -> list[Listener]:
    """Return the TCP ports that something listens on, with the process and its systemd unit."""
    ports: dict[str, int] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(path).splitlines()[1:]:
            fields = line.split()
            if fields[3] == TCP_LISTEN:
                ports[fields[9]] = int(fields[1].rsplit(":", 1)[1], 16)
    holders: dict[str, tuple[str, str]] = {}
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[8:-1] if target.startswith("socket:[") else ""
        if inode in ports and inode not in holders:
            process = "/".join(link.split("/")[:3])
            holders[inode] = (read(f"{process}/comm").strip(), unit_of(read(f"{process}/cgroup")))
    seen = {(port, *holders.get(inode, ("", ""))) for inode, port in ports.items()}
    return [{"port": port, "process": process, "unit": unit} for port, process, unit in sorted(seen)]


def unit_of(cgroups: str) -> str:
    """The cgroup path that names the unit: systemd's own hierarchy of cgroup v1, or the only one of v2."""
    for line in cgroups.splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd" or (number == "0" and controllers == "" and path != "/"):
            return path
    return ""


def fuse(mount: bool) -> FuseProbe:
    """Look at FUSE; with ``mount`` also mount a file system for a moment, where there is a device."""
    in_kernel = any(line.split()[-1:] == ["fuse"] for line in read("/proc/filesystems").splitlines())
    modprobe = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    module = False
    if not in_kernel and modprobe:
        module = subprocess.run([modprobe, "--dry-run", "fuse"], capture_output=True, check=False).returncode == 0
    device = ""
    if os.path.exists("/dev/fuse"):
        mode = os.stat("/dev/fuse").st_mode
        device = f"{stat.S_IMODE(mode):04o}" if stat.S_ISCHR(mode) else ""
    # A module, loaded or not, has to be named for the next boot; a kernel that has FUSE built in lists no such module.
    loaded = any(line.startswith("fuse ") for line in read("/proc/modules").splitlines())
    mounted = None
    if mount and device:
        try:
            mounted = bool(fuse_mount.prove(10))
        except OSError:
            mounted = False
    return {
        "in_kernel": in_kernel,
        "module": module or loaded,
        "device": device,
        "udev": os.path.isdir("/etc/udev/rules.d"),
        "mounted": mounted,
    }


def packages_missing(names: list[str]) -> list[str]:
    if not names or shutil.which("dpkg-query") is None:
        return names  # on a system without it the rules refuse the host
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def files(paths: Iterable[str]) -> dict[str, File]:
    """Return those of the paths that exist."""
    found: dict[str, File] = {}
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        digest = k3s_observe.sha256(path) if stat.S_ISREG(mode) else ""
        found[path] = {"sha256": digest, "mode": f"{stat.S_IMODE(mode):04o}"}
    return found


def services(names: list[str]) -> dict[str, Service]:
    """Return each unit's state in systemd's words; without systemd they are all empty."""
    argv = ["systemctl", "show", "--property=ActiveState,UnitFileState", *names]
    try:
        text = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    blocks += [{}] * len(names)
    return {
        name: {"active": blocks[index].get("ActiveState", ""), "enabled": blocks[index].get("UnitFileState", "")}
        for index, name in enumerate(names)
    }


def firewalls(firewalld: Service) -> list[str]:
    """Return which host firewalls filter. The unit of ufw is active on Ubuntu even where ufw is not."""
    ufw = re.search(r"^ENABLED=\W?yes", read("/etc/ufw/ufw.conf"), re.MULTILINE | re.IGNORECASE)
    return ["ufw"] * bool(ufw) + ["firewalld"] * (firewalld["active"] == "active")


def kernel_setting(name: str) -> str:
    return " ".join(read("/proc/sys/" + name.replace(".", "/")).split())


def hosts_block() -> list[str] | None:
    """Return the lines that the role host wrote into /etc/hosts; None where it wrote none."""
    match = BLOCK.search(read("/etc/hosts"))
    return match.group(1).splitlines() if match else None


def arguments() -> dict[str, Any]:
    texts = {"type": "list", "elements": "str", "default": []}
    files_and_desired = {
        "files": {"type": "list", "elements": "dict", "default": []},
        "desired": {"type": "dict", "default": {}},
    }
    host = {"disk_path": {"type": "path", "default": "/var/lib"}, "sysctl": texts, "packages": texts, "services": texts}
    k3s = {
        "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
        "storage_dir": {"type": "path", "default": ""},
        "token": {"type": "str", "default": "", "no_log": True},
        "links": texts,
        "kubeconfig": {"type": "path", "default": ""},
        "kubeconfig_server": {"type": "str", "default": ""},
        "kubeconfig_here": {"type": "path", "default": ""},
    }
    return {
        "name": {"type": "str", "default": ""},
        "host": {"type": "dict", "options": {**host, **files_and_desired}},
        "fuse": {"type": "dict", "options": {"packages": texts, **files_and_desired}},
        "k3s": {"type": "dict", "options": {**k3s, **files_and_desired}},
        "clock_timeout": {"type": "int", "default": 0},
        "keep_going": {"type": "bool", "default": False},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=arguments(), supports_check_mode=True)
    params = module.params
    deadline = time.monotonic() + params["clock_timeout"]
    while not clock_synchronised() and time.monotonic() < deadline:
        tell("The clock is synchronised", deadline=deadline)
        time.sleep(1)
    began = time.time()  # a clock that was only just set was waited for
    host, parts = params["host"] or {}, [params[part] or {} for part in ("host", "fuse", "k3s")]
    disk_path = host.get("disk_path") or "/var/lib"
    units = services([*k3s_observe.UNITS, "firewalld", *host.get("services", [])])
    fstab = read("/etc/fstab")
    probe = {
        "hostname": platform.node(),
        "kernel": platform.release(),
        "os": os_release(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cgroup": cgroup_version(),
        "memory_mb": memory_mb(),
        "disk_path": disk_path,
        "disk_free_mb": disk_free_mb(disk_path),
        "default_route": default_route(),
        "clock_synchronised": clock_synchronised(),
        "listeners": listeners(),
        "firewalls": firewalls(units["firewalld"]),
        "fuse": fuse(mount=bool(params["fuse"]) and not module.check_mode),
        "k3s_installed": os.path.exists("/usr/local/bin/k3s"),
        "swaps": [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]],
        "fstab_swap": bool(SWAP.search(fstab)),
        "hosts_block": hosts_block(),
        "sysctl": {name: kernel_setting(name) for name in host.get("sysctl", [])},
        "packages_missing": packages_missing(sorted({name for part in parts for name in part.get("packages", [])})),
        "files": files(file["dest"] for part in parts for file in part.get("files", [])),
        "services": units,
        **({"k3s": k3s_observe.observe(params["k3s"], units)} if params["k3s"] else {}),
        "began": began,
    }
    probe["ended"] = time.time()
    module.exit_json(changed=False, probe=probe)


if __name__ == "__main__":
    main()
