# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of plugins/module_utils/arguments.py."""

from __future__ import annotations


class ModuleDocFragment:
    KUBECONFIG = r"""
options:
  kubeconfig:
    description: Path of the kubeconfig file on the machine where the module runs.
    type: path
    required: true
"""

    # Of a module that has KUBECONFIG.
    APPLICATION = r"""
options:
  namespace:
    description: Namespace of the application.
    type: str
    default: abaci
  name:
    description: Name of the StatefulSet.
    type: str
    default: abaci-app
"""

    # Of a module that has KUBECONFIG and APPLICATION.
    DATABASE = r"""
options:
  database:
    description: File name of the database.
    type: str
    default: sqlite.db
  claim_template:
    description: Name of the StatefulSet's volume claim template.
    type: str
    default: litefs-data
  port:
    description: LiteFS's port in the pods.
    type: int
    default: 20202
"""

    KNOWN = r"""
options:
  known:
    description:
      - What M(abaci.infra.objects_info) has read of this API (its C(known)), and nothing changed since. It is not read
        again. Of another API it is left aside. Use C(no_log) on the task where there are secrets in it.
    type: dict
    default: {}
"""

    # Of a module that has ``address``.
    EDGE = r"""
options:
  https_port:
    description: The public port of https, as it stands in URLs.
    type: int
    default: 443
  edge_https_port:
    description: The port for https at O(address).
    type: int
    default: 443
  edge_http_port:
    description: The port for http at O(address).
    type: int
    default: 80
  health_path:
    description: A path that has to be answered with 200.
    type: str
    default: /
"""

    # Of a module that asks the archive about a moment.
    ARCHIVE = r"""
options:
  history:
    description: The history of the archive. Empty for the newest, or of a moment for the one that was open then.
    type: str
    default: ""
  timeout:
    description: Seconds that the archive, or a copy from the primary, may take for each answer.
    type: int
    default: 600
"""
