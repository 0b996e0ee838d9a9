# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probes of a health check: one file a kind, each with its options, what it measures and what it decides.

A probe gets its options and a :class:`Part` of its own, and puts checks and metrics into it. To add a kind: one file
with ``OPTIONS`` and ``probes(options)``, and one line in the module ``health_check``.
"""
