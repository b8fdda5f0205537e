r"""Normalization of mathematical answers before they are parsed: boxes, number formats and units."""

import re
from fractions import Fraction

__all__ = [
    "boxed",
    "clean",
    "closed_up",
    "closing",
    "half_unit",
    "plain_numbers",
    "split_unit",
    "units_agree",
    "with_fractions",
    "with_suffix",
]

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BETWEEN = re.compile(r"(?:[\s$,;.]|\\[()\[\],;! ]|\\q?quad|\\text\{\s*(?:and|or)\s*\}|and|or)*")
"""Text between two boxes that form one answer."""
SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\\[,!; ]|~| )\d{3})+(?![\d,])")
"""Integer with spaces between groups of three digits; math-verify reads commas."""
SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+\.?\d*|\.\d+)[eE]([+-]?\d{1,3})(?![\w.])")
REPEATING = re.compile(r"(?<![\d.,])(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|\((\d+)\))(?!\d)")
MIXED = re.compile(r"(?<![\w.,/^)}\]+*-])(-?)(\d+) (\d+)/(\d+)(?![\w/.^])")
ADJACENT = re.compile(r"\d+(?:\.\d+)?(?: \d+(?:\.\d+)?)+")
"""Numbers with only blanks between them, of which math-verify would return the sum."""
DECIMAL = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d*)\.\d+(?![\w.])")
ROUNDED = re.compile(r"[+-]?(\d*)\.(\d+)(?:[eE]([+-]?\d{1,3})|\s*\\(?:times|cdot)\s*10\^\{?([+-]?\d{1,3})\}?)?")
SYMBOLS = "mm|cm|dm|km|m|in|ft|yd|mi|mg|kg|g|lb|oz|ms|min|h|s|ml|mL|l|L|kW|W|kJ|J|N|kPa|Pa|Hz|kV|V|mA|A|K|mph|per|sq|cu"
TOKEN = (
    r"(?:\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]*\}|\\?%|\^\s*\{?\s*\\circ\s*\}?|\\degree|\u00b0[CF]?"
    rf"|(?<=[\s/])(?:(?:{SYMBOLS})(?![A-Za-z])|[A-Za-z]{{4,}}))(?:\s*\^\s*\{{?-?\d\}}?)?"
)
UNIT = re.compile(rf"(.*?[^\s/~])((?:(?:[\s/~]|\\[ ,;]|\\cdot)*{TOKEN})+)")
CONSTANT = re.compile(r"(?:\\(?:[dt]?frac|sqrt|pi|times|cdot)|[^A-Za-z\\])*")
"""Value that unit words without `\text` may follow; otherwise they may be variables."""
SUFFIX = re.compile(rf"[A-Za-z]{{1,3}}(?![A-Za-z])| (?:{SYMBOLS})(?![A-Za-z])|(?::\d+)+")
"""Text after a number that can be a part of the answer: a variable, a unit, or the rest of a ratio."""
CURRENCIES = {"\\$": "dollar", "\u20ac": "euro", "\u00a3": "pound"}
NAMES = {
    "metre": "m", "meter": "m", "centimetre": "cm", "centimeter": "cm", "millimetre": "mm", "millimeter": "mm",
    "kilometre": "km", "kilometer": "km", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd",
    "mile": "mi", "gram": "g", "kilogram": "kg", "ounce": "oz", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "litre": "l", "liter": "l", "square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3",
    "per": "/", "percent": "%", "celsiu": "c", "fahrenheit": "f", "circ": "degree", "\u00b0": "degree",
}  # fmt: skip
"""Unit words in the singular, and the symbols that they are compared as."""


def boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{...}, or None; adjacent boxes are joined with commas."""
    parts: list[str] = []
    opened = list(BOX.finditer(text))[-20:]
    first = len(text)
    for match in reversed(opened):
        end = closing(text, match.end())
        if end is None or (parts and not BETWEEN.fullmatch(text, end + 1, first)):
            if parts:
                break
            continue
        if end < first:
            parts.append(text[match.end() : end])
            first = match.start()
    return ", ".join(reversed(parts)) if parts else None


def closing(text: str, start: int) -> int | None:
    """Return the position of the brace that closes the one before `start`, or None."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def clean(answer: str) -> str:
    """Return an answer without math delimiters, redundant whitespace and full stops at the end."""
    return " ".join(re.sub(r"(?<!\\)\$", "", answer).split()).rstrip(".").strip()


