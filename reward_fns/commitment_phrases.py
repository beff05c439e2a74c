"""The phrases by which a sentence commits to a label, denies one, or leaves the matter open.

They are for sentences in lower case in which labels are characters of the private use area (``commitment``).
"""

from __future__ import annotations

import re

NOUN, MARK, VOID = "\ue001", "\ue002", "\ue003"
_LABEL = "[\ue100-\uf8ff]"
_LAB = f"{NOUN}?({_LABEL})"
ANY = re.compile(_LAB)
# Letters of scripts without blanks between words may touch a label.
LETTER = r"[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"

_NOUNS = (
    "options?|choices?|contexts?|candidate|label|letter|trace|run|trajectory|image|picture|opción|contexto|contexte"
    "|kontext|imagen|bild|选项|選項|上下文|图片?|選択肢|コンテキスト|文脈|画像|선택지|옵션|컨텍스트|문맥|보기|이미지"
)
NOUNS = rf"(?:the\s)?(?:{_NOUNS})[\s:]{{1,3}}"
AROUND = r"""[\s*_"'“”‘’`(\[{<)\]}>$]{0,8}"""
_OPEN, _CLOSE = r"""["'“‘`(\[{<_]""", r"""["'”’`)\]}>_]"""
NOUN_BEFORE = re.compile(
    rf"(?:{_NOUNS})\s{{0,3}}{_OPEN}{{0,3}}(?={_LABEL})"
    rf"|\bthe\s({_LABEL})\s(?:option|choice|context|image|picture|trace|run)\b"
)
WRAPPED = re.compile(rf"{_OPEN}{{1,4}}([{NOUN}{MARK}]?{_LABEL})[.]?{_CLOSE}{{1,4}}|(?<={_LABEL})()\)")
QUOTED = re.compile(r"""["“`][^"”`]{1,200}["”`]|(?<!\w)['‘][^'’]{1,200}['’](?!\w)""")
# "(b)", "option b", "answer: b" and b alone, for labels that are capital letters.
LOWER = re.compile(
    r"(?<=\()[a-z](?=\))|\b(?i:option|choice|context|answer(?: is)?:?) \(?[a-z](?=\)?\s{0,3}(?:\Z|[.,;:!)\n]"
    r"|is\b|supports\b))"
    r"|(?i:option|choice|answer|context) is:? \(?[a-z](?=[).]{0,2}\s{0,3}(?:\Z|\n))|\A\W{0,6}[a-z]\W{0,6}\Z"
)

# ---- what may stand behind a label that something announced: an article is no label, as in "Answer: A dog"
_WHY = (
    r"(?:because|since|as|for|due|given|based|rather|over|instead|not|which|while|whereas|but|so|and|it|the|this|that|here|too"
    r"|weil|da|car|parce|porque|ya)\b"
)
FOLLOW = re.compile(
    rf"\s?(?:\Z|[.,;:!)\]}}。，、；：！—–<(?]|-{{1,2}}\s|{_WHY}|です|である|だ(?!\w)|となり|이다|입니다|이에요|예요|因|选项|選項)"
)
NAKED_WHY = re.compile(r"\s?(?:[—–]|-{1,2}\s|[,;，、]|(?:because|since|not|as\s(?:it|the|only)|rather than)\b|[（(])")
CONDITION = re.compile(r"\s(?:only\s)?(?:if|unless)\b|\s?\?")
NEXT_LABEL = re.compile(
    r"[.…]{0,3}\s?(?:,?\s?(?:or|and|nor|vs\.?|versus|then|and\s?/\s?or|oder|und|ou|et|o|y|u)\s(?:\w{1,12}\s){0,2}|[,/&|+]\s?"
    rf"|[或和与と、]|か|또는|[와과]\s){_LAB}"
)

