"""The live view fits its terminal, whatever the size of the fleet."""

from __future__ import annotations

import io

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import progress_live
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.progress_live import LiveView, progress_bar
from rich.console import Console
from support.terminal import Screen


class Drawn(LiveView):
    """A view that is drawn when the test asks, not on the terminal of who runs the tests."""

    def __init__(self, due: dict[str, list[str]], *, unicode: bool = True) -> None:
        self._cells = {(activity, host): "waiting" for activity, hosts in due.items() for host in hosts}
        self._title, self._unicode, self._began = "daily run", unicode, progress_live.time.monotonic()
        self._task, self._task_began = "backup: Back up the databases", self._began

    def lines(self, columns: int, rows: int) -> list[str]:
        stream = io.StringIO()
        console = Console(file=stream, width=columns, height=rows, force_terminal=False)
        console.print(self)
        return stream.getvalue().rstrip("\n").split("\n")


def due(activities: int, hosts: int) -> dict[str, list[str]]:
    return {f"activity_{a:02}": [f"web{h:02}" for h in range(hosts)] for a in range(activities)}


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("rows", [8, 24])
@pytest.mark.parametrize(("activities", "hosts"), [(1, 1), (6, 1), (6, 4), (15, 50), (40, 2), (6, 500)])
@pytest.mark.parametrize("unicode", [True, False])
def test_it_never_grows_out_of_its_terminal(
    columns: int, rows: int, activities: int, hosts: int, unicode: bool
) -> None:
    view = Drawn(due(activities, hosts), unicode=unicode)
    view.update("activity_00", "web00", "failed")
    lines = view.lines(columns, rows)
    assert len(lines) < rows, "the line below is the cursor's"
    assert max(map(len, lines)) <= columns
    assert f"0 of {activities * hosts}" in " ".join(lines) or f"1 of {activities * hosts}" in " ".join(lines)
    if not unicode:
        "\n".join(lines).encode("ascii")


def test_few_hosts_are_shown_in_words() -> None:
    view = Drawn(due(2, 2))
    view.update("activity_00", "web00", "passed")
    view.update("activity_00", "web01", "running")
    text = "\n".join(view.lines(80, 24))
    assert "web00" in text
    assert "✓ passed" in text
    assert "» running" in text
    assert "waiting" in text
    assert "1 of 4" in text
    assert "Back up the databases" in text


def test_a_fleet_is_shown_as_strips_of_signs() -> None:
    view = Drawn(due(3, 50))
    for host in range(50):
        view.update("activity_00", f"web{host:02}", "failed" if host == 7 else "passed")
    row = next(line for line in view.lines(80, 24) if line.startswith("activity_00"))
    assert row.count("✓") == 49
    assert row.count("✗") == 1


def test_more_hosts_than_columns_are_counted() -> None:
    view = Drawn(due(2, 300))
    view.update("activity_01", "web00", "failed")
    row = next(line for line in view.lines(80, 24) if line.startswith("activity_01"))
    assert "299 waiting" in row
    assert "1 failed" in row


def test_activities_that_are_over_make_room_for_those_that_are_not() -> None:
    view = Drawn(due(30, 1))
    for number in range(15):
        view.update(f"activity_{number:02}", "web00", "passed")
    text = "\n".join(view.lines(80, 20))
    assert "activity_15" in text
    assert "activity_00" not in text
    assert "more" in text


def test_what_is_not_due_is_not_drawn() -> None:
    view = Drawn({"backup": ["db1"], "log_rotation": ["db1", "web1"]})
    view.update("backup", "web1", "passed")
    row = next(line for line in view.lines(80, 24) if line.startswith("backup"))
    assert "passed" not in row


def test_hostile_host_names_draw_nothing() -> None:
    view = Drawn({"backup": ["a\x1b[2Jb\n\u202ec", "x"]})
    text = "\n".join(view.lines(80, 24))
    assert "\x1b" not in text
    assert "␛[2Jb" in text


@pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 3), (2, 3), (3, 3)])
def test_the_bar_is_as_full_as_the_work_is_done(done: int, total: int) -> None:
    drawn = progress_bar(done, total, 40, unicode=False)
    assert len(drawn) <= 40
    length = drawn.count("#") + drawn.count("-")
    assert drawn.count("#") == (round(length * done / total) if total else length)


def test_the_tests_screen_does_what_a_terminal_does() -> None:
    screen = Screen(5)
    screen.feed("one\r\ntwo\r\x1b[1A\x1b[2KONE\n\rabcdefg\x1b[?25l")
    assert screen.text == "ONE\nabcde\nfg"
    assert not screen.cursor_shown
