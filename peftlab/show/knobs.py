"""Knobs on a live model: choose rank, α and learning rate, train LoRA for a few steps, compare the runs."""

from __future__ import annotations

import copy
import html
import io
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import nn

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA
from peftlab.show import plots
from peftlab.tasks.datasets import Completions, Split
from peftlab.tasks.metrics import check_fits
from peftlab.tasks.training import Run, train

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WITHOUT_KERNEL = (
    "Knobs for LoRA: choose the rank r, α and the learning rate, press Train, and see the loss of each run beside the "
    "others. This panel trains a real model, so it needs a running kernel: run this cell in JupyterLab."
)


class Knobs(ipywidgets.VBox):
    """The panel that `retrain` makes. `runs` holds the finished runs, oldest first."""

    def __init__(
        self,
        start: nn.Module,
        tokenizer: Any,
        data: Split | Completions,
        held_out: Split | Completions,
        target_modules: str | list[str],
        settings: dict[str, Any],
    ) -> None:
        self.start, self.tokenizer, self.data, self.held_out = start, tokenizer, data, held_out
        self.target_modules, self.settings = target_modules, settings
        self.runs: list[Run] = []
        self.rank = _slider("rank r", RANKS, 8)
        self.alpha = _slider("α", ALPHAS, 16)
        self.rate = _slider("learning rate", RATES, 3e-3, shown="{:g}")
        self.train_button = ipywidgets.Button(description="Train", button_style="primary")
        self.clear_button = ipywidgets.Button(description="Clear")
        self.progress = ipywidgets.IntProgress(min=0, max=settings["steps"], layout=ipywidgets.Layout(width="160px"))
        self.says = ipywidgets.HTML()
        self.figure = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", display="none"))
        self.table = ipywidgets.HTML()
        self.train_button.on_click(lambda _: self.train())
        self.clear_button.on_click(lambda _: self.clear())
        buttons = ipywidgets.HBox([self.train_button, self.clear_button, self.progress])
        super().__init__([self.rank, self.alpha, self.rate, buttons, self.says, self.figure, self.table])
        self._show()

    def train(self) -> None:
        """Train once with the knobs as they stand. What goes wrong is said in the panel."""
        method = LoRA(r=self.rank.value, lora_alpha=self.alpha.value, target_modules=self.target_modules)
        self.train_button.disabled = self.clear_button.disabled = True
        self.says.value = "<i>training …</i>"
        try:
            self.runs.append(self._trained(method))
            self.says.value = ""
        except Exception as error:  # noqa: BLE001 — in a callback, an error would vanish into the log
            kind = "" if isinstance(error, PeftLabError) else f"{type(error).__name__}: "
            self.says.value = f'<b role="alert">✗ This run failed. {html.escape(kind + str(error))}</b>'
        finally:
            self.progress.value = 0
            self.train_button.disabled = self.clear_button.disabled = False
        self._show()

    def clear(self) -> None:
        """Forget all runs."""
        self.runs.clear()
        self.says.value = ""
        self._show()

    def _trained(self, method: LoRA) -> Run:
        torch.manual_seed(self.settings["seed"])  # the same random A for every run of one rank
        model = peftlab.attach(copy.deepcopy(self.start), method)
        run = train(
            model,
            self.tokenizer,
            self.data,
            self.held_out,
            lr=self.rate.value,
            after_step=lambda _, step: setattr(self.progress, "value", step),
            progress=False,
            name=f"r = {method.r}, α = {method.lora_alpha}, rate {self.rate.value:g}",
            **self.settings,
        )
        run.settings |= {"r": method.r, "lora_alpha": method.lora_alpha}
        return run

    def _show(self) -> None:
        if not self.runs:
            self.figure.layout.display = "none"
            self.table.value = "No run yet. Set the knobs and press Train."
            return
        self.figure.value = _picture(self.runs)
        self.figure.layout.display = ""
        self.table.value = plots.table([_row(run) for run in self.runs], caption="Your runs")._repr_html_()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        return {**live, "text/plain": WITHOUT_KERNEL, "text/html": f"<p><em>{WITHOUT_KERNEL}</em></p>"}


def retrain(
    start: nn.Module,
    tokenizer: Any,
    data: Split | Completions,
    held_out: Split | Completions,
    *,
    target_modules: str | list[str] = ("query", "value"),
    steps: int = 20,
    batch_size: int = 16,
    seed: int = 0,
) -> Knobs:
    """A panel of knobs: every press of Train attaches LoRA to a fresh copy of `start` and trains it for `steps`.

    `start` itself is never changed. The learning rate is constant, so that runs of few steps compare.
    Raises PeftLabError at once if `steps` or `batch_size` is below 1, or if the data do not fit the model.
    """
    if steps < 1 or batch_size < 1:
        raise PeftLabError(f"steps={steps}, batch_size={batch_size}: both must be at least 1")
    for split in (data, held_out):
        check_fits(start, tokenizer, split, 32)
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    settings = {"steps": steps, "batch_size": batch_size, "seed": seed, "schedule": "constant"}
    return Knobs(start, tokenizer, data, held_out, targets, settings)


def _slider(label: str, stops: tuple, start: float, shown: str = "{}") -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=[(shown.format(stop), stop) for stop in stops],
        value=start,
        description=label,
        style={"description_width": "100px"},
        layout=ipywidgets.Layout(width="420px", max_width="100%"),
    )


def _picture(runs: list[Run]) -> bytes:
    """The losses as PNG. Not through pyplot, which would show the figure a second time."""
    figure = Figure(figsize=(6.4, 3.4), dpi=100, layout="constrained", facecolor="white")
    plots.losses(runs, window=3, ax=figure.add_subplot())
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _row(run: Run) -> dict[str, Any]:
    return {
        "r": run.settings["r"],
        "α": run.settings["lora_alpha"],
        "learning rate": f"{run.settings['lr']:g}",
        "last loss": run.losses[-1],
        "held-out accuracy": run.accuracy,
    }