ANOTHER_BEFORE = re.compile(
    rf"{_LABEL}(?:\s?[,/&或かと和와과、]\s?|\s?또는\s|\s(?:and|or|nor|und|oder|noch|et|ou|ni|y|o)\s){NOUN}?\Z"
)
ITEM = re.compile(rf"(?:\A|[\s,;({{\"']){_LAB}[\"']?\s?[:).]")
# "(A) the dog": a bracket that parts the label from what it stands for.
PARTED = re.compile(
    rf"[(\[]{{0,4}}({_LABEL})[)\]]{{1,4}}(?=\s(?!(?:is|was|or|and|nor|supports|matches|does|do|can|could|might|may|would"
    r"|because|since|not|as)\b)\w)"
)

# ---- what commits
_IS = (
    r"\s?(?:[:=]|(?:is|was|would be|should be|must be|has to be)\b\s?:?)"
    r"(?:\s(?:clearly|therefore|definitely|then|thus|still))?\s?"
)
_KIND = rf"(?:one|answer|pick|selection|match|fit|{_NOUNS})"
_GOOD = r"(?:correct|right|best|better|supporting|matching|chosen|selected|final|true)"
_SURE = (
    r"(?:\s(?:only|alone|clearly|best|better|fully|directly|actually|therefore|thus|definitely|indeed|correctly)){0,2}"
)
_BACKS = (
    r"(?:supports?|matches|answers|backs|confirms|corresponds to|explains|fits|contains|holds|gives|produced|made"
    r"|wrote)"
)
_THING = (
    r"(?:the\s|this\s|that\s|your\s)?(?:given\s|stated\s|correct\s|reference\s)?"
    r"(?:answer|patch|question|query|diff|it)\b"
)
_THE = r"(?:the\s|la\s|le\s|el\s|l['’]|die\s|der\s)?"
_PLEDGE = (
    r"(?:choose|chose|chosen|choosing|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)? (?:with|for)|say|answer(?: with)?"
    r"|get|conclude)"
)
SLOT = re.compile(rf"[\s\"'“(:=]{{0,6}}{_THE}{_LAB}")
# Behind the label.
BEHIND = re.compile(
    rf"{_SURE}(?:,?\sis|['’]s){_SURE}\s(?:the\s)?(?:only\s)?(?:{_GOOD}|one|answer)(?:\s{_KIND})?"
    rf"(?=\s?(?:\Z|[.,;:!—–(-]|to\b|that\b|with\b|\w{{2,9}}ing\b|supported\b|{_WHY}))"
    rf"|{_SURE}\s(?:is what\s)?{_BACKS}\s{_THING}|\s(?:as|being)?\s?the\s{_GOOD}\s{_KIND}\b"
    r"|\s?[是才]?\s?(?:正确|正確|对的|支持)|[がは](?:正しい|正解|適切)|が\w{0,8}(?:裏付け|支持|サポート)"
    r"|[이가은는]?\s?(?:정답|맞|옳)|[이가은는]\s?\w{0,6}\s?(?:뒷받침|지지)"
    r"|(?:です|である|입니다|이다)(?=[。.!\s]|\Z)"
    r"|\s(?:ist\s)?(?:die|der)\s(?:richtige|korrekte)\b|\sist\s(?:richtig|korrekt)|\s(?:stützt|belegt|unterstützt)\b"
    r"|\sest\s(?:la\s|le\s)?(?:bonn?e?|correcte?|juste)\b|\s(?:soutient|appuie|confirme)\b"
    r"|\ses\s(?:la\s|el\s)?correct[ao]\b|\s(?:respalda|apoya|confirma)\b"
)
# Before it; they are looked for only in a sentence that holds one of the literals.
BEHIND_LITERALS = (
    "correct|right|best|better|support|match|final|chosen|selected|my |i |i'|i’|we |which|that|so |thus|"
    "therefore|hence|evidence|proof|patch|answer|question|选|应|應|選|正|richtig|korrekt|wähle|choisis|elijo|beste|"
    "bonne|c'est|c’est"
).split("|")
BEHIND_CUES = re.compile(
    "(?:"
    + "|".join(
        (
            rf"\b(?:{_GOOD}|my)\s{_KIND}(?:\s(?:here|overall))?{_IS}{_THE}",
            rf"\bonly\s{_KIND}\s(?:that|which|with)\s[^.;:,]{{1,60}}{_IS}",
            rf"\b{_KIND}\s(?:(?:that|which)\s(?:best\s)?{_BACKS}|supporting|matching|with\s(?:the\s)?(?:supporting|right"
            rf"|correct|relevant|matching))\s[^.;:,]{{1,60}}{_IS}{_THE}",
            r"\b(?:i|we)(?:['’](?:ll|d|m|ve))?\s(?:(?:will|would|have|am|therefore|thus|hence|must|finally|shall|should|can"
            rf"|now)\s){{0,2}}{_PLEDGE}\s{_THE}",
            r"\b(?:answer|question|patch|diff|it|evidence|support|proof)\b(?:\s\w{1,12}){0,5}?\s(?:comes from"
            r"|belongs to|(?:supported|produced|made|written|given|created)\s(?:by|in)|matches\s(?:\w{1,12}\s){1,3}in"
            r"|(?:is|only|found|shown|given|contained|lies) in)\s",
            r"[,;.:]\s(?:and\s)?(?:so|thus|therefore|hence)\s(?:it is\s|it's\s|it must be\s|the\s)?",
            r"(?:[选選][择擇]?|[应應][为為])\s?",
            r"正[确確]的?\w{2,3}[是为為]\s?",
            rf"\b(?:richtige|korrekte|beste)\s\w{{2,12}}\s(?:ist|lautet)\s{_THE}",
            r"\brichtig ist\s(?:option\s)?",
            r"\bist\s(?:die\s|der\s)?(?:richtige|korrekte|beste)\s\w{2,12}\s",
            rf"\b(?:bonne?|correcte?)\s(?:\w{{2,12}}\s)?est\s{_THE}",
            rf"\b(?:ich wähle|je choisis|elijo|c['’]est)\s{_THE}",
            rf"\bcorrect[ao]\ses\s{_THE}",
        )
    )
    + r")\Z"
)
_SO = (
    r"(?:so|thus|therefore|hence|consequently|accordingly|in conclusion|to sum up|in short|overall|finally|conclusion"
    r"|verdict|result|response|prediction"
    r"|decision|it is|it's|it’s|it must be|it has to be|(?:this|that|it|which)\s(?:best\s|only\s)?"
    r"(?:matches|corresponds to|points to|fits|supports|leaves)|definitely|clearly|obviously|certainly"
    r"|i think|i believe"
    r"|choose|pick|select|selected|chosen|my|the|final|best|correct|supporting|matching"
    rf"|right|daher|also|donc|por lo tanto|entonces|因此|所以|よって|따라서|selection|answer|{_NOUNS})"
)
SHORT = re.compile(
    rf"[^\w\ue000-\uf8ff]{{0,4}}(?:{_SO}[\s,:=，]{{1,4}}|{_SO}(?={NOUN})){{1,4}}{_LAB}|{_LAB}(?=です|である)"
)
NAKED = re.compile(rf"[^\w\ue000-\uf8ff\"'(\[{{]{{0,8}}(?:1\.\s)?{_LAB}")

