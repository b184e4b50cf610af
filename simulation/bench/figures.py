"""The figure of the fleets of growing size."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from clmm_core.report.drawing import INK, LINE, ORANGE, dress, new_figure, standing_alone
from clmm_core.report.lines import plural
from simulation.bench.targets import MAX_SERVER_BYTES
from simulation.bench.turn import Turn


def scaling_figure(turns: Sequence[Turn]) -> str | None:
    """Draw time a device and peak memory over the number of devices, as one `<svg>` element; None with fewer than two fleets."""
    if len(turns) < 2:
        return None
    sizes = [turn.setting.num_devices for turn in turns]
    times_ms = [1000 / turn.updates_per_s for turn in turns]
    memory = {name: [turn.peak_bytes[kind] / 1e6 for turn in turns] for name, kind in (("server", "server"), ("largest worker", "worker"))}
    figure = new_figure(8.6, 3.4)
    left, right = figure.subplots(1, 2)
    dress(left, x_label="devices", y_label="ms a device, wall time of a round", title="Time", grid="y")
    _line(left, sizes, times_ms, LINE, "")
    dress(right, x_label="devices", y_label="peak memory, MB", title="Memory of a process", grid="y")
    for (name, values), colour in zip(memory.items(), (LINE, ORANGE), strict=True):
        _line(right, sizes, values, colour, name)
    right.axhline(MAX_SERVER_BYTES / 1e6, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="to reach, server")
    right.legend(frameon=False, fontsize=9, labelcolor=INK)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{each:,}" for each in sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    return standing_alone(figure, "bench-scaling", _in_words(sizes, times_ms, memory))


def _line(axes: Axes, sizes: Sequence[int], values: Sequence[float], colour: str, name: str) -> None:
    axes.plot(sizes, values, color=colour, marker="o", markersize=5.5, linewidth=1.8, label=name)


def _in_words(sizes: Sequence[int], times_ms: Sequence[float], memory: Mapping[str, Sequence[float]]) -> str:
    ends = "; ".join(f"{name} from {values[0]:.0f} to {values[-1]:.0f} MB" for name, values in memory.items())
    return f"From {sizes[0]:,} to {plural(sizes[-1], 'device')}: {times_ms[0]:.1f} to {times_ms[-1]:.1f} ms a device; {ends}."
