"""What an operator sees of real runs, in a log and on a terminal."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from support.frame import Frame
from support.terminal import Terminal

SHOWN = {"ANSIBLE_STDOUT_CALLBACK": "wellkept.maintenance.progress", "PYTHONIOENCODING": "utf-8"}
DAILY = {"cadence": "daily", "hosts": "all", "team": "Operations"}
ACTIVITIES = ("sample_first", "sample_second", "sample_third")

OTHER_WORK = """
- name: Other work
  hosts: all
  gather_facts: false
  tasks:
    - name: Change something
      ansible.builtin.command: echo hello
    - name: Say something
      ansible.builtin.debug: {msg: "hello from {{ inventory_hostname }}"}
    - name: Write a file
      ansible.builtin.copy: {dest: "{{ playbook_dir }}/written.txt", content: "one line\\n", mode: "0600"}
    - name: Try
      ansible.builtin.command: sh -c "echo its own words >&2; exit 3"
      ignore_errors: true
    - name: Try each
      ansible.builtin.command: sh -c "echo item {{ item }} >&2; exit {{ item }}"
      loop: [0, 4]
      ignore_errors: true
    - name: Mistake in a template
      ansible.builtin.debug: {msg: "{{ no_such_variable.x }}"}
"""


def make_frame(directory: Path, **hosts: dict[str, str]) -> Frame:
    return Frame(directory, dict.fromkeys(ACTIVITIES, DAILY), hosts or {"h1": {}, "h2": {}})


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return make_frame(tmp_path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """Two hosts on which the activities end in different ways."""
    return make_frame(
        tmp_path_factory.mktemp("mixed"),
        h1={"sample_first_behaviour": "warn", "sample_third_behaviour": "change"},
        h2={"sample_first_behaviour": "fail", "sample_second_behaviour": "skip"},
    )


def terminal(
    frame: Frame, playbook: str, *options: str, columns: int = 80, env: dict[str, str] | None = None
) -> Terminal:
    environment = frame.environment({**SHOWN, **(env or {})})
    return Terminal(frame.command(playbook, *options), cwd=frame.checkout, env=environment, columns=columns)


def other_playbook(frame: Frame, content: str) -> str:
    """A playbook that carries out no activity; returns the name by which the frame plays it."""
    (frame.checkout / "playbooks/other.yml").write_text(content)
    return "other"


def test_a_log_gets_one_line_for_each_activity_and_then_what_to_do(mixed: Frame) -> None:
    done = mixed.play("daily", env=SHOWN)
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"Daily run [0-9a-f-]{36}: 3 activities due on 2 hosts", lines[0])
    ticks = [line for line in lines if re.match(r"\S h\d sample_\w+ (passed|warned|failed|skipped)", line)]
    assert len(ticks) == 6
    assert any(re.match(r"✓ h1 sample_second passed 1 check, ", line) for line in ticks)
    assert any(re.match(r"✓ h1 sample_third passed 1 check, .*, 1 change$", line) for line in ticks)
    assert any(re.match(r"✗ h2 sample_first failed 1 check, .*: the sample: fail$", line) for line in ticks)
    assert any(line.endswith("skipped: the tool is missing: apt-get install tool") for line in ticks)
    assert re.search(r"^h2 +✗ failed +– skipped +✓ passed$", done.stdout, re.MULTILINE)  # noqa: RUF001
    assert "    h2: fail (expected good)\n    To do: Mend the sample." in done.stdout
    assert "The run failed." in done.stdout
    report = re.search(r"^Report: (.+/report\.html)$", done.stdout, re.MULTILINE)
    assert report
    assert Path(report[1]).is_file()
    for noise in ("PLAY [", "TASK [", "Traceback", "\x1b", '"checks"'):
        assert noise not in done.stdout, noise


@pytest.mark.parametrize("behaviour", ["die", "raise", "silent", "unserialisable metric"])
def test_an_activity_that_breaks_is_told_in_words(tmp_path: Path, behaviour: str) -> None:
    frame = Frame(tmp_path, {"sample_first": DAILY}, {"h1": {"sample_first_behaviour": behaviour}})
    done = frame.play("daily", env=SHOWN)
    assert done.returncode != 0
    assert "✗ h1 sample_first failed 1 check" in done.stdout
    assert "To do: " in done.stdout
    if behaviour == "raise":
        assert "the module has a defect" in done.stdout


def test_a_host_that_cannot_be_reached_is_told_in_words(tmp_path: Path) -> None:
    lost = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": "1"}
    done = make_frame(tmp_path, h1={}, h2=lost).play("daily", env=SHOWN)
    assert "✗ h2 sample_first failed" in done.stdout
    assert "Connection refused" in " ".join(done.stdout.split())
    assert "✓ h1 sample_first passed" in done.stdout


def test_check_mode_is_said_first_and_last_and_diffs_are_shown(mixed: Frame) -> None:
    done = mixed.play("daily", "--check", "--diff", "--limit", "h1", env=SHOWN)
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == "Check mode: nothing is changed, and what this run shows is no evidence."
    assert "would make 1 change" in done.stdout
    assert "h1: Carry out sample_third: would change" in lines
    assert "    sample_third on h1: old → new" in lines


def test_verbose_output_is_ansibles_own(frame: Frame) -> None:
    done = frame.play("daily", "-v", env=SHOWN)
    assert done.returncode == 0
    ours = _without_times(done.stdout)
    default = _without_times(frame.play("daily", "-v").stdout)
    assert any(line.startswith("PLAY RECAP") for line in ours)
    assert [line for line in ours if line.startswith(("PLAY", "TASK"))] == [
        line for line in default if line.startswith(("PLAY", "TASK"))
    ]
    assert "✓" not in done.stdout


def _without_times(output: str) -> list[str]:
    return [line.split(" => ")[0] for line in output.splitlines()]


def test_each_problem_of_a_plan_stands_on_a_line_of_its_own(frame: Frame) -> None:
    frame.variables["maintenance_plan"] = {"sample_frist": {"cadence": "daily"}, "sample_third": {"cadence": "dayly"}}
    frame.write_inventory()
    done = frame.play("daily", env=SHOWN)
    assert done.returncode != 0
    problems = [line for line in done.stdout.splitlines() if line.startswith("  - ")]
    assert len(problems) == 2
    assert "✗ The plan has 2 problem(s); nothing was touched:" in done.stdout, "as docs/plan.md shows it"
    assert any("did you mean sample_first?" in line for line in problems)
    assert "Traceback" not in done.stdout


def test_the_status_is_printed_as_it_is(frame: Frame) -> None:
    done = frame.play("status", env=SHOWN)
    assert re.search(r"^activity +cadence +host +last result", done.stdout, re.MULTILINE)
    strict = frame.play("status", "-e", "strict=true", env=SHOWN)
    assert strict.returncode != 0
    assert re.search(r"^activity +cadence +host +last result", strict.stdout, re.MULTILINE)
    assert "Overdue or failed: " in strict.stdout


def test_other_playbooks_lose_nothing_that_matters(frame: Frame) -> None:
    done = frame.play(other_playbook(frame, OTHER_WORK), "--diff", "--limit", "h1", env=SHOWN)
    assert done.returncode == 2
    for said in (
        "h1: Change something: changed",
        "hello from h1",
        "+one line",
        "✗ h1: Try failed, ignored",
        "its own words",
        "exit status 3",
        "✗ h1: Try each (4) failed",
        "item 4",
        "✗ h1: Mistake in a template failed",
        "'no_such_variable' is undefined",
    ):
        assert said in done.stdout, said
    # The place in the playbook; Ansible 2.18 points at the task, not at the template.
    assert "no_such_variable.x" in done.stdout or "- name: Mistake in a template" in done.stdout
    assert re.search(r"^✗ h1: .*1 failed", done.stdout, re.MULTILINE)


def test_warnings_and_deprecations_of_tasks_are_shown(frame: Frame) -> None:
    library = frame.checkout / "playbooks/library"
    library.mkdir()
    (library / "warner.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "module = AnsibleModule(argument_spec={})\n"
        "module.warn('mind the gap')\n"
        "module.deprecate('an old way', version='9.9', collection_name='wellkept.maintenance')\n"
        "module.exit_json()\n"
    )
    playbook = other_playbook(frame, "- hosts: h1\n  gather_facts: false\n  tasks:\n    - warner:\n")
    done = frame.play(playbook, env=SHOWN)
    assert "mind the gap" in done.stdout + done.stderr
    assert "an old way" in done.stdout + done.stderr


def test_a_playbook_that_cannot_be_read_says_where(frame: Frame) -> None:
    done = frame.play(other_playbook(frame, "- hosts: all\n  tasks:\n    - foo bar: [\n"), env=SHOWN)
    assert done.returncode != 0
    # In the words of Ansible 2.19, or of 2.18.
    assert re.search("YAML parsing failed|unable to read either as JSON nor YAML", done.stdout + done.stderr)
    assert "other.yml" in done.stdout + done.stderr


def test_a_pattern_without_hosts_is_said(frame: Frame) -> None:
    done = frame.play(other_playbook(frame, "- hosts: nowhere\n  tasks: []\n"), env=SHOWN)
    assert "No host matches nowhere" in done.stdout


def test_other_encodings_are_served(mixed: Frame) -> None:
    done = mixed.play("daily", env={**SHOWN, "PYTHONIOENCODING": "ascii"})
    assert re.search("^ok h1 sample_second passed", done.stdout, re.MULTILINE)
    assert re.search("^XX h2 sample_first failed", done.stdout, re.MULTILINE)
    done.stdout.encode("ascii")
    assert "not supported" not in done.stderr, "nothing had to be replaced"


def test_a_defect_of_the_view_costs_no_output(frame: Frame) -> None:
    """Ansible would only warn of the exception, and the line would be lost."""
    text = frame.checkout / "plugins/plugin_utils/progress_text.py"
    source = text.read_text()
    assert "    def tick(self, data" in source
    text.write_text(source.replace("    def tick(self, data", "    def tick(self, broken, data"))
    done = frame.play("daily", env=SHOWN)
    assert done.returncode == 0
    assert "The progress view failed" in done.stderr
    assert "TypeError" in done.stderr, "with the place of the defect"
    assert "PLAY RECAP" in done.stdout
    assert "TASK [" in done.stdout
    assert set(frame.outcomes().values()) == {"passed"}, "and the record is complete"


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_shows_the_run_live_and_then_the_summary_alone(mixed: Frame, columns: int) -> None:
    shown = terminal(mixed, "daily", columns=columns)
    status, screen = shown.finish()
    assert status != 0
    assert "0 of 6" in shown.output
    assert "6 of 6" in shown.output
    assert "running" in shown.output
    assert "sample_second: Carry out sample_second" in shown.output, "the task that goes on"
    text = screen.text
    assert "of 6" not in text, "the live view is gone"
    assert "waiting" not in text
    assert "✗ h2 sample_first failed" in text, "what did not pass stays on the screen"
    assert "To do: Mend the sample." in text
    assert re.search(r"^h2 +✗ failed", text, re.MULTILINE)
    assert screen.cursor_shown
    assert "Report: " in text


def test_a_terminal_shows_what_others_print_above_the_live_view(frame: Frame) -> None:
    role = frame.checkout / "roles/sample_second/tasks/main.yml"
    role.write_text(role.read_text() + "- ansible.builtin.debug: {msg: a word from the role}\n")
    status, screen = terminal(frame, "daily").finish()
    assert status == 0
    assert screen.text.count("a word from the role") == 2
    assert "of 6" not in screen.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_a_usable_terminal(tmp_path: Path, number: signal.Signals) -> None:
    frame = make_frame(tmp_path, h1={"sample_second_behaviour": "hang"})
    shown = terminal(frame, "daily")
    shown.wait_for("sample_second: Carry out sample_second")
    shown.interrupt(number)
    status, screen = shown.finish(120)
    assert status != 0
    assert screen.cursor_shown


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(mixed: Frame) -> None:
    shown = terminal(mixed, "daily", env={"WELLKEPT_LIVE": "false"})
    _status, screen = shown.finish()
    assert "✓ h1 sample_second passed" in screen.text
    assert "0 of 6" not in shown.output


def test_a_person_can_be_asked_while_the_view_is_live(frame: Frame) -> None:
    role = frame.checkout / "roles/sample_second/tasks/main.yml"
    role.write_text(role.read_text() + "- ansible.builtin.pause: {seconds: 1, prompt: Look at it}\n")
    status, screen = terminal(frame, "daily").finish()
    assert status == 0, screen.text
    assert "Look at it" in screen.text
    assert re.search(r"^h1 +✓ passed", screen.text, re.MULTILINE)