# Sentences that need no closer look.
PLAIN = re.compile(
    r"(?:(?:(?:so|thus|therefore|hence)[, ]{1,2})?(?:the|my)? ?(?:final|correct|best)? ?"
    rf"(?:answer|option|choice|context)(?: is|:)? ?)?{MARK}({_LABEL})[.)]{{0,2}}"
)

# ---- what denies, and what leaves open
DENIED = re.compile(
    r"\b(?:not|never|neither|nor|cannot|doubt|deny|false|wrong|incorrect|unlikely|worst|isnt|nobody|no one"
    r"|nicht|kein|weder|noch)\b|n['’]t\b|不"
)
DENIES = re.compile(
    rf"(?:\b(?:not|never|neither|nor|isnt|except)\b|n['’]t\b)(?:\sbe)?\s{_LAB}"
    rf"|{_LAB}(?:\s(?:is|was|does|do|can|could|would))?(?:\snot|\snever|n['’]t)\b"
    rf"|{_LAB}\s(?:is|was)\s(?:\w{{1,12}}\s)?(?:wrong|incorrect|false|unlikely)\b"
)
NEGATED = re.compile(
    r"\s?(?:では|じゃ)|[가이은는]?\s?아[니닙]|\s(?:that|which)\s(?:\w{1,12}\s){0,2}(?:not|lacks?|fails?)\b"
)
OPEN_CASE = re.compile(
    r"\b(?:if|whether|suppose|supposing|assume|assuming|unless|either|other|opposite|distractor|might|may|perhaps|maybe"
    r"|could|possibly|probably|(?:previous|earlier|last|another) (?:example|question|case|round)|provided|in case"
    r"|as long as|on condition|for example"
    r"|wenn|falls|vielleicht|peut-être|quizás)\b"
    r"|\A\W*(?:which|what|should|had|were|when|otherwise|else|si|e\.g)\b|如果|若|可能|もし|만약"
)
# Looked for first: most sentences deny and hedge nothing.
DOUBT_LITERALS = (
    "not|n't|n’t|never|neither|nor |except|wrong|incorrect|false|unlikely|or |may|perhaps|probab|possib|oder|"
    "quiz|或|could|might|would|plausible|likely|valid|acceptable|otherwise|else|\ue003"
).split("|")
HEDGES = re.compile(
    rf"(?:\b(?:or|maybe|perhaps|possibly|probably|oder|quizás)|或)\s?(?:(?:even|rather)\s)?{_LAB}"
    rf"|\b(?:could|might|may)\s(?:\w{{1,8}}\s)?be\s{_LAB}"
    rf"|{_LAB}(?:\s\w{{1,10}}){{0,2}}\s(?:could|might|may|would)\s(?:\w{{1,8}}\s)?(?:be|work|fit|do|support|match)\b"
    rf"|{_LAB}\s(?:is|looks|seems)\s(?:\w{{1,10}}\s){{0,2}}(?:possible|plausible|likely|valid|acceptable)\b"
    rf"|\A\W*(?:otherwise|else)\b|{VOID}"
)
UNDECIDED = re.compile(
    r"\b(?:answer|choice|option)[\s*]{0,3}(?:is|was|:)[\s*\"'(]{0,4}(?:both|either|neither|none|unclear|unknown|undecided"
    r"|open)\b|\b(?:hard|impossible|difficult) to (?:say|tell|decide)\b|\bnot (?:sure|certain)\b|\bunsure\b"
    r"|\b(?:cannot|can['’]t|unable to) (?:say|tell|decide|determine|choose)\b"
    r"|\bboth (?:\w{1,9}\s)?(?:are correct|could|work)\b|\b(?:i was wrong|scratch that|made a mistake|i misread)\b"
)
SAID = re.compile(
    r"\b(?:log|output|text|page|file|line|message|sign|note|comment|string|caption|screen|prompt|instructions?|user|tool"
    r"|document|terminal|format|example|template|sheet|chat|replied)\b[^:]{0,40}:\s?[\"'“`]?\s?(?:the\s)?(?:\w{1,9}\s)?\Z|"
    r"\b(?:shows?|says?|said|contains?|reads?|writes?|wrote|prints?|printed|states?|reply with|respond with"
    r"|line|ends? with)\s?(?:[:,]\s?[\"'“`]?\s?(?:the\s(?:\w{1,9}\s)?)?|[\"'“`]\s?(?:the\s)?|)\Z"
)
CORRECTS = re.compile(
    r"\b(?:wait|actually|correction|sorry|scratch that|on second thought|mistake|misread|i was wrong|let me correct)\b"
    r"|(?:\A|[.,;…\n])\s{0,3}no,"
)
TURN = re.compile(r"\b(?:but|so|thus|therefore|hence|however)\b|;")
CLAUSE_END = re.compile(r"[.,;:!?\n，；]|\b(?:so|thus|therefore|hence|but|because|since)\b")
# Words that begin a sentence in another sense.
ADVERBS = frozenset({"first", "second", "third", "last", "next", "left", "right"})
