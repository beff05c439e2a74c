"""The public sets of the paper, one record each. A set is only here if its columns are known from its card or its use.

Domains are those of the paper's pairs, with their shares (section 8.2 there); the paper's main-task items are of the
same sets, in shares that it does not state.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.tasks import readers
from data_prep.tasks.item import Kind
from data_prep.tasks.readers import Reader, open_question


@dataclass(frozen=True)
class PublicSet:
    """A data set, by its name on the command line.

    Attributes:
        hub: its id on the Hugging Face Hub; ``subset`` of it.
        domain: kind of pictures or work, as the paper groups them.
        columns, optional: what an example must have, and what is read where it is there.
        read: gives the questions of an example, with answers of these ``kinds``.
        train, validation: names of its splits; ``""``: it has none for validation.
        tolerance: by which share of the right number a short answer may be off.
        streamed: whether it can be read from the Hub without being downloaded as a whole.
        licence: as its card states it; ``""`` where the card was not seen or states none.
    """

    name: str
    hub: str
    domain: str
    columns: tuple[str, ...]
    read: Reader
    kinds: tuple[Kind, ...]
    subset: str = ""
    train: str = "train"
    validation: str = ""
    optional: tuple[str, ...] = ()
    tolerance: float = 0.0
    streamed: bool = True
    licence: str = ""

    @property
    def issues(self) -> bool:
        """Whether it is a list of issues of repositories, not of questions about pictures."""
        return self.kinds == ("patch",)


SHARES = {
    "geometry": "46.06 %",
    "mathematics": "17.18 %",
    "natural": "13.18 %",
    "chart": "12.28 %",
    "science": "11.30 %",
    "agentic": "",
}
_CHOICES = ("image", "question", "choices", "answer")
# Columns from scripts that read this collection; its wording from printed examples.
_CONVERSATIONS = {
    "hub": "lmms-lab/LLaVA-OneVision-Data", "domain": "geometry", "columns": ("image", "conversations"),
    "read": readers.conversations, "kinds": ("multiple_choice", "math"),
}  # fmt: skip
_ISSUES = {"domain": "agentic", "columns": readers.COLUMNS, "optional": readers.OPTIONAL, "kinds": ("patch",)}
# Comments say where the columns are known from.
_ALL = [
    PublicSet(  # its card; verl's example geo3k.py
        "geometry3k", "hiyouga/geometry3k", "geometry", ("images", "problem", "answer"),
        open_question("problem", "answer", "images", "math"), ("math",), validation="validation", licence="mit",
    ),
    PublicSet("geo170k", subset="geo170k(qa)", **_CONVERSATIONS),
    PublicSet("mavis_geometry", subset="mavis_math_rule_geo", **_CONVERSATIONS),
    PublicSet(  # its card
        "mmk12", "FanqingM/MMK12", "mathematics", ("question", "answer", "image"),
        open_question("question", "answer", "image", "math"), ("math",),
    ),
    PublicSet(  # scripts that read it; its splits are val and test
        "icon_qa", "lmms-lab/ICON-QA", "mathematics", ("question", "choices", "answer", "query_image", "ques_type"),
        readers.icon_qa, ("multiple_choice", "short"), train="val",
        optional=tuple(f"choice_image_{number}" for number in range(10)),
    ),
    PublicSet(  # scripts that read it; pictures are paths into its images.zip
        "virl39k", "TIGER-Lab/ViRL39K", "natural", ("question", "answer", "image"),
        open_question("question", "answer", "image", "math"), ("math",), streamed=False,
    ),
    PublicSet(  # its card; the tolerance is the benchmark's relaxed accuracy
        "chartqa", "HuggingFaceM4/ChartQA", "chart", ("image", "query", "label"),
        open_question("query", "label", "image", "short"), ("short",), validation="val", tolerance=0.05,
        licence="gpl-3.0",
    ),
    PublicSet(  # torchtune's reader of this collection
        "dvqa", "HuggingFaceM4/the_cauldron", "chart", ("images", "texts"), readers.cauldron, ("short",),
        subset="dvqa",
    ),
    PublicSet(  # its card
        "scienceqa", "derek-thomas/ScienceQA", "science", _CHOICES, readers.multiple_choice("hint"),
        ("multiple_choice",), validation="validation", optional=("hint",),
        licence="cc-by-sa-4.0; its text says CC BY-NC-SA 4.0",
    ),
    PublicSet(  # scripts that evaluate on it
        "m3cot", "LightChen2333/M3CoT", "science", _CHOICES, readers.multiple_choice("context"),
        ("multiple_choice",), validation="validation", optional=("context",),
    ),
    PublicSet(  # its card; patch makes the bug
        "swe_smith", "SWE-bench/SWE-smith", read=readers.issues(introduces=True), licence="mit", **_ISSUES
    ),
    # Scripts that read it; images as they are named on Docker Hub.
    PublicSet(
        "swe_gym", "SWE-Gym/SWE-Gym", **_ISSUES,
        read=readers.issues(lambda name: _image("xingyaoww", name.replace("__", "_s_"))),
    ),
    # Its features as printed by datasets; any table of the same columns with --path.
    PublicSet(
        "swe_bench", "princeton-nlp/SWE-bench", **_ISSUES, validation="dev",
        read=readers.issues(lambda name: _image("swebench", name.replace("__", "_1776_"))),
    ),
]  # fmt: skip
SETS: dict[str, PublicSet] = {one.name: one for one in _ALL}


def _image(owner: str, name: str) -> str:
    return f"docker.io/{owner}/sweb.eval.x86_64.{name.lower()}:latest"
