# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the health check looks at of services: their endpoints, ports, processes and units."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  http:
    description: HTTP endpoints; proxies in the environment are not used.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the endpoint in checks and metrics.
        type: str
        required: true
      url:
        description: What is asked for by GET, C(http://…) or C(https://…), without a login in it.
        type: str
        required: true
      address:
        description:
          - Connect to this address instead of the host in O(http[].url), whose name is still the one that is asked
            for and that the certificate must have.
          - So each of several servers behind one name can be probed.
        type: str
        default: ""
      status:
        description: Status that is good, or several.
        type: list
        elements: int
        default: [200]
      body:
        description: Text that the first MiB of the body must hold.
        type: str
        default: ""
      body_pattern:
        description: Regular expression that must match in the first MiB of the body.
        type: str
        default: ""
      warn_seconds:
        description: Limit for the time from connecting to the end of the answer.
        type: float
        default: 1.0
      fail_seconds:
        description: Limit for the time from connecting to the end of the answer.
        type: float
        default: 5.0
      warn_certificate_days:
        description: Least number of days that the certificate must still be valid for.
        type: float
        default: 30.0
      fail_certificate_days:
        description: Least number of days that the certificate must still be valid for.
        type: float
        default: 7.0
      validate_certs:
        description: Whether the certificate must be trusted; its days are looked at in any case.
        type: bool
        default: true
      ca_file:
        description: File with the authorities to trust instead of the system's.
        type: path
        default: ""
      follow_redirects:
        description: Whether up to five redirects are followed, never from https to http.
        type: bool
        default: false
      headers:
        description: Further headers of the request; nothing secret, for which the options below are.
        type: dict
        default: {}
      login_user:
        description: Name for HTTP basic authentication.
        type: str
        default: ""
      login_password:
        description: Password for HTTP basic authentication.
        type: str
        default: ""
      bearer_token:
        description: Token for bearer authentication; wins over O(http[].login_user).
        type: str
        default: ""
      timeout:
        description: How long the whole answer may take.
        type: str
        default: 10s
  tcp:
    description: TCP ports that must take a connection.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the port in checks and metrics; host and port when empty.
        type: str
        default: ""
      host:
        description: Host to connect to.
        type: str
        default: 127.0.0.1
      port:
        description: Port to connect to.
        type: int
        required: true
      warn_seconds:
        description: Limit for the time to connect.
        type: float
        default: 0.5
      fail_seconds:
        description: Limit for the time to connect.
        type: float
        default: 3.0
      timeout:
        description: How long to try.
        type: str
        default: 5s
  processes:
    description: Processes that must run; by O(processes[].pattern), O(processes[].pid_file) or both.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the process in checks and metrics.
        type: str
        required: true
      pattern:
        description: Regular expression that is searched for in the command line with its arguments.
        type: str
        default: ""
      pid_file:
        description: File that holds the process id.
        type: path
        default: ""
      min_count:
        description: How many must run at least.
        type: int
        default: 1
  units:
    description:
      - Names of systemd units that must be active; without a suffix it is a service.
      - A one-shot unit is good too when it ran and succeeded.
      - C(unknown) where systemd does not run.
    type: list
    elements: str
    default: []
"""
