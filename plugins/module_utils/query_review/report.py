# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was found, as checks and metrics: first of the server, then of statements."""

from __future__ import annotations

import typing as t

from ..result import Part
from . import comparison, report_server, report_statements, statements
from .judging import Judged, memory_for_next
from .measuring import Seen, connected


def _read_texts(seen: Seen, judged: Judged, params: t.Dict[str, t.Any]) -> t.Dict[t.Tuple[str, str], str]:
    """What may be shown of the statements that are told of."""
    if not seen.schema:
        return {}
    slower = [one for one in judged.intervals if comparison.is_slower(one, judged.rules)]
    wanted = {one.statement.key: one.statement for one in [*judged.kept, *slower]}
    with connected(params, seen.database) as connection:
        return statements.read_texts(connection, seen.schema, list(wanted.values()))


def report(seen: Seen, judged: Judged, params: t.Dict[str, t.Any], part: Part) -> None:
    """What was found, as checks and metrics; all of it is for people to act on."""
    remembered = memory_for_next(seen, judged)
    report_server.report_scope(seen.basis, seen.names, seen.skipped, part)
    if seen.statistics is None and seen.obstacle is not None:
        report_statements.report_obstacle(seen.obstacle, remembered, part)
    elif seen.statistics is not None:
        texts = _read_texts(seen, judged, params)
        period = report_server.period_of(judged.activity) if judged.compares else "since the counters began"
        report_statements.report_statistics(seen.statistics, remembered, part)
        report_statements.report_top(judged.intervals, params["top"], texts, period, part)
        if judged.compares:
            report_statements.report_speed(judged.intervals, judged.rules, texts, part)
    report_server.report_scanned(seen.scanned, params, part)
    report_server.report_foreign_keys(seen.foreign_keys, params, part)
    report_server.report_sessions(seen.sessions, params, part)
    report_server.report_activity(judged.activity, params, part)
