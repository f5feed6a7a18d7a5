"""The rules of the role keel."""

from __future__ import annotations

import re

from . import Look, Values

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SCHEDULE = re.compile(r"@every ([0-9]+(h|m|s))+|@(hourly|daily|weekly|monthly)|\S+( \S+){5}")
# What the role sets itself.
_RESERVED = ("POLL", "POLL_DEFAULTSCHEDULE", "HELM3_PROVIDER", "RESTRICTED_NAMESPACE", "XDG_DATA_HOME", "TMPDIR")
_APPROVERS = {"SLACK_APP_TOKEN", "BASIC_AUTH_USER", "HIPCHAT_TOKEN"}


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    env, secrets = values["keel_env"], values["keel_secrets"]
    own, watched = str(values["keel_namespace"]), str(values["keel_watch_namespace"])
    if not _SCHEDULE.fullmatch(str(values["keel_poll_schedule"])):
        found.append(
            f"keel_poll_schedule {values['keel_poll_schedule']} is no schedule of Keel: write @every 2m, or six "
            "fields as of cron with seconds first."
        )
    if not (_NAMESPACE.fullmatch(own) and _NAMESPACE.fullmatch(watched)):
        found.append(
            "keel_namespace and keel_watch_namespace have to be names of namespaces: lower case letters, digits and "
            "hyphens."
        )
    if own == watched:
        found.append(
            f"keel_namespace and keel_watch_namespace are both {own}: give Keel a namespace of its own, which "
            "enforces a profile that the application does not meet."
        )
    if not re.fullmatch(r"\S+", str(values["keel_image"])):
        found.append("keel_image is empty or has a space in it: set it to the name of an image with its tag.")
    approvals = values["keel_approvals"]
    if approvals < 0:
        found.append("keel_approvals may not be negative.")
    if approvals > 0 and not _APPROVERS & {*env, *secrets}:
        found.append(
            f"keel_approvals is {approvals}, and nothing says where they are given, so that no update would ever come: "
            "set it to 0, or set keel_env and keel_secrets (SLACK_APP_TOKEN, or BASIC_AUTH_USER and "
            "BASIC_AUTH_PASSWORD)."
        )
    reserved = [name for name in _RESERVED if name in {*env, *secrets}]
    if reserved:
        found.append(f"keel_env and keel_secrets may not set {', '.join(reserved)}, which the role sets.")
    both = [name for name in env if name in secrets]
    if both:
        found.append(f"keel_env and keel_secrets both set {', '.join(both)}: keep it in one of them.")
    return found
