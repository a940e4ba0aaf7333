"""A saturating power law ``L(C) = a + b C^-c`` through points, and how little they may say about it.

Least squares under bounds (``scipy.optimize.least_squares``), from several exponents, so that no local optimum is
taken for the law; intervals from refits to resampled residuals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

MIN_SIZES, MIN_POINTS = 4, 5
_EXPONENT_BOUNDS = (0.01, 3.0)
# An exponent so near to a bound lies on it.
_AT_BOUND = 1.01
_START_EXPONENTS = (0.03, 0.1, 0.3, 1.0)
_RESAMPLES = 400
_TAILS = (0.025, 0.975)
# Along a flat valley of undetermined laws steps shrink for ever; the law is called undetermined anyhow.
_MAX_EVALUATIONS = 60


@dataclass(frozen=True)
class PowerLaw:
    """A fitted law; intervals are 95 %, by resampled residuals.

    Attributes:
        a: floor, the value that no size gets below.
        b: factor, for ``C`` in the unit of the points.
        c: exponent.
        a_interval: interval of ``a``.
        c_interval: interval of ``c``.
        determined: whether the interval of ``c`` stays inside the bounds of the fit and that of ``a`` above 0; if
            not, the points do not show where the law bends, and it is no forecast.
        residual: root of the sum of squared residuals over ``n - 3``, in the unit of the points.
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
    """Fit ``y = a + b x^-c`` with ``a, b >= 0`` and ``c`` in 0.01 to 3; or why that is not possible.

    Args:
        x: ``[n]`` sizes above 0.
        y: ``[n]`` values that fall with ``x``.
        seed: seed of the resampled residuals.
    """
    if len(np.unique(x)) < MIN_SIZES or len(x) < MIN_POINTS:
        return f"a fit needs {MIN_SIZES} sizes and {MIN_POINTS} runs at least"
    # Around 1, so that no power of a large number is lost in rounding.
    scale = float(np.exp(np.log(x).mean()))
    log_x = np.log(x / scale)
    law, residuals = _best_fit(log_x, y)
    degrees = len(x) - 3
    generator = np.random.default_rng(seed)
    # Residuals of a fit are smaller than the errors behind them.
    drawn = generator.choice(residuals * np.sqrt(len(x) / degrees), size=(_RESAMPLES, len(x)))
    laws = np.array([_fit(log_x, y - residuals + errors, law)[0] for errors in drawn])
    low, high = np.quantile(laws, _TAILS, axis=0)
    a, b, c = (float(value) for value in law)
    least, most = _EXPONENT_BOUNDS
    inside = low[2] > least * _AT_BOUND and high[2] < most / _AT_BOUND
    return PowerLaw(
        a=a,
        b=b * scale**c,
        c=c,
        a_interval=(float(low[0]), float(high[0])),
        c_interval=(float(low[2]), float(high[2])),
        determined=bool(inside and b > 0 and low[0] > 0),
        residual=float(np.sqrt((residuals**2).sum() / degrees)),
        _scale=scale,
        _laws=laws,
    )


def _best_fit(log_x: Floats, y: Floats) -> tuple[Floats, Floats]:
    starts = [np.array([y.min() / 2, np.ptp(y), exponent]) for exponent in _START_EXPONENTS]
    fits = [_fit(log_x, y, start) for start in starts]
    return min(fits, key=lambda fit: float((fit[1] ** 2).sum()))


def _fit(log_x: Floats, y: Floats, start: Floats) -> tuple[Floats, Floats]:
    """``[3]`` a, b, c, and ``[n]`` residuals ``y`` minus the law."""
    from scipy.optimize import least_squares

    def misses(law: Floats) -> Floats:
        return law[0] + law[1] * np.exp(-law[2] * log_x) - y

    def jacobian(law: Floats) -> Floats:
        powers = np.exp(-law[2] * log_x)
        return np.column_stack([np.ones_like(log_x), powers, -law[1] * powers * log_x])

    least, most = _EXPONENT_BOUNDS
    low, high = np.array([0.0, 0.0, least]), np.array([np.inf, np.inf, most])
    # Of SciPy's two bounded methods the one that reaches a bound exactly: a floor of 0 is 0.
    found = least_squares(
        misses,
        np.clip(start, low, high),
        jac=jacobian,
        bounds=(low, high),
        method="dogbox",
        max_nfev=_MAX_EVALUATIONS,
    )
    return found.x, -found.fun
