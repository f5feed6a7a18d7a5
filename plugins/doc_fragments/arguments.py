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
