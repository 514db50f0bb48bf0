"""Energy and carbon of a computation: power x time x what the grid emits. Ranges, with every assumption printed.

    print(of_flops(6 * 7e9 * 140e9, "h100"))      # a training run counted in FLOPs
    print(of_time(2 * 3600, "rtx4090", grid="France"))
    print(of_time(90, 45))                        # 90 seconds at 45 watts, a laptop

| factor | low | high | why |
|---|---|---|---|
| utilisation: share of the peak FLOP/s reached | 0.30 | 0.50 | an assumption: what well-tuned training reaches |
| power: share of the card's maximum drawn | 0.7 | 1.0 | an assumption; measure yours (nvidia-smi, a wall meter) |
| host: processors, memory and fans, on top of the card | 1.1 | 1.5 | an assumption |
| building (PUE): cooling and losses | 1.1 | 1.58 | Google's fleet; the average of Uptime Institute's survey of 2023 |
| grid, g CO₂e per kWh | 30 | 713 | Norway to India, 2023, Ember |

The low end multiplies all lows, the high end all highs: an interval that almost surely holds the truth, and is wide for
that reason. Not counted: making the hardware, failed runs, the search for settings, data and network, and serving
the model afterwards. A number without these words is not worth quoting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from peftlab.costs.latency import Device, find
from peftlab.errors import PeftLabError

# Grams of CO₂-equivalent per kWh of electricity generated in 2023 (Ember, by way of Our World in Data and Statista).
GRID = {"Norway": 30, "France": 56, "Germany": 381, "world": 481, "Australia": 549, "China": 582, "India": 713}
GRID_SOURCE = "Ember, electricity generation in 2023"
UTILISATION = (0.30, 0.50)
POWER_SHARE = (0.7, 1.0)
HOST = (1.1, 1.5)
PUE = (1.1, 1.58)
JOULES_PER_KWH = 3.6e6
# Units, smallest first: name, and how many of the stored unit it is.
TIME = (("s", 1 / 3600), ("min", 1 / 60), ("h", 1.0), ("days", 24.0))
ENERGY = (("mWh", 1e-6), ("Wh", 1e-3), ("kWh", 1.0), ("MWh", 1e3))
CARBON = (("mg CO2e", 1e-3), ("g CO2e", 1.0), ("kg CO2e", 1e3), ("t CO2e", 1e6))


@dataclass(frozen=True)
class Energy:
    """kWh and grams of CO₂-equivalent, each a (low, high) pair, and what was assumed."""

    title: str
    kwh: tuple[float, float]
    grams: tuple[float, float]
    hours: tuple[float, float]
    assumptions: Mapping[str, str]

    def __str__(self) -> str:
        lines = [self.title, "-" * len(self.title)]
        lines.append(f"time      {_with_unit(self.hours, TIME)}")
        lines.append(f"energy    {_with_unit(self.kwh, ENERGY)}")
        lines.append(f"carbon    {_with_unit(self.grams, CARBON)}")
        lines.append("assumed:")
        lines += [f"  {name}: {value}" for name, value in self.assumptions.items()]
        return "\n".join(lines)

    __repr__ = __str__


def of_flops(
    flops: float,
    device: str | Device = "h100",
    *,
    utilisation: tuple[float, float] = UTILISATION,
    power_share: tuple[float, float] = POWER_SHARE,
    host: tuple[float, float] = HOST,
    pue: tuple[float, float] = PUE,
    grid: str | tuple[float, float] | None = None,
) -> Energy:
    """Energy of a computation of `flops`, on as many cards as you like: the number cancels out.

    grid: a place in `GRID`, a (low, high) pair in g/kWh, or None for the range from Norway to India. Each range can be
    narrowed to (x, x) once it was measured. Raises PeftLabError for a range that is not one.
    """
    _above_zero("flops", flops)
    machine = find(device)
    low, high = _range("utilisation", utilisation)
    if high > 1:
        raise PeftLabError(f"utilisation={utilisation!r}: it is a share of the peak, at most 1")
    seconds = (flops / (machine.flops * high), flops / (machine.flops * low))
    said = {"work": f"{flops:.2g} FLOPs", "utilisation": f"{low:g} to {high:g} of {machine.flops:.3g} FLOP/s"}
    return _energy(f"{flops:.2g} FLOPs on {machine.name}", seconds, machine.watts, power_share, host, pue, grid, said)


def of_time(
    seconds: float,
    device: str | Device | float = "h100",
    *,
    power_share: tuple[float, float] | None = None,
    host: tuple[float, float] | None = None,
    pue: tuple[float, float] | None = None,
    grid: str | tuple[float, float] | None = None,
) -> Energy:
    """Energy of one machine that ran for `seconds`. device: a card as above, or the watts that were measured at the
    plug; then host and building are taken to be in them (1, 1), unless you say otherwise."""
    _above_zero("seconds", seconds)
    measured = isinstance(device, int | float) and not isinstance(device, bool)
    watts, name = (float(device), f"{device:g} W at the plug") if measured else (find(device).watts, find(device).name)
    _above_zero("watts", watts)
    none = (1.0, 1.0)
    return _energy(
        f"{_digits(seconds, 2)} s on {name}",
        (seconds, seconds),
        watts,
        power_share or (none if measured else POWER_SHARE),
        host or (none if measured else HOST),
        pue or (none if measured else PUE),
        grid,
        {"time": f"{seconds:g} s"},
    )


def about(low: float, high: float, unit: str = "") -> str:
    """A range with no more digits than it deserves: two if its ends are close, one if they are far apart."""
    digits = 1 if high > 1.5 * low else 2
    a, b = _digits(low, digits), _digits(high, digits)
    text = f"about {a}" if a == b else f"{a} to {b}"
    return f"{text} {unit}".strip()


def _with_unit(pair: tuple[float, float], units: tuple[tuple[str, float], ...]) -> str:
    """In the largest unit in which the high end is at least 1."""
    unit, size = next(((u, s) for u, s in reversed(units) if pair[1] >= s), units[0])
    return about(pair[0] / size, pair[1] / size, unit)


def _energy(
    title: str,
    seconds: tuple[float, float],
    watts: float,
    power_share: tuple[float, float],
    host: tuple[float, float],
    pue: tuple[float, float],
    grid: str | tuple[float, float] | None,
    said: Mapping[str, str],
) -> Energy:
    shares = {
        "power_share": _range("power_share", power_share),
        "host": _range("host", host),
        "pue": _range("pue", pue),
    }
    grams_per_kwh, where = _grid(grid)
    kwh = tuple(
        seconds[end] * watts * math.prod(share[end] for share in shares.values()) / JOULES_PER_KWH for end in (0, 1)
    )
    grams = tuple(kwh[end] * grams_per_kwh[end] for end in (0, 1))
    assumptions = {
        **said,
        "power": f"{_span(power_share)} of {watts:g} W",
        "host": f"{_span(host)} times that",
        "building": f"PUE {_span(pue)}",
        "grid": f"{_span(grams_per_kwh)} g CO2e/kWh ({where})",
        "not counted": "making the hardware, failed runs, the search for settings, data, network, serving",
    }
    return Energy(title, kwh, grams, (seconds[0] / 3600, seconds[1] / 3600), assumptions)


def _grid(grid: str | tuple[float, float] | None) -> tuple[tuple[float, float], str]:
    if grid is None:
        return (min(GRID.values()), max(GRID.values())), f"from Norway to India; {GRID_SOURCE}"
    if isinstance(grid, str):
        if grid not in GRID:
            raise PeftLabError(f"grid={grid!r}: known are {', '.join(GRID)}; or give (low, high) in g CO2e per kWh")
        return (GRID[grid], GRID[grid]), f"{grid}; {GRID_SOURCE}"
    return _range("grid", grid), "as given"


def _range(name: str, pair: tuple[float, float]) -> tuple[float, float]:
    good = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)
    if not good or not 0 < pair[0] <= pair[1]:
        raise PeftLabError(f"{name}={pair!r}: give (low, high), both above 0 and low first")
    return tuple(pair)


def _above_zero(name: str, value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise PeftLabError(f"{name}={value!r}: give a number above 0")


def _span(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g} to {pair[1]:g}"


def _digits(value: float, digits: int) -> str:
    """`value` rounded to this many significant digits, without an exponent where that reads well."""
    if value == 0:
        return "0"
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"
