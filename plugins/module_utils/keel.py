"""Whether Keel follows the application, and why it did not update: three questions, each with its cure. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import app_image, litefs
from . import state as documents
from .objects import Object
from .state_types import State
from .wording import one_line

FOLLOWS, BY_NAME = "new watch tag digest job added", "new watch repository tags job added"
WANTED = {"keel.sh/policy": "force", "keel.sh/match-tag": "true", "keel.sh/trigger": "poll"}
SPELLINGS = {"keel.sh/match-tag": "keel.sh/matchTag"}
SITE = "site.yml --tags app"
POLL = "run playbooks/rollout.yml, which need not wait for it"


@dataclass(frozen=True)
class Facts:
    """``log``: Keel's own, None where no pod of it answers; ``digest`` and ``error``: what a node got under the tag."""

    state: State
    annotations: Mapping[str, str]
    log: str | None = None
    log_error: str = ""
    digest: str | None = None
    error: str | None = None
    unfinished: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Line:
    """The answer to one question: ``mark`` is ok, warn or fail; ``cure`` "" where nothing is to be done."""

    mark: str
    said: str
    cure: str = ""

    def text(self) -> str:
        """As it is shown."""
        return f"{ {'ok': '√', 'warn': '!', 'fail': '×'}[self.mark] } {self.said}{' ' + self.cure if self.cure else ''}"


def why(facts: Facts) -> list[Line]:
    """The three answers: is it followed, does Keel see the registry, is there anything new."""
    return [_followed(facts), _sees(facts), _news(facts)]


def image(state: State) -> str:
    """The image by its tag, behind which a newer build may be."""
    kept = app_image.rolled_out(state)
    return kept.over if kept else str(state["statefulset"]["image"] or "").partition("@")[0]


def freeze(found: Object) -> None:
    """Freeze; ValueError where Keel does not follow it anyway."""
    annotations = found["metadata"].setdefault("annotations", {})
    if documents.KEEL_POLICY not in annotations:
        raise ValueError("it has no annotation keel.sh/policy, so Keel does not follow it and nothing can freeze")
    annotations[documents.KEEL_POLICY] = "never"


def thaw(found: Object) -> None:
    """Let Keel follow again, and site.yml go back to app_image where another image was rolled out by hand."""
    annotations = found["metadata"].setdefault("annotations", {})
    try:
        before = str(json.loads(annotations.pop(documents.ROLLED_OUT, "{}")).get("keel_policy", ""))
    except (ValueError, AttributeError):
        before = ""
    if annotations.get(documents.KEEL_POLICY) == "never":
        annotations[documents.KEEL_POLICY] = before if before not in ("", "never") else "force"


def _followed(facts: Facts) -> Line:
    asked, living = facts.annotations, facts.state["statefulset"]
    if facts.unfinished:
        name = facts.unfinished[0]
        return Line(
            "warn", f"A {name} is not finished, and replaces the pods itself.", f"Run playbooks/{name}.yml again."
        )
    missing = [
        f"{key} is {_annotation(asked, key) or 'not there'}"
        for key, value in WANTED.items()
        if _annotation(asked, key) != value
    ]
    if _annotation(asked, "keel.sh/policy") == "never":
        return Line(
            "warn",
            "Keel is frozen (keel.sh/policy: never).",
            f"To go on: playbooks/keel.yml -e keel_action=thaw, then {SITE}.",
        )
    if missing:
        return Line("fail", f"The StatefulSet is not annotated as Keel needs it: {', '.join(missing)}.", f"Run {SITE}.")
    if "@" in str(living["image"] or ""):
        return Line("fail", f"The pods name a digest ({living['image']}), which Keel leaves alone.", f"Run {SITE}.")
    if facts.log is None:
        return Line("fail", f"No pod of Keel answers{': ' + facts.log_error if facts.log_error else ''}.", _install())
    if FOLLOWS not in facts.log and BY_NAME in facts.log:
        return Line("fail", "Keel follows names of tags, not the digest behind this one.", f"Run {SITE}.")
    if FOLLOWS not in facts.log:
        return Line(
            "warn",
            "Keel's log does not say (any more) that it follows the image.",
            "Restart it: kubectl -n keel rollout restart deployment keel.",
        )
    return Line("ok", f"Keel follows {living['image']}.")


def _annotation(asked: Mapping[str, str], key: str) -> str:
    return asked.get(key) or asked.get(SPELLINGS.get(key, key)) or ""


def _install() -> str:
    return "Run site.yml --tags keel."


def _sees(facts: Facts) -> Line:
    if facts.log is None:
        return Line("fail", "Whether Keel sees the registry is not known: it does not run.", _install())
    lines = [line for line in facts.log.splitlines() if re.search(r"level=(error|fatal)", line)]
    if not lines:
        return Line("ok", "Keel's log has no error.")
    last = one_line(lines[-1])[:400]
    if "conflict" in last or "has been modified" in last:
        return Line(
            "fail",
            f"Keel's update met a conflict, and it tries none twice: {last}",
            f"Restart it (kubectl -n keel rollout restart deployment keel), or {POLL}.",
        )
    refused = re.search(r"unauthori[sz]ed|denied|\b40[13]\b", last)
    cure = "Renew app_registry_token, or the secrets in keel_registry_secrets, and run site.yml." if refused else ""
    return Line("fail", f"Keel's log has an error: {last}", cure or "See to what it names; Keel tries again by itself.")


def _news(facts: Facts) -> Line:
    tag, runs = image(facts.state), _running(facts.state)
    if facts.error or not facts.digest:
        reason = facts.error or "the node names no digest"
        return Line("fail", f"What is behind {tag} in the registry could not be read: {reason.rstrip('.')}.")
    if runs == {facts.digest}:
        return Line(
            "ok",
            f"The registry has nothing newer: behind {tag} is {facts.digest}, which all pods run.",
            "Where a newer one was to be there, look whether CI pushed it under this tag.",
        )
    since = facts.annotations.get("kubernetes.io/change-cause")
    last = f" Keel's last update: {since}." if since else ""
    return Line(
        "warn",
        f"The registry has another build: behind {tag} is {facts.digest}, and the pods run "
        f"{', '.join(sorted(runs)) or 'none that is known'}.{last}",
        f"Where Keel follows, it comes with its next look (keel_poll_schedule); else {POLL}.",
    )


def _running(state: State) -> set[str]:
    gone = litefs.absent(state)
    digests = {(pod["image_id"] or "").partition("@")[2] for pod in state["pods"] if pod["ordinal"] not in gone}
    return digests - {""}
