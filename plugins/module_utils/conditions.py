"""What an object's conditions say, and what was warned of it last. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .objects import Part

# Why a container waits that has no image, or no configuration.
PULL_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def condition(obj: Part | None, name: str) -> Part:
    """The condition of that type, {} where there is none."""
    listed = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((item for item in listed if item.get("type") == name), {})


def holds(obj: Part | None, name: str) -> bool:
    """Whether the condition of that type is True."""
    return condition(obj, name).get("status") == "True"


def is_ready(obj: Part | None) -> bool:
    """Whether a node or a pod says that it is Ready."""
    return holds(obj, "Ready")


def youngest_warning(
    events: Iterable[Part], about: Part, reason: str = "", word: str = "", since: str = ""
) -> Part | None:
    """The youngest warning about an object, known by its name and, where both tell it, its uid.

    Of one ``reason`` or of any, with ``word`` in its message. Events stay for an hour; those before ``since`` (RFC
    3339) do not count.
    """
    found = [
        event
        for event in events
        if event.get("type") == "Warning"
        and _is_about(event.get("involvedObject") or {}, about)
        and (not reason or event.get("reason") == reason)
        and word in str(event.get("message") or "")
        and when(event) >= since
    ]
    return max(found, key=when, default=None)


def _is_about(involved: Part, about: Part) -> bool:
    uids = {uid for uid in (involved.get("uid"), about.get("uid")) if uid}
    return involved.get("name") == about["name"] and len(uids) < 2


def when(event: Part) -> str:
    """When an event was seen last, "" where it does not say."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
