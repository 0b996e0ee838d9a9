"""An activity whose behaviour a test chooses."""

from __future__ import annotations

import os
import pathlib
import signal
import time

from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out


def work(module, part):
    behaviour = module.params["behaviour"]
    with pathlib.Path(module.params["journal"]).open("a") as journal:
        journal.write(f"{module.params['name']} {os.getpid()}\n")
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "raise":
        raise RuntimeError("the module has a defect")
    if behaviour == "hang":
        time.sleep(180)
    if behaviour == "skip":
        part.skip("the tool is missing: apt-get install tool")
        return
    if behaviour == "silent":
        return
    if behaviour == "unserialisable metric":
        part.metric("size", "large", "bytes")
    status = {"warn": "warned", "fail": "failed"}.get(behaviour, "passed")
    part.check("the sample", status, expected="good", observed=behaviour, advice="Mend the sample.")
    part.metric("samples", 1, "count")
    if behaviour == "change":
        part.change("sample", module.params["name"], "old", "new")


def main():
    options = {
        "behaviour": {"type": "str", "default": "pass"},
        "journal": {"type": "path", "required": True},
        "name": {"type": "str", "required": True},
    }
    carry_out("sample", options, work)


if __name__ == "__main__":
    main()
