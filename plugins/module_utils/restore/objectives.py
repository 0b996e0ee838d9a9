# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would be lost now (RPO) and how long a restore takes (RTO), against their targets."""

from __future__ import annotations

from datetime import datetime, timezone

from ..quantities import human_seconds
from ..result import Part
from .proof import CLOCK_TOLERANCE
from .replay import describe_seconds


def check_rpo(cluster: str, newest: datetime, target: float, part: Part) -> None:
    """*newest* is when the newest row that could be restored was written."""
    rpo = (datetime.now(timezone.utc) - newest).total_seconds()
    part.metric("rpo_seconds", round(rpo, 3), "seconds")
    part.require(
        f"RPO of {cluster}",
        -CLOCK_TOLERANCE <= rpo <= target,
        expected=f"at most {human_seconds(target)} since the newest restorable row",
        observed=human_seconds(rpo) if rpo >= 0 else f"the newest restorable row is dated {-rpo:.0f} s in the future",
        advice="See why no backup was made since." if rpo >= 0 else "Set the clock of this host right.",
    )


def check_rto(cluster: str, rto: float, target: float, part: Part) -> None:
    """*rto* is what the restore took that is proven; where its time went is told when it was carried out now."""
    prefix = "target_" if "target_fetch_seconds" in part.metrics else ""
    phases = describe_seconds(part.metrics, prefix)
    part.metric("rto_seconds", round(rto, 3), "seconds")
    part.require(
        f"RTO of {cluster}",
        rto <= target,
        expected=f"a restore within {human_seconds(target)}",
        observed=human_seconds(rto) + (f" ({phases})" if phases else ""),
        advice="Restore from faster storage, make full backups more often, or agree on a longer target.",
    )
