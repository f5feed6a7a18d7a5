"""The probe with its action plugin, as a playbook runs it: a report that the plan can read, and no secret shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ANSIBLE = str(Path(sys.executable).with_name("ansible-playbook"))
MARK = "Mark-0f9e8d7c"


def test_files_are_compared_without_being_sent_and_a_host_that_is_away_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "same").write_text(f"{MARK}\n")
    (tmp_path / "same").chmod(0o600)
    (tmp_path / "kubeconfig").write_text("clusters: [{}]\n")
    files = [
        {"topic": name, "dest": f"{tmp_path}/{name}", "mode": "0600", "content": f"{MARK}\n"}
        for name in ("same", "absent")
    ]
    probe = {
        "name": "{{ inventory_hostname }}",
        "host": {"sysctl": ["kernel.ostype"], "services": ["chrony"], "files": files, "desired": {"server": True}},
        "k3s": {"token": MARK, "links": ["kubectl"], "kubeconfig_here": f"{tmp_path}/kubeconfig", "files": files[1:]},
        "keep_going": True,
    }
    save = {"content": "{{ seen | to_json }}", "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.json", "mode": "0600"}
    unmanaged = {"name": "{{ inventory_hostname }}", "host": {}, "fuse": {}, "k3s": {}}
    only = "inventory_hostname == 'here'"
    tasks = [
        {"abaci.infra.host_probe": unmanaged, "register": "silent", "when": only},
        {"ansible.builtin.assert": {"that": "'k3s' not in silent.probe and silent.desired == {}"}, "when": only},
        {"abaci.infra.host_probe": probe, "register": "seen"},
        # Ansible's own word, where nobody asks for a reason.
        {
            "abaci.infra.host_probe": {**probe, "keep_going": False},
            "register": "again",
            "ignore_unreachable": True,
            "when": f"not {only}",
        },
        {"ansible.builtin.assert": {"that": "again.unreachable"}, "delegate_to": "here", "when": f"not {only}"},
        {"ansible.builtin.copy": save, "delegate_to": "here"},
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {"all": {"hosts": {"here": here, "away": away}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    done = subprocess.run(
        [ANSIBLE, "-i", "hosts.yml", "-vvv", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert MARK not in done.stdout + done.stderr
    seen = {host: json.loads((tmp_path / f"{host}.json").read_text()) for host in ("here", "away")}
    assert seen["here"]["differing"] == {"host": ["absent"], "k3s": ["absent"]}
    assert seen["here"]["reason"] == "" and seen["here"]["desired"]["host"] == {"server": True}
    assert seen["here"]["kubeconfig"]["clusters"] == 1 and seen["here"]["kubeconfig"]["mode"]
    least, most = seen["here"]["probe"]["clock"]
    assert least <= 0 <= most < 5, "one clock, asked twice"
    assert not {"began", "ended"} & set(seen["here"]["probe"])
    assert seen["here"]["probe"]["sysctl"] == {"kernel.ostype": "Linux"}
    assert seen["here"]["probe"]["fuse"]["mounted"] is None, "nobody asked for it"
    assert "refused" in seen["away"]["reason"] and seen["away"]["probe"] == {}
