# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to the ledger, for everything that runs on the control node.

The ledger's own file is loaded only here: on a control node without the libraries that it stands on, every plugin can
still be loaded, and says what is missing.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError

if TYPE_CHECKING:
    from .ledger import Ledger

_LIBRARIES = ("sqlalchemy", "jsonschema")  # jsonschema checks each result before it is written


def open_ledger(configured: str = "") -> Ledger:
    """The ledger that ledger_url() finds for *configured*; raises MaintenanceError when it cannot be opened."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise MaintenanceError(
            "open the ledger",
            where="control node",
            expected=f"the Python packages {' and '.join(_LIBRARIES)} where Ansible runs",
            observed=f"no {' and no '.join(missing)}",
            advice=f"Install what is missing: {sys.executable} -m pip install {' '.join(missing)}",
        )
    from .ledger import Ledger, ledger_url

    return Ledger(ledger_url(configured))
