"""An application's image, tried before it goes to a site: what its pods are asked, and what the answers mean. Pure.

The table judges what was Seen against what is Wanted; its lines are those of check.yml (status/checks.py), and each has
its section in docs/application.md. The module image_try does the I/O.
"""

from __future__ import annotations

import copy
import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import image_pull
from .objects import Object
from .status.checks import Mark, Result, Said, Summary
from .wording import listed, one_line, printable

COMPONENT = "image-try"
POD, LOOKER, PRIMARY, REPLICA, MIGRATE, SECRET = "try", "looker", "primary", "replica", "migrate", "try-secrets"
PAGE = "docs/application.md"
PROGRAMS = ("litefs", "fusermount3", "env", "sh", "mount")
# What the pod of an architecture runs in the image, beside `litefs version`: a line for each program that is missing.
LOOK = f'for program in {" ".join(PROGRAMS)}; do command -v "$program" >/dev/null || echo "$program"; done'
# LiteFS keeps its connections for 90 s.
KEPT_SECONDS = 90
# Files that are mounted into each container, and places whose files nobody expects to stay.
_MOUNTED = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
_PASSING = ("/dev/", "/proc/", "/sys/", "/tmp/", "/var/tmp/", "/run/", "/var/run/", "/root/.npm/")
_DENIED = re.compile(r"\bEACCES\b|\bEROFS\b|permission denied|read-only file system", re.IGNORECASE)
_REFUSED_WRITE = re.compile(r"readonly database|SQLITE_READONLY|read-only database", re.IGNORECASE)
_LISTEN = "0A"
_REDIS = 6379  # the pod's own, beside the application

# In the container that looks. $1: the database's file. On a read-only mount one in WAL mode needs its -wal and -shm.
SOCKETS = ("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; true")
SIZE = 'if [ -e "/data/$1" ]; then wc -c <"/data/$1"; else echo 0; fi'
HAND_OVER = (
    'cp "/data/$1"* /copy/ && if [ "$(head -c 19 "/copy/$1" | tail -c 1 | tr "\\002" w)" = w ]; then '
    ': >>"/copy/$1-wal"; : >>"/copy/$1-shm"; fi; : >/try/go'
)
# How the application's two containers start it. As under LiteFS it is not the first process of its container, and hears
# of SIGTERM from that; the second waits until the first has ended and left its database.
STARTS = {
    PRIMARY: (
        '"$@" & child=$!; trap \'kill -TERM "$child"\' TERM; while :; do wait "$child"; code=$?; '
        '[ -d "/proc/$child" ] && continue; wait "$child"; again=$?; [ "$again" = 127 ] || code=$again; '
        'exit "$code"; done'
    ),
    REPLICA: 'until [ -e /try/go ]; do sleep 1; done; exec "$@"',
}
# In the application's own. What mounts are left out, since they are another file system.
WRITTEN = (
    "sh",
    "-c",
    "command -v find >/dev/null || exit 3; find / -xdev -newer /etc/hostname -type f 2>/dev/null; true",
)
END = ("sh", "-c", "kill -TERM 1")
KILL = ("sh", "-c", "kill -KILL -1")


@dataclass(frozen=True)
class Wanted:
    """What the site asks of the image. ``start`` and ``grace`` in s; ``allow_other``: app_allow_other."""

    image: str
    port: int
    path: str
    domain: str
    database: str
    migrates: bool
    allow_other: bool
    start: int
    grace: int


@dataclass(frozen=True)
class Programs:
    """What an image has on nodes of one processor: how `litefs version` went, and what the PATH lacks.

    ``missing`` is None where `sh` could not look; ``reason`` says why then.
    """

    architecture: str
    node: str
    litefs: image_pull.Status
    missing: tuple[str, ...] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Socket:
    """A TCP socket that listens; ``user`` is the number of who made it."""

    address: str
    port: int
    user: int


