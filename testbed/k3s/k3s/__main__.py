"""`k3s`: the command line."""

from __future__ import annotations

import os
import pathlib
import sys

from . import options, payload
from .processes import log

REFUSED = ("certificate", "check-config", "completion", "crictl", "etcd-snapshot", "secrets-encrypt", "token")
USAGE = """usage: k3s COMMAND [ARGUMENTS]

  server    run the control plane and an agent
  agent     run an agent that joins a server
  kubectl   run kubectl
  ctr       run ctr
  --version
"""


def die(message: str) -> int:
    log(message, "fatal")
    return 1


def data_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("K3S_DATA_DIR") or "/var/lib/rancher/k3s")


def run_tool(name: str, arguments: list[str]) -> int:
    """Replace this process by a tool from the payload, with k3s's own addresses as its defaults."""
    folder = payload.unpack(data_dir()) / "bin"
    if name == "kubectl" and not os.environ.get("KUBECONFIG"):
        os.environ["KUBECONFIG"] = "/etc/rancher/k3s/k3s.yaml"  # an explicit --kubeconfig is stronger
    if name == "ctr":
        os.environ.setdefault("CONTAINERD_ADDRESS", "/run/k3s/containerd/containerd.sock")
        os.environ.setdefault("CONTAINERD_NAMESPACE", "k8s.io")
    os.execv(folder / name, [name, *arguments])


def main() -> int:
    called = pathlib.Path(sys.argv[0]).name
    arguments = sys.argv[1:]
    if called in ("kubectl", "ctr", "crictl"):
        arguments = [called, *arguments]
    command = arguments.pop(0) if arguments else "--help"
    if command in ("--version", "-v"):
        print(f"k3s version {payload.version()} (stand-in)")
        return 0
    if command in ("kubectl", "ctr"):
        return run_tool(command, arguments)
    if command in ("help", "--help", "-h"):
        print(USAGE, end="")
        return 0
    if command in REFUSED:
        return die(f"k3s documents `k3s {command}`, but this stand-in does not have it.")
    if command not in ("server", "agent"):
        return die(f"unknown command {command!r}: see k3s --help.")
    if os.geteuid() != 0:
        return die(f"k3s {command} must run as root.")
    from . import agent, server

    try:
        chosen = options.load(command, os.environ, arguments)
    except options.OptionError as error:
        return die(str(error))
    return server.run(chosen) if command == "server" else agent.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
