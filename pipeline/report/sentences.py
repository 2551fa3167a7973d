"""A finding in plain words: shares become "of 100", signs become words, missing numbers make no claim."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

DASH = "–"
PLAIN_NAME = re.compile(r"[^\W\d_]+(?:[ ][^\W\d_]+)*")  # letters and single spaces: what can be inflected
ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
OBSERVATIONAL = (
    "The model under test is a file of its answers, which can't be shown an edited picture: every number here is "
    "observed in the data, and none shows that the model leans on a cue."
)


def number(value: Any) -> float:
    """A cell as a float: null and text become NaN."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def of_100(share: float, signed: bool = False) -> str:
    """A share in [-1, 1] as a count of 100: whole from 1 on, one decimal below, a dash where not measured."""
    if not math.isfinite(share):
        return DASH
    points = abs(share) * 100
    text = f"{points:.0f}" if points >= 0.95 else f"{points:.1f}".removesuffix(".0")
    if text == "0":
        return "0"
    sign = "−" if share < 0 else "+" if signed else ""
    return sign + text


def interval(lower: float, upper: float) -> str:
    """The bounds of an interval of shares, for example `(22 to 40)`; empty where either is missing."""
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return ""
    return f"({of_100(lower)} to {of_100(upper)})"


def decimal(value: Any, digits: int = 2) -> str:
    """A number with a real minus sign; a dash where not measured."""
    value = number(value)
    if not math.isfinite(value):
        return DASH if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.{digits}f}".replace("-", "−")


def small(value: Any) -> str:
    """A p- or q-value with two significant digits, or `<0.001`."""
    value = number(value)
    if math.isnan(value):
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.2g}" if value < 0.0995 else f"{value:.2f}"


@functools.cache
def _inflect() -> Any:
    import typeguard

    names = vars(typeguard)
    checked = names["typechecked"]
    names["typechecked"] = lambda function: function  # it rewrites inflect's source at each import, for seconds
    try:
        import inflect
    finally:
        names["typechecked"] = checked
    return inflect.engine()


def words(name: str) -> str:
    """A label as words: underscores and hyphens become spaces, control characters go."""
    spaced = re.sub(r"[_\-\s]+", " ", "".join(c for c in name if c.isprintable() or c.isspace())).strip()
    return spaced or "(no name)"


def _countable(name: str) -> bool:
    return bool(PLAIN_NAME.fullmatch(name)) and name.isascii() and 3 <= len(name) <= 40


def _is_plural(name: str) -> bool:
    # inflect takes bus, iris and grass for plurals; labels are singular far more often
    return bool(_inflect().singular_noun(name)) and not name.endswith(("us", "is", "as", "ss", "lens"))


@functools.cache
def plural(label: str) -> str:
    """`boat` as `boats`; a name that is no plain word as `images of “name”`."""
    name = words(label)
    if not _countable(name):
        return f"images of “{name}”"
    return name if _is_plural(name) else _inflect().plural_noun(name)


@functools.cache
def one(label: str) -> str:
    """`boat` as `a boat`, `owl` as `an owl`; a name that is no plain word in quotes."""
    name = words(label)
    if not _countable(name):
        return f"“{name}”"
    return name if _is_plural(name) else _inflect().a(name)


def called(finding: Row) -> str:
    """What people call a finding's cue, or else its own name."""
    return str(finding.get("called") or finding["cue"])


def manner(finding: Row, operator: str = "") -> str:
    """How a cue is ablated: region, background or the look of the whole; without `operator` (cues table), by type."""
    if operator:
        kind = operator.partition(":")[0]
        return "property" if kind == "geometry" else kind
    if finding["kind"] == "unnamed" or finding["cue_type"] in ("Co-occurring Objects", "Shape", ""):
        return "region"
    return "background" if finding["cue_type"] == "Background" else "property"


def conditions(finding: Row, operator: str = "") -> tuple[str, str]:
    """The two experiments in words: removal ("Without the buoy"), insertion ("With the buoy pasted in")."""
    own = words(called(finding))
    name = ARTICLE.sub("", own) or own
    how = manner(finding, operator)
    if how == "property":
        return f"Without the look “{name}”", f"With the look “{name}” added"
    if finding["kind"] == "unnamed" and not finding.get("called"):
        regions = name if name.startswith("regions") else f"regions “{name}”"
        return f"Without the {regions}", f"With {regions} pasted in"
    if how == "background":
        if "background" in name.lower():
            return f"Without the {name}", f"With the {name}"
        return f"Without the {name} in the background", f"With the {name} as background"
    return f"Without the {name}", f"With the {name} pasted in"


