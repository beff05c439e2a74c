"""mini-swe-agent's text protocol: what a reply asks for, and what is said to the model.

A reply is a thought and exactly one fenced command. Versions of mini-swe-agent differ in the fence's name (``bash`` in
its first version, ``mswea_bash_command`` in its second), so it is an option. What is said is written in templates.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import WORKPLACE, Finished

TEMPLATES = Path(__file__).parent / "templates"
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # a command whose output begins with this line ends the episode


def commands_in(reply: str, fence: str) -> list[str]:
    """The commands of a reply: blocks of the fence's name, outside of what a reasoning model thinks to itself.

    A block that is not closed is none: a reply that was cut in the middle of a command is not carried out.
    """
    said = reply.rpartition("</think>")[2]
    blocks = re.findall(rf"^[ \t]*```{re.escape(fence)}[ \t\r]*\n(.*?)\n?^[ \t]*```[ \t\r]*$", said, re.M | re.S)
    return [block for block in blocks if block.strip()]


def is_submission(output: str) -> bool:
    """Whether a command's output says that the work is done. What else it says does not count: the host takes the
    diff."""
    return output.lstrip().partition("\n")[0].strip() == SUBMIT


@lru_cache(maxsize=8)
def wording_of(settings: AgentSettings) -> Wording:
    """The templates of a job, read once."""
    return Wording(settings)


class Wording:
    """The templates of a job: those of ``settings.templates``, and ours for the names that are not there.

    Raises ConfigError for a folder that does not exist and for a template that does not work.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        folders = [TEMPLATES]
        if settings.templates is not None:
            own = Path(settings.templates)
            if not own.is_dir():
                raise ConfigError(
                    f"contextrl.agent.templates is {settings.templates!r}, and there is no such folder. Fix: name a "
                    f"folder with some of {', '.join(sorted(path.name for path in TEMPLATES.iterdir()))}."
                )
            folders.insert(0, own)
        loader = ChoiceLoader([FileSystemLoader(folder) for folder in folders])
        self._environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False)
        # A template that does not work is told now, not in the middle of a job.
        self.start("an issue")
        self.wrong_format(0, cut=False)
        for output in ("", "x" * (settings.output_head + settings.output_tail + 1)):
            self._observed(output, 0, "timeout", 1.0)

    def start(self, issue: str) -> list[dict[str, str]]:
        """The messages that an episode begins with; no system message where its template is empty."""
        given = {"issue": issue, "turns": self._settings.turns, "seconds": self._settings.limits.seconds}
        system, user = self._said("system"), self._said("issue", folder=WORKPLACE, **given)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return messages if system else messages[1:]

    def observation(self, done: Finished) -> str:
        """What a command gave back; of a long output its two ends."""
        return self._observed(done.output, done.returncode, done.ended, done.seconds)

    def wrong_format(self, found: int, cut: bool) -> str:
        """The answer to a reply with none or several commands; ``cut`` where its tokens ran out."""
        return self._said("format_error", found=found, cut=cut)

    def _observed(self, output: str, returncode: int, ended: str, seconds: float) -> str:
        head, tail = self._settings.output_head, self._settings.output_tail
        parts = {"head": output, "tail": "", "elided": max(0, len(output) - head - tail)}
        if parts["elided"]:
            parts |= {"head": output[:head], "tail": output[len(output) - tail :]}
        return self._said("observation", returncode=returncode, ended=ended, seconds=seconds, **parts)

    def _said(self, name: str, **values: Any) -> str:
        try:
            template = self._environment.get_template(f"{name}.jinja")
            return template.render(fence=self._settings.fence, submit=SUBMIT, **values).strip("\n")
        except Exception as error:  # a template is a program
            raise ConfigError(
                f"contextrl.agent.templates is {self._settings.templates!r}, and its {name}.jinja does not work: "
                f"{error}. Fix: mend the template; {TEMPLATES / name}.jinja shows what it gets."
            ) from None
