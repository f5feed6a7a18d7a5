#!/usr/bin/python
"""Look at a host: everything that the preflight rules ask for, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_probe
short_description: Look at a host before it becomes a cluster node
description:
  - Reads what the preflight rules need (system, cgroup version, listening ports and who holds them, memory, disk,
    clock, default route, FUSE, swap, kernel settings, packages) and changes nothing.
  - An action plugin of the same name adds C(probe.clock), the interval in seconds that holds the offset of this host's
    clock from the controller's.
options:
  disk_path:
    description: Path whose file system has to have room; its nearest existing parent is measured.
    type: path
    default: /var/lib
  sysctl:
    description: Names of kernel settings to read.
    type: list
    elements: str
    default: []
  packages:
    description: Debian package names; those that are not installed come back in C(probe.packages_missing).
    type: list
    elements: str
    default: []
  clock_timeout:
    description: Seconds to wait until the clock is synchronised; the look at everything else comes after it.
    type: int
    default: 0
  keep_going:
    description:
      - Return C(reason) with an empty C(probe) for a host that cannot be reached, instead of ending the play.
      - Handled by the action plugin.
    type: bool
    default: false
author: The abaci.infra authors
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Look at the host
  abaci.infra.host_probe:
    sysctl: [vm.overcommit_memory]
    packages: [fuse3]
  register: __host_probe
"""

RETURN = r"""
probe:
  description: What was seen.
  returned: always
  type: dict
reason:
  description: Why the host cannot be reached.
  returned: with C(keep_going), when the host cannot be reached
  type: str
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
from typing import Any

from ansible.module_utils.basic import AnsibleModule

TCP_LISTEN = "0A"
STA_UNSYNC = 0x0040


def read(path: str) -> str:
    """Return the text of a small file, or an empty string where there is none to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def os_release() -> dict[str, str]:
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


def listeners() -> list[dict[str, Any]]:
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


def fuse() -> dict[str, Any]:
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
    return {"in_kernel": in_kernel, "module": module or loaded, "device": device}


def packages_missing(names: list[str]) -> list[str]:
    if not names:
        return []
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "disk_path": {"type": "path", "default": "/var/lib"},
            "sysctl": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "clock_timeout": {"type": "int", "default": 0},
            "keep_going": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    deadline = time.monotonic() + params["clock_timeout"]
    while not clock_synchronised() and time.monotonic() < deadline:
        time.sleep(1)
    probe = {
        "udev": os.path.isdir("/etc/udev/rules.d"),
        "hostname": platform.node(),
        "kernel": platform.release(),
        "os": os_release(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cgroup": cgroup_version(),
        "memory_mb": memory_mb(),
        "disk_path": params["disk_path"],
        "disk_free_mb": disk_free_mb(params["disk_path"]),
        "default_route": default_route(),
        "clock_synchronised": clock_synchronised(),
        "listeners": listeners(),
        "fuse": fuse(),
        "k3s_installed": os.path.exists("/usr/local/bin/k3s"),
        "swaps": [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]],
        "sysctl": {name: " ".join(read("/proc/sys/" + name.replace(".", "/")).split()) for name in params["sysctl"]},
        "packages_missing": packages_missing(params["packages"]),
        "time": time.time(),
    }
    module.exit_json(changed=False, probe=probe)


if __name__ == "__main__":
    main()