def _claim(start: str, rest: str, finding: Row, direction: str) -> str:
    """`{start} 31 more {rest} (22 to 40).`, the sign in words; empty where the effect was not measured."""
    effect, low, high = (number(finding[f"{direction}_effect{end}"]) for end in ("", "_lower", "_upper"))
    if math.isnan(effect):
        return ""
    if of_100(effect) == "0":
        return f"{start} no more {rest} than before {interval(low, high)}".rstrip() + "."
    if effect < 0:
        bounds, change = interval(-high, -low), f"{of_100(-effect)} fewer"
    else:
        bounds, change = interval(low, high), f"{of_100(effect)} more"
    doubt = ", which may be chance" if bounds and low <= 0 <= high else ""
    return f"{start} {change} {rest} {bounds}".rstrip() + f"{doubt}."


def removal(finding: Row, operator: str = "") -> str:
    """`Without the buoy the model misses 31 more of 100 boats (22 to 40).` Empty where not measured."""
    start = f"{conditions(finding, operator)[0]} the model misses"
    return _claim(start, f"of 100 {plural(str(finding['class']))}", finding, "removal")


def insertion(finding: Row, operator: str = "", subject: str = "the model") -> str:
    """`With the buoy pasted in it calls 18 more of 100 other images a boat.` Empty where not measured."""
    start = f"{conditions(finding, operator)[1]} {subject} calls"
    return _claim(start, f"of 100 other images {one(str(finding['class']))}", finding, "insertion")


def sentence(finding: Row, operator: str = "") -> str:
    """Both experiments in plain words, or that neither was made."""
    first = removal(finding, operator)
    second = insertion(finding, operator, "it" if first else "the model")
    said = " ".join(text for text in (first, second) if text)
    things = plural(str(finding["class"]))
    return said or f"“{words(called(finding))}” was not put to the test on {things}."


def harm(finding: Row) -> str:
    """`8 of 100 predictions (5 to 11)`, or a dash."""
    worth = number(finding["harm"])
    if math.isnan(worth):
        return DASH
    bounds = interval(number(finding["harm_lower"]), number(finding["harm_upper"]))
    return f"{of_100(worth)} of 100 predictions {bounds}".strip()


def calls(costs: Row) -> str:
    """What calls of services came to, from `costs` of run.json: `120 with 9,000 tokens; 3 retries`, or `none`."""
    made = int(costs.get("calls") or 0)
    if not made:
        return "none"
    text = f"{made:,} with {int(costs.get('tokens') or 0):,} tokens"
    if costs.get("usd") is not None:
        text += f", {number(costs['usd']):.2f} US dollars"
    said = (
        ("retries", "tried again once", "tried again {} times"),
        ("refused", "1 refused by the model", "{} refused by the model"),
        ("unread", "1 reply that could not be read", "{} replies that could not be read"),
        ("failed", "1 that failed", "{} that failed"),
        ("dropped", "1 proposal dropped", "{} proposals dropped"),
    )
    counts = [(int(costs.get(name) or 0), one, many) for name, one, many in said]
    parts = [one if count == 1 else many.format(f"{count:,}") for count, one, many in counts if count]
    return "; ".join([text, *(parts or ["none tried again, refused or unread"])])


def ablation(spent: Row) -> str:
    """What the edits of an audit were spent on, from `ablation` of run.json; empty where it has none."""
    experiments = list(spent.get("experiments") or [])
    forwards, whole = int(spent.get("forwards") or 0), int(spent.get("exhaustive_forwards") or 0)
    if not experiments or not whole:
        return ""
    if spent.get("mode") != "racing":
        return f"Ablation showed the model {forwards:,} edited images: every image of an experiment with every fill."
    reasons: dict[str, list[int]] = {}
    for row in experiments:
        reasons.setdefault(row["stopped"], []).append(int(row["forwards"]))
    parts = [
        f"{sum(costs):,} in {len(costs):,} {'experiment' if len(costs) == 1 else 'experiments'} ({why})"
        for why, costs in sorted(reasons.items(), key=lambda item: -sum(item[1]))
    ]
    return (
        f"Ablation showed the model {forwards:,} edited images where testing everything would have taken {whole:,} "
        f"({100 * forwards / whole:.0f} %): {'; '.join(parts)}."
    )
