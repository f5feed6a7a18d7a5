"""Conditions and events are read in one place for nodes, pods, workloads and certificates."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import conditions

READY = {"status": {"conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": "True"}]}}
ABOUT = {"name": "web-0", "uid": "u-1"}


@pytest.mark.parametrize(
    ("obj", "ready"),
    [
        (READY, True),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, False),
        ({"status": {"conditions": None}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_it_is_ready_only_where_it_says_so(obj: dict[str, Any] | None, ready: bool) -> None:
    assert conditions.is_ready(obj) is ready
    assert bool(conditions.condition(obj, "Ready").get("status") == "True") is ready


def event(message: str, **more: Any) -> dict[str, Any]:
    made = {"type": "Warning", "reason": "Failed", "involvedObject": ABOUT, "lastTimestamp": "2026-01-01T00:00:05Z"}
    return {**made, "message": message, **more}


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        ([], {}, None),
        ([event("a"), event("b", lastTimestamp="2026-01-01T00:00:06Z")], {}, "b"),
        ([event("a", lastTimestamp=None, eventTime="2026-01-01T00:00:07.0Z"), event("b")], {}, "a"),
        ([event("a", series={"lastObservedTime": "2026-01-01T00:00:08Z"}), event("b")], {}, "a"),
        ([event("a", type="Normal")], {}, None),
        ([event("a", involvedObject={"name": "web-1", "uid": "u-1"})], {}, None),
        ([event("a", involvedObject={"name": "web-0", "uid": "u-0"})], {}, None),
        ([event("a", involvedObject={"name": "web-0"})], {}, "a"),
        ([event("a"), event("b", reason="Other")], {"reason": "Other"}, "b"),
        ([event("an image"), event("b", lastTimestamp="2026-01-01T00:00:06Z")], {"word": "image"}, "an image"),
        ([event("a")], {"since": "2026-01-01T00:00:06Z"}, None),
    ],
)
def test_the_youngest_warning_about_an_object_counts(
    events: list[dict[str, Any]], options: dict[str, str], message: str | None
) -> None:
    found = conditions.youngest_warning(events, ABOUT, **options)
    assert (found["message"] if found else None) == message
