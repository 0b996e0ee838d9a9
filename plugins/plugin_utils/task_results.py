# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a callback is given for a finished task, by names that are the same in every ansible-core since 2.18."""

from __future__ import annotations

from typing import Any


def task_of(result: Any) -> Any:
    return result.task if hasattr(result, "task") else result._task


def action_of(result: Any) -> str:
    """The full name of the module or action that the task used."""
    task = task_of(result)
    return str(getattr(task, "resolved_action", None) or task.action)


def host_of(result: Any) -> str:
    host = result.host if hasattr(result, "host") else result._host
    return str(host.get_name())


def answer_of(result: Any) -> dict[str, Any]:
    """What the module or action returned; of a host that could not be reached, with the one it was delegated to."""
    answer: dict[str, Any] = result.result if hasattr(result, "result") else result._result
    fields = result.task_fields if hasattr(result, "task_fields") else result._task_fields
    if answer.get("unreachable") and fields.get("delegate_to"):
        return {"_ansible_delegated_vars": {"ansible_delegated_host": fields["delegate_to"]}, **answer}
    return answer