@dataclass(frozen=True)
class Answer:
    """What the health path answered. ``kept``: seconds that Keep-Alive names; ``closes``: it said Connection: close."""

    status: int
    body: str = ""
    kept: int | None = None
    closes: bool = False


@dataclass(frozen=True)
class Start:
    """The application after its start: ``code`` where it ended by itself, ``error`` where it could not be started."""

    seconds: float
    sockets: tuple[Socket, ...] = ()
    address: str = ""
    answer: Answer | None = None
    unanswered: str = ""
    code: int | None = None
    error: str = ""
    log: str = ""


@dataclass(frozen=True)
class End:
    """How it ended after SIGTERM; ``code`` is None where it had to be killed."""

    seconds: float
    code: int | None


@dataclass(frozen=True)
class Seen:
    """All that was seen. None: it was not tried. ``held``: whether a connection was answered after ``idle`` seconds."""

    programs: tuple[Programs, ...] = ()
    migration: Start | None = None
    primary: Start | None = None
    database_bytes: int | None = None
    written: tuple[str, ...] | None = None
    idle: int = 0
    held: bool | None = None
    end: End | None = None
    replica: Start | None = None


def look_pod(made: Object) -> Object:
    """The pod of image_pull with a second container, which looks for all programs."""
    pod = copy.deepcopy(made)
    (litefs,) = pod["spec"]["containers"]
    litefs["name"] = "litefs"
    script = f"{{ {LOOK}; }} >/dev/termination-log"
    pod["spec"]["containers"].append({**copy.deepcopy(litefs), "name": "programs", "command": ["sh", "-c", script]})
    return pod


def programs(pod: Object, architecture: str) -> Programs | None:
    """What the pod of look_pod says; None while it is not known yet."""
    litefs, shell = (_only(pod, name) for name in ("litefs", "programs"))
    first = image_pull.judge(litefs, ["litefs", "version"])
    second = image_pull.judge(shell, ["sh"])
    node = str(pod["spec"].get("nodeName") or "")
    if first.final and first.fault is None:
        return Programs(architecture, node, first, reason=first.reason or "")
    if not (first.pulled or first.final) or not (second.pulled or second.final):
        return None
    if not second.pulled:
        return Programs(architecture, node, first, reason=second.reason or "")
    (said,) = shell["status"]["containerStatuses"]
    message = said["state"]["terminated"].get("message") or ""
    return Programs(architecture, node, first, tuple(message.split()))


def _only(pod: Object, name: str) -> Object:
    """The pod as if it had this container alone."""
    status = pod.get("status") or {}
    mine = [one for one in status.get("containerStatuses") or [] if one.get("name") == name]
    return {**pod, "status": {**status, "containerStatuses": mine}}


def can_run(found: Sequence[Programs]) -> bool:
    """Whether the application can be started: the image is there, and its `sh` runs."""
    return bool(found) and all(one.missing is not None for one in found)


