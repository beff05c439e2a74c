"""The public sets of the paper, one record each. A set is only here if its columns are known from its card or its use.

Domains are those of the paper's pairs, with their shares (section 8.2 there); the paper's main-task items are of the
same sets, in shares that it does not state.
"""

from __future__ import annotations

from data_prep.tasks.public import read
from data_prep.tasks.public.record import PublicSet

SHARES = {
    "geometry": "46.06 %",
    "mathematics": "17.18 %",
    "natural": "13.18 %",
    "chart": "12.28 %",
    "science": "11.30 %",
    "agentic": "",
}
_ISSUES = {"domain": "agentic", "columns": read.COLUMNS, "optional": read.OPTIONAL, "kinds": ("patch",)}
_CONVERSATIONS = {
    "hub": "lmms-lab/LLaVA-OneVision-Data",
    "domain": "geometry",
    "columns": ("image", "conversations"),
    "read": read.conversations,
    "kinds": ("multiple_choice", "math"),
    "evidence": "scripts that read this collection; its wording from printed examples",
}

_ALL = [
    PublicSet(
        name="geometry3k",
        hub="hiyouga/geometry3k",
        validation="validation",
        domain="geometry",
        columns=("images", "problem", "answer"),
        read=read.open_question("problem", "answer", "images", "math"),
        kinds=("math",),
        licence="mit",
        evidence="its card; verl's example geo3k.py",
    ),
    PublicSet(name="geo170k", subset="geo170k(qa)", **_CONVERSATIONS),
    PublicSet(name="mavis_geometry", subset="mavis_math_rule_geo", **_CONVERSATIONS),
    PublicSet(
        name="mmk12",
        hub="FanqingM/MMK12",
        domain="mathematics",
        columns=("question", "answer", "image"),
        read=read.open_question("question", "answer", "image", "math"),
        kinds=("math",),
        evidence="its card",
    ),
    PublicSet(
        name="icon_qa",
        hub="lmms-lab/ICON-QA",
        train="val",
        domain="mathematics",
        columns=("question", "choices", "answer", "query_image", "ques_type"),
        optional=tuple(f"choice_image_{number}" for number in range(10)),
        read=read.icon_qa,
        kinds=("multiple_choice", "short"),
        evidence="scripts that read it; its splits are val and test",
    ),
    PublicSet(
        name="virl39k",
        hub="TIGER-Lab/ViRL39K",
        domain="natural",
        columns=("question", "answer", "image"),
        read=read.open_question("question", "answer", "image", "math"),
        kinds=("math",),
        streamed=False,
        evidence="scripts that read it; pictures are paths into its images.zip",
    ),
    PublicSet(
        name="chartqa",
        hub="HuggingFaceM4/ChartQA",
        validation="val",
        domain="chart",
        columns=("image", "query", "label"),
        read=read.open_question("query", "label", "image", "short"),
        kinds=("short",),
        # The benchmark's relaxed accuracy.
        tolerance=0.05,
        licence="gpl-3.0",
        evidence="its card",
    ),
    PublicSet(
        name="dvqa",
        hub="HuggingFaceM4/the_cauldron",
        subset="dvqa",
        domain="chart",
        columns=("images", "texts"),
        read=read.cauldron,
        kinds=("short",),
        evidence="torchtune's reader of this collection",
    ),
    PublicSet(
        name="scienceqa",
        hub="derek-thomas/ScienceQA",
        validation="validation",
        domain="science",
        columns=("image", "question", "choices", "answer"),
        optional=("hint",),
        read=read.scienceqa,
        kinds=("multiple_choice",),
        licence="cc-by-sa-4.0; its text says CC BY-NC-SA 4.0",
        evidence="its card",
    ),
    PublicSet(
        name="m3cot",
        hub="LightChen2333/M3CoT",
        validation="validation",
        domain="science",
        columns=("image", "question", "choices", "answer"),
        optional=("context",),
        read=read.m3cot,
        kinds=("multiple_choice",),
        evidence="scripts that evaluate on it",
    ),
    PublicSet(
        name="swe_smith",
        hub="SWE-bench/SWE-smith",
        read=read.issues(introduces=True),
        licence="mit",
        evidence="its card; patch makes the bug",
        **_ISSUES,
    ),
    PublicSet(
        name="swe_gym",
        hub="SWE-Gym/SWE-Gym",
        read=read.issues(image=read.swe_gym_image),
        evidence="scripts that read it",
        **_ISSUES,
    ),
    PublicSet(
        name="swe_bench",
        hub="princeton-nlp/SWE-bench",
        validation="dev",
        read=read.issues(image=read.swe_bench_image),
        evidence="its features as printed by datasets; any table of the same columns with --path",
        **_ISSUES,
    ),
]
SETS: dict[str, PublicSet] = {one.name: one for one in _ALL}