def plain_numbers(text: str) -> str:
    """Return a text with spaced thousands, scientific notation, repeating decimals and mixed numbers rewritten.

    Numbers with only blanks between them become a list, if there is nothing else.
    """
    text = SPACED.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = SCIENTIFIC.sub(lambda match: _quotient(Fraction(match[0])), text)
    text = REPEATING.sub(_repeating, text)
    text = MIXED.sub(lambda m: f"{m[1]}{int(m[2]) * int(m[4]) + int(m[3])}/{m[4]}", text)
    return ", ".join(text.split()) if ADJACENT.fullmatch(text) else text


def with_suffix(text: str, number: str) -> str:
    """Return the last occurrence of a number in a text with what may belong to it, as in `6m`; "" if nothing does."""
    _, found, after = text.rpartition(number) if number else ("", "", "")
    suffix = SUFFIX.match(after) if found else None
    return f"{number}{suffix[0]}" if suffix else ""


def closed_up(answer: str) -> str:
    """Return an answer without blanks between a number and a letter: `6m` for `6 m`."""
    return re.sub(r"(?<=\d) (?=[A-Za-z])", "", answer)


def with_fractions(text: str) -> str:
    """Return LaTeX with decimals as exact fractions, since math-verify compares floats to six decimals."""
    return DECIMAL.sub(lambda match: _quotient(Fraction(match[0].replace(",", ""))), text)


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, cycle = match[1], match[2], match[3] or match[4] or match[5]
    difference = int(whole + fixed + cycle) - int(whole + fixed or "0")
    return _quotient(Fraction(difference, 10 ** len(fixed) * (10 ** len(cycle) - 1)))


def _quotient(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def half_unit(reference: str, digits: int) -> tuple[Fraction, Fraction] | None:
    """Return a decimal and half a unit of its last digit; None if it is no decimal with enough significant digits."""
    match = ROUNDED.fullmatch(reference)
    if match is None or len((match[1] + match[2]).lstrip("0")) < digits:
        return None
    power = int(match[3] or match[4] or 0)
    value = Fraction(reference[: match.end(2)]) * Fraction(10) ** power
    return value, Fraction(10) ** (power - len(match[2])) / 2


def split_unit(answer: str) -> tuple[str, str]:
    """Return the value and the unit of an answer, "" without a unit. A currency sign is a unit."""
    unit = next((name for sign, name in CURRENCIES.items() if sign in answer), "")
    for sign in CURRENCIES:
        answer = answer.replace(sign, "")
    answer = answer.strip()
    match = UNIT.fullmatch(answer)
    if match and (
        CONSTANT.fullmatch(match[1].rpartition("=")[2]) or match[2].lstrip().startswith(("\\", "^", "%", "\u00b0"))
    ):
        answer, unit = match[1], f"{unit} {match[2]}"
    return answer, " ".join(sorted(_unit_words(unit)))


def _unit_words(unit: str) -> list[str]:
    words = []
    for word in re.findall(r"[A-Za-z]+|\^\{?-?\d|[%/\u00b0]", re.sub(r"\\(?:text|textrm|mathrm|mbox|cdot)", "", unit)):
        if word[0] == "^":
            power = word.strip("^{")
            words += ["/"] * power.startswith("-") + [f"^{power.strip('-')}"] * (power.strip("-") != "1")
        else:
            singular = word.lower().removesuffix("s") if len(word) > 2 else word
            words.append(NAMES.get(singular, singular))
    return [] if "unit" in words else words


def units_agree(one: str, other: str) -> bool:
    """Return True if units are equal, one of them is missing, or both are degrees and one has no scale."""
    left, right = set(one.split()), set(other.split())
    return not one or not other or one == other or ("degree" in left & right and (left <= right or right <= left))
