"""What is known of one host: what the inventory desires, and what host_probe observed. Types only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from .objects import Object

if TYPE_CHECKING:
    from .datastore import Seal


class System(TypedDict):
    """From /etc/os-release."""

    id: str
    version: str


class Listener(TypedDict):
    """A TCP port that something listens on, with the process and its systemd unit."""

    port: int
    process: str
    unit: str


class File(TypedDict):
    """A file: its SHA-256 (empty for a folder) and its mode as four octal digits."""

    sha256: str
    mode: str


class Service(TypedDict):
    """A systemd unit, in systemd's words."""

    active: str
    enabled: str


class FuseProbe(TypedDict):
    """FUSE on a host; ``device`` is the mode of /dev/fuse, ``mounted`` whether a mount worked (None: not tried)."""

    in_kernel: bool
    module: bool
    device: str
    udev: bool
    mounted: bool | None


class K3sProbe(TypedDict):
    """k3s on a host. ``registered`` is the name of its node (empty: it is none yet), ``node_name`` the one of its host.

    ``token_mark`` is a slow hash of the token by which agents join (of an agent: which it has)."""

    arch: str
    node_name: str
    node_password: bool
    registered: str
    certificates_end: float | None
    by_hand: list[str]
    installed_version: str
    binary_sha256: str
    images_sha256: str
    units: list[str]
    active: list[str]
    started: float
    stale_inputs: list[str]
    ca_hash: str
    token_matches: bool | None
    token_mark: str
    datastore: str
    revision: int | None
    restored: Seal
    now: float
    copy_age: str
    storage: str
    volumes: list[str]
    links: dict[str, str]
    kubeconfig_sha256: str
    nodes: list[Object]


class Probe(TypedDict, total=False):
    """What host_probe observed; k3s and fuse only where they were asked for."""

    hostname: str
    kernel: str
    os: System
    systemd: bool
    cgroup: int
    memory_mb: int
    disk_path: str
    disk_free_mb: int
    default_route: bool
    clock: list[float]
    clock_synchronised: bool
    listeners: list[Listener]
    firewalls: list[str]
    k3s_installed: bool
    swaps: list[str]
    fstab_swap: bool
    hosts_block: list[str] | None
    sysctl: dict[str, str]
    packages_missing: list[str]
    services: dict[str, Service]
    time: float
    fuse: FuseProbe
    k3s: K3sProbe


class HostDesired(TypedDict):
    """What the role host is asked for."""

    address: str
    server: bool
    hostname: str
    entries: dict[str, str]
    packages: list[str]
    sysctl: dict[str, Any]
    swap: str
    time_sync: str
    clock_skew_max: float
    supported_systems: dict[str, str]
    k3s_version: str
    cgroup_v1_allowed: bool
    ports: list[int]
    server_ports: list[int]
    min_memory_mb: int
    min_disk_mb: int
    fuse_required: bool


class FuseDesired(TypedDict):
    """What the role fuse is asked for."""

    packages: list[str]
    device_mode: str


class K3sDesired(TypedDict):
    """What the role k3s is asked for; no secrets."""

    servers: list[str]
    agents: list[str]
    version: str
    source: str
    base: str
    checksum: str
    pins: dict[str, str]
    images_enabled: bool
    images_checksum: str
    data_dir: str
    allow_upgrade: bool
    take_over: bool
    token_is_long: bool
    node_name: str
    config_errors: list[str]


class Desired(TypedDict, total=False):
    """Each part is there where its role takes part in the run."""

    host: HostDesired
    fuse: FuseDesired
    k3s: K3sDesired


class Kubeconfig(TypedDict):
    """The kubeconfig on the controller: clusters is -1 for a file that is no kubeconfig, sha256 empty for no file."""

    path: str
    mode: str
    sha256: str
    clusters: int
    ca_hash: str


class Report(TypedDict):
    """One host: what is desired, what was observed, and what only the controller can compare.

    ``reason`` says why the host cannot be reached (empty: it can). ``differing`` names, by part, the topics with a file
    that is not as desired; ``folder`` has the SHA-256 of each file that the host would get from a folder of the
    controller (empty: there is none).
    """

    name: str
    reason: str
    desired: Desired
    probe: Probe
    differing: dict[str, list[str]]
    kubeconfig: Kubeconfig
    folder: dict[str, str]


class Fetch(TypedDict):
    """A file of a release that a host lacks: where it is, and the variable that holds its checksum."""

    variable: str
    checksum: str
    name: str
    path: str
    dest: str
    mode: str


class Plan(TypedDict):
    """By role, the topics (task files) with something to do, in order; and what they need to know.

    ``renew`` is the day on which k3s's own certificates end, where a restart of the service renews them; else empty."""

    host: list[str]
    fuse: list[str]
    k3s: list[str]
    fetch: list[Fetch]
    links: list[str]
    renew: str