def complete(
    template: Object,
    namespace: str,
    image: str,
    command: str,
    migrate: str,
    pull_secrets: Sequence[str],
    listen: str = "",
) -> Object:
    """The rendered pod with what only the run knows. LiteFS splits the commands as a shell's words, without a shell.

    ``listen``: the address that the application is told to listen on, as HOSTNAME; "" for none.
    ValueError, with a sentence, where a command cannot be split.
    """
    pod = copy.deepcopy(template)
    pod["metadata"]["namespace"] = namespace
    pod["spec"]["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    words = {PRIMARY: split("app_command", command), REPLICA: split("app_command", command)}
    words[MIGRATE] = split("app_migrate_command", migrate)
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
        if container["name"] in words:
            container["image"] = image
            container["imagePullPolicy"] = "IfNotPresent" if "@sha256:" in image else "Always"
            container["command"] = [*_start(container["name"], listen), *words[container["name"]]]
    return pod


def _start(container: str, listen: str) -> list[str]:
    """What stands before the application's command: what waits for it, and what LiteFS would have told it."""
    if container not in STARTS:
        return []
    hostname = [f"HOSTNAME={listen}"] if listen else []
    candidate = "true" if container == PRIMARY else "false"
    return ["sh", "-c", STARTS[container], "try", "env", *hostname, f"LITEFS_CANDIDATE={candidate}"]


def split(variable: str, command: str) -> list[str]:
    """The words of a command; ValueError where a quote is not closed."""
    try:
        return shlex.split(command)
    except ValueError as exc:
        raise ValueError(
            f"{variable} ({command}) cannot be split into words ({exc}): close its quotes, or put it into a script in "
            "the image."
        ) from None


def sockets(table: str) -> tuple[Socket, ...]:
    """What listens, from /proc/net/tcp and tcp6."""
    found = []
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        found.append(Socket(_address(address), int(port, 16), int(fields[7])))
    return tuple(sorted(set(found), key=lambda one: (one.port, one.address)))


def _address(digits: str) -> str:
    """An address of /proc/net: words of four bytes, each in the order of the machine (little endian)."""
    raw = b"".join(bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """An answer of the application, headers with names in lower case."""
    named = re.search(r"timeout=(\d+)", headers.get("keep-alive", ""))
    closes = "close" in headers.get("connection", "").lower()
    text = printable(one_line(body.decode(errors="replace")))[:200]
    return Answer(status, text, int(named[1]) if named else None, closes)


def container_end(pod: Object, name: str) -> tuple[int | None, str]:
    """(exit code where the container ended, why it cannot start)."""
    status = pod.get("status") or {}
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if one.get("name") == name:
            state = one.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated")
            if ended is not None:
                why = f"{ended.get('message')}" if ended.get("reason") in ("StartError", "ContainerCannotRun") else ""
                return int(ended.get("exitCode", 1)), image_pull.plain(why) if why else ""
            if waiting.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
                return None, image_pull.plain(waiting.get("message") or waiting["reason"])
    if status.get("phase") == "Failed":
        return None, image_pull.plain(status.get("message") or status.get("reason"))
    return None, ""


def is_running(pod: Object, name: str) -> bool:
    """Whether the container runs."""
    states = {
        one.get("name"): one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or []
    }
    return "running" in states.get(name, {})


def stays(paths: Iterable[str]) -> tuple[str, ...]:
    """The folders, of files that were written into the container, whose files somebody may want to keep."""
    kept = [path for path in paths if path not in _MOUNTED and not path.startswith(_PASSING)]
    return tuple(sorted({path.rpartition("/")[0] or "/" for path in kept}))


@dataclass(frozen=True)
class Check:
    """A line of the table: ``look`` says what is wrong, None where all is well. The slug is its section's, too."""

    slug: str
    group: str
    asks: str
    look: Callable[[Seen, Wanted], Said | None]


def judge(seen: Seen, wanted: Wanted) -> list[Result]:
    """The results of all lines of the table."""
    results = []
    for check in TABLE:
        said = check.look(seen, wanted) or Said("ok", "")
        page = f"{PAGE}#{check.slug}"
        results.append(
            Result(check.slug, check.group, check.asks, said.mark, printable(said.cause), said.command, page, False)
        )
    return results


def summary(results: Sequence[Result], wanted: Wanted) -> Summary:
    """The summary in one sentence."""
    bad = {mark: [one.slug for one in results if one.mark == mark] for mark in ("fail", "warn", "unknown")}
    more = [
        f"{len(found)} {word}" for word, found in (("warned of", bad["warn"]), ("not known", bad["unknown"])) if found
    ]
    tail = f" ({', '.join(more)})" if more else ""
    if bad["fail"]:
        cannot = f"The image {wanted.image} does not do what it has to: {listed(bad['fail'])}{tail}."
        return Summary(2, "unfit", cannot)
    return Summary(int(bool(bad["warn"])), "fit", f"The image {wanted.image} does what it has to{tail}.")


_LITEFS = "litefs from flyio/litefs:0.5"


def _fail(cause: str, command: str, mark: Mark = "fail") -> Said:
    return Said(mark, cause, command)


def _where(one: Programs) -> str:
    return f"node {one.node} ({one.architecture})" if one.node else f"a node with {one.architecture or 'any processor'}"


def _pull(seen: Seen, wanted: Wanted) -> Said | None:
    for one in seen.programs:
        if not one.litefs.pulled and one.litefs.fault is None:
            return _fail(
                f"{_where(one)} cannot pull it: {one.litefs.reason or 'it has not finished'}",
                "correct app_image, app_registry_token or app_image_pull_secrets",
            )
    return (
        None
        if seen.programs
        else _fail(
            "no node takes the application's pods now",
            "correct app_node_selector and app_tolerations, or let a node take pods again with kubectl uncordon",
        )
    )


def _processor(seen: Seen, wanted: Wanted) -> Said | None:
    wrong = [one for one in seen.programs if one.litefs.fault == "processor"]
    if wrong:
        return _fail(
            f"it is for another processor than that of {listed(_where(one) for one in wrong)}",
            "build it for all processors, or set app_node_selector to nodes that have its own",
        )
    return _not_pulled(seen)


def _programs(seen: Seen, wanted: Wanted) -> Said | None:
    """`litefs` first: it is run, so that one which cannot start is told as well."""
    for one in seen.programs:
        missing = list(one.missing or ())
        if one.litefs.fault == "program" and "litefs" not in missing:
            missing.insert(0, "litefs")
        if one.missing is None and one.litefs.fault != "processor" and _no_program(one.reason):
            missing.append("sh")
        if missing:
            return _fail(
                f"the PATH of the image has no {listed(missing)}",
                f"add them in the Dockerfile: {_LITEFS}, fusermount3 with fuse3",
            )
        if one.litefs.fault == "":
            return _fail(
                f"litefs version failed on {_where(one)}: {one.litefs.reason}", f"take {_LITEFS} in the Dockerfile"
            )
    return _not_pulled(seen)


def _no_program(reason: str) -> bool:
    return "not found" in reason


def _not_pulled(seen: Seen) -> Said | None:
    if any(one.litefs.pulled for one in seen.programs):
        return None
    faults = {one.litefs.fault for one in seen.programs}
    if "program" in faults or "" in faults:
        return None
    return _unknown("nothing of the image could be run")


def _unknown(cause: str) -> Said:
    return Said("unknown", cause)


def _migrates(seen: Seen, wanted: Wanted) -> Said | None:
    if not wanted.migrates:
        return None
    ran = seen.migration
    if ran is None:
        return _unknown("the image could not be run")
    if ran.error:
        return _fail(f"app_migrate_command cannot be run: {ran.error}", _program("app_migrate_command"))
    if ran.code:
        return _fail(f"app_migrate_command ended with {ran.code}{_last(ran.log)}", _ends_well("app_migrate_command"))
    if ran.code is None:
        return _fail(
            f"app_migrate_command had not ended after {ran.seconds:.0f} s{_last(ran.log)}",
            "let it end when it has migrated; where it only takes longer, raise try_image_start_seconds",
        )
    return None


def _program(variable: str) -> str:
    return f"begin {variable} with a program that is in the image, by its path or in its PATH"


def _ends_well(variable: str) -> str:
    return f"give it what its last words miss (app_env, app_secrets, a file in the image), or correct {variable}"


def _last(log: str) -> str:
    """The end of a log, as a part of a sentence."""
    text = printable(one_line(log))
    return f", and said at its end: {text[-300:]}" if text else ", and said nothing"


def _stopped(start: Start | None, why: str = "it was not started") -> Said | None:
    """Where there is no running application to be judged."""
    if start is None:
        return _unknown(why)
    if start.error or start.code is not None:
        return _unknown("the application does not run")
    return None


def _starts(seen: Seen, wanted: Wanted) -> Said | None:
    start = seen.primary
    if start is None:
        return _unknown("the image could not be run, or its migration failed")
    return _failed_start(start)


def _failed_start(start: Start) -> Said | None:
    if start.error:
        return _fail(f"app_command cannot be run: {start.error}", _program("app_command"))
    if start.code is not None:
        return _fail(f"app_command ended by itself with {start.code}{_last(start.log)}", _ends_well("app_command"))
    return None


def _listens(seen: Seen, wanted: Wanted) -> Said | None:
    said = _stopped(seen.primary)
    if said or seen.primary is None:
        return said
    return _where_it_listens(seen.primary, wanted)


def _where_it_listens(start: Start, wanted: Wanted) -> Said | None:
    mine = {one.address for one in start.sockets if one.port == wanted.port}
    local = {address for address in mine if ipaddress.ip_address(address).is_loopback}
    if any(ipaddress.ip_address(address).is_unspecified for address in mine) or (local and mine - local):
        return None
    if local:
        return _fail(
            f"it listens on {listed(sorted(local))} only, and sockets come to the pod's own address",
            "let it listen on all addresses (0.0.0.0 or ::)",
        )
    if mine:
        return _fail(
            f"it listens on {listed(sorted(mine))} only, and LiteFS asks localhost",
            "let it listen on all addresses; where it goes by HOSTNAME, set app_listen_address to 0.0.0.0",
        )
    others = sorted({one.port for one in start.sockets} - {_REDIS})
    there = f"; it listens on {listed(map(str, others))}" if others else ""
    return _fail(
        f"nothing listens on port {wanted.port} after {start.seconds:.0f} s{there}{_last(start.log)}",
        "set app_port to the application's port, or let it go by PORT",
    )


def _user(seen: Seen, wanted: Wanted) -> Said | None:
    said = _stopped(seen.primary)
    if said or seen.primary is None:
        return said
    users = sorted({one.user for one in seen.primary.sockets if one.port == wanted.port})
    if not users:
        return _unknown("nothing listens on app_port, so nobody is known who does")
    if any(users) and not wanted.allow_other:
        return _fail(
            f"it drops root's rights and runs as user {users[-1]}, who may not use LiteFS's mount",
            "set app_allow_other to true, or take su-exec, gosu or the like out of app_command",
        )
    return None


def _database(seen: Seen, wanted: Wanted) -> Said | None:
    if said := _stopped(seen.primary):
        return said
    if not seen.database_bytes:
        return _fail(
            f"/litefs/{wanted.database} is not there after the start, so it opens another file, or none before the "
            "first request",
            "let it open what DATABASE_URL names; app_database_url_prefix is what stands before the path",
            "warn",
        )
    return None


def _health(seen: Seen, wanted: Wanted) -> Said | None:
    said = _stopped(seen.primary)
    if said or seen.primary is None:
        return said
    return _how_it_answers(seen.primary, wanted)


def _how_it_answers(start: Start, wanted: Wanted) -> Said | None:
    asked = f"GET {wanted.path} with Host: {wanted.domain}"
    if start.answer is None:
        return _fail(
            f"{asked} is not answered: {start.unanswered or 'nothing listens there'}",
            "let it answer there without a login; where it only takes longer to start, raise try_image_start_seconds",
        )
    if start.answer.status != 200:
        said = f": {start.answer.body}" if start.answer.body else ""
        return _fail(
            f"{asked} is answered with {start.answer.status}{said}",
            "correct app_health_path, or let the application take the site's name (app_domain) as its Host",
        )
    return None


def _kept(seen: Seen, wanted: Wanted) -> Said | None:
    if said := _stopped(seen.primary):
        return said
    cure = "let it go by KEEP_ALIVE_TIMEOUT (ms), or set its server's own time-out to 95 s"
    if seen.held is not None:
        return None if seen.held else _fail(f"a connection that was idle for {seen.idle} s was closed", cure)
    found = seen.primary.answer if seen.primary else None
    if found is None:
        return _unknown("it answered nothing")
    if found.kept is not None and found.kept <= KEPT_SECONDS:
        return _fail(
            f"it ends connections that were idle for {found.kept} s (its header Keep-Alive), and LiteFS keeps its own "
            f"for {KEPT_SECONDS} s: a write that meets the end is lost with 502",
            cure,
        )
    if found.kept is None and not found.closes:
        return _unknown("its answers have no header Keep-Alive: try_image_idle_seconds=92 measures it")
    return None


def _writes(seen: Seen, wanted: Wanted) -> Said | None:
    said = _stopped(seen.primary)
    if said or seen.primary is None:
        return said
    denied = next((line for line in seen.primary.log.splitlines() if _DENIED.search(line)), "")
    if denied:
        return _fail(
            f"its log has: {one_line(denied)[:200]}",
            "name the directory in app_scratch_paths, or put a volume there (app_volume_mounts)",
            "warn",
        )
    if seen.written is None:
        return _unknown("the image has no find")
    folders = stays(seen.written)
    if folders:
        shown = listed([*folders[:4], *(["more"] if len(folders) > 4 else [])])
        return _fail(
            f"it writes into its own container, which is lost with each pod: {shown}",
            "name the directory in app_scratch_paths, or in app_volume_mounts what has to stay",
            "warn",
        )
    return None


def _ends(seen: Seen, wanted: Wanted) -> Said | None:
    if said := _stopped(seen.primary):
        return said
    if seen.end is None:
        return _unknown("SIGTERM could not be sent")
    cure = "let it close its server on SIGTERM and end with 0"
    if seen.end.code is None:
        return _fail(f"it had not ended {wanted.grace} s after SIGTERM, and would be killed", cure)
    if seen.end.code not in (0, 143):
        return _fail(f"it ended with {seen.end.code} after SIGTERM ({seen.end.seconds:.1f} s)", cure)
    return None


def _replica(seen: Seen, wanted: Wanted) -> Said | None:
    start = seen.replica
    if start is None:
        return _unknown("there was no database to give it")
    cure = "open the database read-only where LITEFS_CANDIDATE is false, and write nothing at the start there"
    if start.code is not None:
        return _fail(f"with a read-only database it ended with {start.code}{_last(start.log)}", cure)
    said = _failed_start(start) or _where_it_listens(start, wanted) or _how_it_answers(start, wanted)
    if said:
        return _fail(f"with a read-only database {said.cause}", cure)
    refused = next((line for line in start.log.splitlines() if _REFUSED_WRITE.search(line)), "")
    if refused:
        return _fail(f"it tries to write where it may only read: {one_line(refused)[:200]}", cure, "warn")
    return None


TABLE: tuple[Check, ...] = (
    Check("image-pulled", "image", "can be pulled by the nodes that may run it", _pull),
    Check("image-processor", "image", "is for the processor of each of them", _processor),
    Check("image-programs", "image", f"has {listed(PROGRAMS)} in its PATH", _programs),
    Check("migrates", "start", "app_migrate_command ends well on an empty database", _migrates),
    Check("starts", "start", "app_command starts, and goes on", _starts),
    Check("listens", "start", "listens on app_port, on all addresses", _listens),
    Check("runs-as", "start", "runs as a user who may use LiteFS's mount", _user),
    Check("opens-database", "start", "opens the database that it is given", _database),
    Check("answers-health", "requests", "answers app_health_path with 200 under the site's name", _health),
    Check("keeps-connections", "requests", "keeps idle connections for longer than LiteFS", _kept),
    Check("writes", "files", "writes only where it may, and where it stays", _writes),
    Check("ends", "end", "ends on SIGTERM within the grace period", _ends),
    Check("read-only", "replica", "starts and answers where the database is read-only", _replica),
)
