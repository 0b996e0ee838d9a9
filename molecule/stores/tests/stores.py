"""What the tests of this scenario share: where things are, and how the tools are called by hand."""

from __future__ import annotations

RESTIC = "sftp:restic@backup1:/learning"
KEY = "/etc/wellkept/restic.key"
VAULT = "/srv/mirror-app1"


def ssh_to(account):
    """The command that logs in as the platform's host does."""
    options = "-F none -i /root/.ssh/wellkept -o UserKnownHostsFile=/root/.ssh/wellkept_hosts -o BatchMode=yes"
    return f"ssh {options} {account}"


def restic(app1, arguments):
    """What restic says, with the stored key."""
    connect = f"-o sftp.command='{ssh_to('restic@backup1')} -s sftp'"
    return app1.check_output(f"restic --repo {RESTIC} --password-file {KEY} --no-cache {connect} {arguments}")


def backups(app1):
    """The labels of the backups, oldest first."""
    found = app1.check_output("ls /srv/backups/learning").split()
    return sorted(name for name in found if name[0].isdigit())


def mirrored(host, directory):
    """The SHA-256 of every file below *directory*, by sha256sum there."""
    return host.check_output("cd %s && find . -type f -exec sha256sum {} + | sort -k 2", directory).splitlines()
