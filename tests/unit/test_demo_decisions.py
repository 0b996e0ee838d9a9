"""What the demo platform's module decides from what it measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.demo import cluster, content, daemon
from ansible_collections.wellkept.maintenance.plugins.module_utils.demo.layout import Layout
from ansible_collections.wellkept.maintenance.plugins.modules import demo_platform as module

ALL_GOOD = {step: True for step in module.STEPS if step != module.STOP_SERVER}


def layout_in(directory: Path) -> Layout:
    return Layout(str(directory), "nobody", sys.executable, bin_dir="/nonexistent")


def test_nothing_is_done_on_a_platform_that_runs() -> None:
    assert module.decide(ALL_GOOD) == []


def test_a_new_platform_takes_every_step_in_order() -> None:
    steps = module.decide(dict.fromkeys(ALL_GOOD, False))
    assert steps == [step for step in module.STEPS if step != module.STOP_SERVER]


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        ({module.START_SERVER}, [module.START_SERVER]),
        ({module.START_APPLICATION}, [module.START_APPLICATION]),
        ({module.LOAD}, [module.LOAD]),
        ({module.MAKE_MIRROR}, [module.MAKE_MIRROR]),
        ({module.CONFIGURE}, [module.STOP_SERVER, module.CONFIGURE, module.START_SERVER]),
        ({module.INSTALL}, [module.INSTALL, module.START_APPLICATION]),
        ({module.WRITE}, [module.WRITE, module.INSTALL, module.START_APPLICATION]),
        (
            {module.CREATE, module.START_SERVER},
            [module.CREATE, module.CONFIGURE, module.START_SERVER, module.LOAD],
        ),
    ],
)
def test_only_what_is_wrong_is_done_and_what_depends_on_it(wrong: set[str], steps: list[str]) -> None:
    assert module.decide({step: step not in wrong for step in ALL_GOOD}) == steps


def test_a_path_that_is_too_long_for_a_socket_leaves_tcp() -> None:
    longest = layout_in(Path("/" + "x" * (107 - len("//run/.s.PGSQL.54321"))))
    assert longest.socket_directory(54321) == longest.run
    longer = layout_in(Path(longest.directory + "x"))
    assert longer.socket_directory(54321) == ""
    assert "unix_socket_directories = ''\n" in cluster.configuration(longer, 54321)


def test_paths_with_odd_characters_are_quoted_for_the_server() -> None:
    odd = layout_in(Path('/srv/it\'s a, "platform"'))
    text = cluster.configuration(odd, 54321)
    assert 'unix_socket_directories = \'"/srv/it\'\'s a, ""platform""/run"\'\n' in text
    assert "log_directory = '/srv/it''s a, \"platform\"/log/postgresql'\n" in text


def test_a_number_in_a_pid_file_is_ours_only_if_the_process_says_so(tmp_path: Path) -> None:
    pid_file = tmp_path / "app.pid"
    argument = daemon.command_line(os.getpid())[0]
    pid_file.write_text(f"{os.getpid()}\n")
    assert daemon.running_pid(str(pid_file), argument) == os.getpid()
    assert daemon.running_pid(str(pid_file), "/somebody/else") == 0
    for text in ("", "no number", "-1", "0", "1", "999999999"):
        pid_file.write_text(text)
        assert daemon.running_pid(str(pid_file), argument) == 0
    assert daemon.running_pid(str(tmp_path / "absent"), argument) == 0


def test_content_follows_from_the_seed() -> None:
    assert content.submission_records(7) == content.submission_records(7)
    assert content.submission_records(7) != content.submission_records(8)
