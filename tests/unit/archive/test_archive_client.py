"""Asking the archive as the playbooks do: its real server on a real store, behind a pod of the fake API."""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factory_objects as make
import ltx_files
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube, moments
from ansible_collections.abaci.infra.plugins.module_utils.archive import serve
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import History, Moment, Rebuilt, Store
from ansible_collections.abaci.infra.plugins.module_utils.archive_client import Archive, ArchiveError
from ansible_collections.abaci.infra.plugins.module_utils.operations import from_archive, sqlitefile
from archived import ArchivedApi, Served, served
