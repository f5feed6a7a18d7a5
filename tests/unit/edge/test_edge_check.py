"""What the check from outside shows of its answers."""

from __future__ import annotations

from typing import Any

from ansible_collections.abaci.infra.plugins.modules import edge_check


def test_no_cookie_and_no_body_is_shown() -> None:
    answer: dict[str, Any] = {"url": "https://a/", "status": 200, "headers": {"set-cookie": "s=1"}, "body": "s"}
    assert edge_check.shown([answer]) == [{"url": "https://a/", "status": 200}]
