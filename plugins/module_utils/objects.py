"""What the API of Kubernetes takes and gives, as plain data, in a shape that is the API's own. Types only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]  # an object, or a part of one
Part = Mapping[str, Any]  # the same, where it is only read
