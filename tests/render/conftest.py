"""Ansible's own loader comes first: it does not find again what was imported past it."""

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
