"""What the tutorials say to type does what they say it does: their blocks run, in order, in an empty folder."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
"""Language; the file that its content is to be put in, if it has a name; content."""

WORDS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def shell(molflow: Any, block: str) -> str:
    """What a block prints. The project's own command runs in this process, which saves its imports each time."""
    said = ""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        done = (molflow(*words[1:]) if words[0] == "molflow" else
                subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said += done.stdout
    return said


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_blocks_run_and_say_what_the_page_shows(page: Path, molflow: Any, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path / "data"))
    names: dict[str, Any] = {"__name__": "__page__"}
    said, ran = "", 0
    for language, file, block in FENCE.findall(page.read_text()):
        if file:
            Path(file).write_text(block)
        elif language == "sh":
            said, ran = shell(molflow, block), ran + 1
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, str(page), "exec"), names)
            said, ran = out.getvalue(), ran + 1
        elif language == "text":
            checker, example = doctest.OutputChecker(), doctest.Example("", block)
            assert checker.check_output(block, said, WORDS), checker.output_difference(example, said, WORDS)
        else:
            pytest.fail(f"a block of {language}, which is neither run nor compared")
    assert ran
