"""A saturating power law ``L(C) = a + b C^-c`` through points, and how little they may say about it.

For a given exponent the law is linear in ``a`` and ``b``, so a fit is a search over ``c`` alone, in which least
squares are exact: no start values, no local optimum (variable projection, Golub and Pereyra, 1973).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_SIZES, MIN_POINTS = 4, 5
_EXPONENTS = np.geomspace(0.01, 3.0, 400)
_RESAMPLES = 1000
_TAILS = (0.025, 0.975)
Interval = tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """A fitted law; intervals are 95 %, by resampled residuals.

    Attributes:
        a: what no size gets below.
        b: factor, for ``C`` in the unit of the points.
        c: exponent.
        a_interval: of ``a``.
        c_interval: of ``c``.
        determined: whether the interval of ``c`` stays inside the search and that of ``a`` above 0; if not, the
            points do not show where the law bends, and it is no forecast.
        residual: root mean square of the residuals, ``n - 3`` below.
    """

    a: float
    b: float
    c: float
    a_interval: Interval
    c_interval: Interval
    determined: bool
    residual: float
    _scale: float
    _laws: Floats

    def __call__(self, x: Floats) -> Floats:
        """The law at ``x``."""
        return self.a + self.b * x**-self.c

    def band(self, x: Floats) -> tuple[Floats, Floats]:
        """95 % interval of the law (not of a further run) at each of ``x``."""
        a, b, c = self._laws.T[:, :, None]
        low, high = np.quantile(a + b * (x / self._scale) ** -c, _TAILS, axis=0)
        return low, high


def fit_power_law(x: Floats, y: Floats, *, seed: int = 0) -> PowerLaw | str:
    """Fit ``y = a + b x^-c`` with ``a, b >= 0`` by least squares; or why that is not possible.

    Args:
        x: ``[n]`` above 0.
        y: ``[n]`` what falls with ``x``.
        seed: of the resampled residuals.
    """
    if len(np.unique(x)) < MIN_SIZES or len(x) < MIN_POINTS:
        return f"a fit needs {MIN_SIZES} sizes and {MIN_POINTS} runs at least"
    # Around 1, so that no power of a large number is lost in rounding.
    scale = float(np.exp(np.log(x).mean()))
    fitted = _fit(x / scale, y[None])[0]
    a, b, c = (float(value) for value in fitted)
    residuals = y - (a + b * (x / scale) ** -c)
    degrees = len(x) - 3
    generator = np.random.default_rng(seed)
    # Residuals of a fit are smaller than the errors behind them.
    drawn = generator.choice(residuals * np.sqrt(len(x) / degrees), size=(_RESAMPLES, len(x)))
    laws = _fit(x / scale, (y - residuals) + drawn)
    low, high = np.quantile(laws, _TAILS, axis=0)
    inside = bool(low[2] > _EXPONENTS[1] and high[2] < _EXPONENTS[-2])
    return PowerLaw(
        a=a,
        b=b * scale**c,
        c=c,
        a_interval=(float(low[0]), float(high[0])),
        c_interval=(float(low[2]), float(high[2])),
        determined=inside and b > 0 and bool(low[0] > 0),
        residual=float(np.sqrt((residuals**2).sum() / degrees)),
        _scale=scale,
        _laws=laws,
    )


def _fit(x: Floats, rows: Floats) -> Floats:
    """``[R, 3]`` a, b, c of each of ``R`` rows of values ``[R, n]`` at ``x``."""
    powers = x[None] ** -_EXPONENTS[:, None]  # [E, n]
    centred = powers - powers.mean(1, keepdims=True)
    means = rows.mean(1)
    slopes = np.maximum(rows @ centred.T / (centred**2).sum(1), 0.0)  # [R, E]
    floors = means[:, None] - slopes * powers.mean(1)
    below = floors < 0
    through_zero = np.maximum(rows @ powers.T / (powers**2).sum(1), 0.0)
    slopes, floors = np.where(below, through_zero, slopes), np.where(below, 0.0, floors)
    squares = (rows**2).sum(1)[:, None] - 2 * slopes * (rows @ powers.T) - 2 * floors * rows.sum(1)[:, None]
    squares += slopes**2 * (powers**2).sum(1) + 2 * slopes * floors * powers.sum(1) + floors**2 * len(x)
    best = squares.argmin(1)
    each = np.arange(len(rows))
    return np.stack([floors[each, best], slopes[each, best], _EXPONENTS[best]], axis=1)
