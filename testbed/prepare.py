#!/usr/bin/env python3
"""Make a fresh Debian or Ubuntu machine able to run the test bed: apt packages and a Docker engine that answers.

    python3 testbed/prepare.py           all of it
    python3 testbed/prepare.py venv      only what .venv and playbooks on your own hosts need, on any system
    python3 testbed/prepare.py application      all of it, and what compiles the native modules of testbed/nextjs
    python3 testbed/prepare.py browser          all of it, and a browser that looks at the page of status.yml

Standard library only, since it runs before there is a virtual environment. Safe to repeat: what is there is left
alone. What is missing takes root, by sudo where it is not run as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")
DOCKERD_LOG = Path("/var/log/abaci-infra-dockerd.log")
DOCKERD_WAIT_S = 60
OLDEST_PYTHON = (3, 11)
# The first upgrade of a fresh cloud server holds apt's locks for minutes.
APT_WAIT_S = 600
APT_PAUSE_S = 5


def _has(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


def _has_venv() -> bool:
    return subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0


# Debian package -> is what we need from it here already?
NEEDS: dict[str, Callable[[], bool]] = {
    "python3-venv": _has_venv,
    "openssh-client": _has("ssh-keygen"),
    "openssl": _has("openssl"),
    "mmdebstrap": _has("mmdebstrap"),
    "ca-certificates": lambda: Path("/etc/ssl/certs/ca-certificates.crt").exists(),
    "debian-archive-keyring": lambda: Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
    "iptables": _has("iptables"),
    "docker.io": lambda: _has("dockerd")() or engine_answers(),
    "gcc": _has("gcc"),
    "libc6-dev": lambda: Path("/usr/include/stdlib.h").exists(),
    "libseccomp-dev": lambda: Path("/usr/include/seccomp.h").exists(),
    "pkg-config": _has("pkg-config"),
    "busybox-static": _has("busybox"),
    "fuse3": _has("fusermount3"),
}
FOR_VENV = ("python3-venv", "openssh-client")
MORE: dict[str, dict[str, Callable[[], bool]]] = {
    "application": {"g++": _has("g++")},
    "browser": {"chromium": _has("chromium"), "poppler-utils": _has("pdftotext")},
}


def missing_packages(needs: dict[str, Callable[[], bool]]) -> list[str]:
    """Names of the packages whose content is not here yet, in the order of `needs`."""
    return [package for package, is_here in needs.items() if not is_here()]


def engine_answers() -> bool:
    """True when a Docker daemon answers; a client without a daemon is not an engine."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode == 0


def is_supported(os_release: str) -> bool:
    """True for Debian 12 or newer and Ubuntu 24.04 or newer, from the text of /etc/os-release."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    name = fields.get("ID", "").strip('"')
    version = fields.get("VERSION_ID", "0").strip('"')
    oldest = {"debian": (12,), "ubuntu": (24, 4)}.get(name)
    return oldest is not None and tuple(int(part) for part in version.split(".")) >= oldest


def python_error(version: tuple[int, ...]) -> str:
    """Return why this Python cannot hold what requirements.txt pins; empty where it can."""
    if version >= OLDEST_PYTHON:
        return ""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return (
        f"{sys.executable} is Python {'.'.join(map(str, version))}, and Ansible's pinned packages need {oldest} or "
        f"newer; install one and name it, as in make venv PYTHON=python{oldest}."
    )


def held_lock(stderr: str) -> str:
    """Return apt's line about a lock that another program holds; empty where it failed for another reason."""
    return next((line for line in stderr.splitlines() if "Could not get lock" in line), "")


def apt_get(words: list[str]) -> None:
    """Run apt-get, and wait while another program holds one of its locks.

    apt's own DPkg::Lock::Timeout does not cover the lock of the package lists.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    deadline = time.monotonic() + APT_WAIT_S
    told = ""
    while True:
        result = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True)
        held = held_lock(result.stderr)
        if not result.returncode:
            return
        if not held or time.monotonic() > deadline:
            sys.exit(f"prepare: apt-get {words[0]} failed; run it by hand and then again: {result.stderr[-600:]}")
        if held != told:
            print(f"prepare: waiting up to {APT_WAIT_S} s for another program: {held}", file=sys.stderr, flush=True)
            told = held
        time.sleep(APT_PAUSE_S)


def install(packages: list[str]) -> None:
    print(f"prepare: apt-get install {' '.join(packages)}", file=sys.stderr, flush=True)
    apt_get(["update", "-q"])
    apt_get(["install", "-y", "-q", "--no-install-recommends", *packages])


def start_engine() -> None:
    """Start dockerd, by systemd where it runs and by hand where no init system does."""
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        print(f"prepare: starting dockerd (log: {DOCKERD_LOG})", file=sys.stderr, flush=True)
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        with DOCKERD_LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + DOCKERD_WAIT_S
    while not engine_answers():
        if time.monotonic() > deadline:
            sys.exit(f"prepare: the Docker daemon does not answer after {DOCKERD_WAIT_S} s; see {DOCKERD_LOG}.")
        time.sleep(0.5)


def main(arguments: list[str]) -> None:
    if error := python_error(sys.version_info[:2]):
        sys.exit(f"prepare: {error}")
    only_venv = arguments == ["venv"]
    needs = {package: NEEDS[package] for package in FOR_VENV} if only_venv else NEEDS
    for more in arguments:
        needs = needs | MORE.get(more, {})
    packages = missing_packages(needs)
    engine = only_venv or engine_answers()
    if not packages and engine:
        return
    if packages and not is_supported(OS_RELEASE.read_text() if OS_RELEASE.exists() else ""):
        sys.exit(f"prepare: not Debian 12+ or Ubuntu 24.04+, so install by hand what stands for: {' '.join(packages)}.")
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            wanted = [f"install {' '.join(packages)}"] * bool(packages) + ["start Docker"] * (not engine)
            sys.exit(f"prepare: there is no sudo, so run this as root, to {' and '.join(wanted)}.")
        os.execvp("sudo", ["sudo", "-E", sys.executable, *sys.argv])
    if packages:
        install(packages)
    if not engine and not engine_answers():
        start_engine()


if __name__ == "__main__":
    main(sys.argv[1:])
