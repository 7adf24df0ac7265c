"""The verdict of a result: accept, look or reject, with its reasons in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import NamedTuple

from cardiacreg.errors import check_argument, check_arguments
from cardiacreg.results.guards import FAILED_AGREEMENT, GUARDED, Finding

ACCEPT, LOOK, REJECT = "accept", "look", "reject"
WORDS = (ACCEPT, LOOK, REJECT)
"""From the best to the worst."""
MEANINGS = {
    ACCEPT: "Nothing in the result's own numbers speaks against it.",
    LOOK: "Something should be looked at before the model is used.",
    REJECT: "The model does not follow its input: do not use it.",
}


class Verdict(NamedTuple):
    """What is advised about a result.

    Parameters
    ----------
    word : {"accept", "look", "reject"}
    reasons : tuple of str
        Sentences.
    codes : tuple of str
        Of the findings behind them, the most severe first.
    """

    word: str
    reasons: tuple[str, ...]
    codes: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """What the word stands for, in one sentence."""
        return MEANINGS[self.word]


def judge(
    findings: Iterable[Finding],
    *,
    agreement: Mapping[str, float | None] | None = None,
    minimum_jacobian: float | None = None,
) -> Verdict:
    """Advise about a result by its findings.

    A structure that agrees with the input by less than 0.5 rejects it (FAILED_AGREEMENT), any other
    finding asks for a look, and so does a deformation that folds.

    Parameters
    ----------
    findings : iterable of Finding
    agreement : mapping, optional
        Structure name to Dice with the input.
    minimum_jacobian : float, optional
        Smallest det(I + du/dx) of the deformations.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from cardiacreg.reports import judge
    >>> from cardiacreg.results.guards import find_problems
    >>> judge(find_problems({"LV wall": 0.7}, {}, slice_distance_mm=10.0)).word
    'look'
    >>> judge((), agreement={"LV wall": 0.97})
    Verdict(word='accept', reasons=('LV wall agrees least with the input, by 0.97 (Dice).',), codes=())
    """
    found = tuple(dict.fromkeys(findings))
    check_arguments(found, Finding, "judge: findings")
    check_argument(agreement, (Mapping, type(None)), "judge: agreement")
    for value in (*(agreement or {}).values(), minimum_jacobian):
        check_argument(value, (Real, type(None)), "judge: agreement and minimum_jacobian")
    reasons = [sentence(finding.message) for finding in found]
    folds = minimum_jacobian is not None and minimum_jacobian <= 0
    if folds:
        reasons.append(f"A deformation folds: its smallest Jacobian is {minimum_jacobian:.3f}.")
    codes = tuple(dict.fromkeys(finding.code for finding in found))
    if FAILED_AGREEMENT in codes:
        return Verdict(REJECT, tuple(reasons), codes)
    if found or folds:
        return Verdict(LOOK, tuple(reasons), codes)
    return Verdict(ACCEPT, tuple(_good(agreement or {}, minimum_jacobian)))


def _good(agreement: Mapping[str, float | None], minimum_jacobian: float | None) -> Iterable[str]:
    """Say what was looked at where nothing was found."""
    known = {name: dice for name, dice in agreement.items() if name in GUARDED and dice is not None}
    if known:
        least = min(known, key=lambda name: known[name])
        yield f"{least} agrees least with the input, by {known[least]:.2f} (Dice)."
    if minimum_jacobian is not None:
        yield f"No deformation folds: the smallest Jacobian is {minimum_jacobian:.3f}, above 0."


def sentence(text: str) -> str:
    """Return a message with a capital and a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
