"""Published normal ranges of cardiac measures, with their source.

A range is shown beside a measure so that a reader sees at once what is unusual. It is no diagnosis: the
ranges are those of healthy white adults of 45 to 74 years in the UK Biobank, contoured by hand in
short-axis slices, with papillary muscles counted as blood. Sex is not known here, so both ranges are
given, and a measure is only called outside where it is outside both.
"""

from __future__ import annotations

from typing import NamedTuple

CITATION = (
    "Petersen SE, Aung N, Sanghvi MM, et al. Reference ranges for cardiac structure and function using "
    "cardiovascular magnetic resonance (CMR) in Caucasians from the UK Biobank population cohort. "
    "Journal of Cardiovascular Magnetic Resonance 19:18, 2017. doi:10.1186/s12968-017-0327-9"
)
POPULATION = (
    "800 healthy white adults, 368 men and 432 women, of 45 to 74 years, at 1.5 T; papillary muscles "
    "counted as blood. Volumes: a value outside lies outside the 95 % prediction interval of every age "
    "group. Ejection fraction and indexed mass: mean ± 1.96 standard deviations. Sex and age of this "
    "patient are not known here; models hold the whole ventricle, hand contours end with the slices."
)


class Range(NamedTuple):
    """Normal values of a measure, men and women; both ends belong to it."""

    men: tuple[float, float]
    women: tuple[float, float]

    def place(self, value: float) -> str:
        """Say where a value lies: ``"within"``, ``"below"`` or ``"above"`` both, or of one sex.

        Examples
        --------
        >>> from cardiacreg.reports.reference_ranges import RANGES
        >>> RANGES["LVEDV"].place(60.0), RANGES["LVEDV"].place(200.0), RANGES["LVEDV"].place(120.0)
        ('below', 'within men only', 'within')
        """
        inside = [low <= value <= high for low, high in (self.men, self.women)]
        if all(inside):
            return "within"
        if any(inside):
            return f"within {'men' if inside[0] else 'women'} only"
        low = min(self.men[0], self.women[0])
        return "below" if value < low else "above"


def _spread(mean: float, deviation: float) -> tuple[float, float]:
    return (round(mean - 1.96 * deviation, 1), round(mean + 1.96 * deviation, 1))


RANGES = {
    "LVEDV": Range((93, 232), (80, 175)),
    "LVESV": Range((34, 103), (25, 73)),
    "LVSV": Range((49, 140), (47, 110)),
    "LVEF": Range(_spread(58, 5), _spread(61, 5)),
    "RVEDV": Range((99, 260), (83, 192)),
    "RVESV": Range((34, 135), (26, 95)),
    "RVSV": Range((54, 140), (47, 107)),
    "LVEDVi": Range((52, 117), (50, 101)),
    "LVESVi": Range((19, 52), (16, 43)),
    "LVSVi": Range((28, 70), (29, 63)),
    "RVEDVi": Range((55, 128), (51, 110)),
    "RVESVi": Range((19, 67), (16, 55)),
    "RVSVi": Range((30, 69), (29, 61)),
    "LVMi": Range(_spread(53, 9), _spread(42, 7)),
}
"""By the name of `measures.Row`: ml, %, ml/m2 and g/m2."""
