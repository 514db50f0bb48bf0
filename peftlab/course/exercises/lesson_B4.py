"""Bridge B4, what backward computes and Adam stores: the exercises, their solutions, and common wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant

# ---- 1: the backward pass of a linear layer -----------------------------------------------------------------------


def linear_backward(
    x: torch.Tensor, W: torch.Tensor, g: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows_x, rows_g = x.flatten(0, -2), g.flatten(0, -2)  # one row for each token of each text
    dx = g @ W  # Wᵀ g for every row
    dW = rows_g.T @ rows_x  # the sum of the outer products g xᵀ
    db = rows_g.sum(0)
    return dx, dW, db


def _layer_cases() -> list[tuple]:
    """Texts of tokens, one text, rows alone; the third weight is square, so that a missing transpose runs."""
    g = torch.Generator().manual_seed(4)

    def case(d_out: int, d_in: int, *rows: int) -> tuple:
        return tuple(
            torch.randn(*shape, generator=g, dtype=torch.float64)
            for shape in ((*rows, d_in), (d_out, d_in), (*rows, d_out))
        )

    return [case(5, 4, 2, 3), case(2, 3, 6), case(4, 4, 2, 3), case(3, 7, 2, 2, 3)]


Gradients = tuple[Tensor, ...]


def _weight_turned(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    return dx, dW.T, db


def _w_not_turned(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    _, dW, db = linear_backward(x, W, g)
    return g @ W.T, dW, db


def _bias_of_every_row(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, _ = linear_backward(x, W, g)
    return dx, dW, g


def _bias_over_the_batch_only(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, _ = linear_backward(x, W, g)
    return dx, dW, g.sum(0)


def _tokens_only(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, _, db = linear_backward(x, W, g)
    return dx, g.mT @ x, db


def _first_dimension_only(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    return g @ W, g.mT @ x, g.sum(0)


def _last_rows_only(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    return g @ W, g.mT @ x, g.sum(-2)


def _three_dimensions(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    """Right for (texts, tokens, d) alone; elsewhere the sums take away other dimensions, or one that is not there."""
    return g @ W, (g.mT @ x).sum(0), g.sum((0, 1))


def _weight_of_three_dimensions(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, _, db = linear_backward(x, W, g)
    return dx, (g.mT @ x).sum(0), db


def _bias_of_three_dimensions(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, _ = linear_backward(x, W, g)
    return dx, dW, g.sum((0, 1))


def _weight_of_every_row(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, _, db = linear_backward(x, W, g)
    return dx, g.unsqueeze(-1) * x.unsqueeze(-2), db


def _means(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    rows = g.numel() / g.shape[-1]
    return dx, dW / rows, db / rows


def _mean_of_weight(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    return dx, dW / (g.numel() / g.shape[-1]), db


def _mean_of_bias(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    return dx, dW, db / (g.numel() / g.shape[-1])


def _summed_first(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, _, db = linear_backward(x, W, g)
    return dx, torch.outer(db, x.flatten(0, -2).sum(0)), db


def _weight_first(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    return dW, dx, db


def _without_bias(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    return linear_backward(x, W, g)[:2]


def _input_summed(x: Tensor, W: Tensor, g: Tensor) -> Gradients:
    dx, dW, db = linear_backward(x, W, g)
    return dx.flatten(0, -2).sum(0), dW, db


# ---- 2: one step of AdamW -----------------------------------------------------------------------------------------

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def adamw_step(
    w: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, t: int, lr: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return w - lr * (m_hat / (v_hat.sqrt() + 1e-8) + decay * w), m, v


def _step_cases() -> list[tuple]:
    """A first step, a later one, one with gradients so small that ε counts, and one without weight decay."""
    g = torch.Generator().manual_seed(6)

    def case(t: int, lr: float, decay: float, size: float) -> tuple:
        w, grad, m, v = (torch.randn(3, 5, generator=g, dtype=torch.float64) for _ in range(4))
        past = 0.0 if t == 1 else size
        return w, grad * size, m * past, v.square() * past**2, t, lr, decay

    return [case(1, 0.1, 0.2, 1.0), case(7, 0.05, 0.3, 2.0), case(3, 0.1, 0.1, 1e-6), case(2, 0.2, 0.0, 0.5)]


def _nan_as_number(answer: Callable) -> Callable:
    """NaN as a number that no right answer has: a v that is not squared has no root, and is to be recognised."""

    def found(*case: Any) -> Any:
        value = answer(*case)
        if isinstance(value, tuple | list) and all(isinstance(each, Tensor) for each in value):
            return tuple(each.nan_to_num(nan=1e9) for each in value)
        return value

    return found


def _variant(
    *,
    corrected_m: bool = True,
    corrected_v: bool = True,
    coupled: bool = False,
    eps_inside: bool = False,
    squared: bool = True,
    rooted: bool = True,
    sign: float = -1.0,
    betas: tuple[float, float] = (BETA1, BETA2),
    late: int = 0,
    decay_lr: bool = True,
    decays: bool = True,
    momentum: bool = True,
    keeps_corrected: bool = False,
    fresh: bool = True,
    eps: float = EPS,
    decay_sign: float = 1.0,
    power: Callable[[float, int], float] = pow,
) -> Callable:
    """AdamW with one thing changed."""

    def step(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple[Tensor, ...]:
        if coupled:
            g = g + decay * w
        t = t + late
        m = betas[0] * m + ((1 - betas[0]) if fresh else 1) * g
        v = betas[1] * v + ((1 - betas[1]) if fresh else 1) * (g**2 if squared else g)
        m_hat = m / (1 - power(betas[0], t)) if corrected_m else m
        v_hat = v / (1 - power(betas[1], t)) if corrected_v else v
        up = m_hat if momentum else g
        down = (v_hat + eps).sqrt() if eps_inside else (v_hat.sqrt() if rooted else v_hat) + eps
        shrink = 0.0 if coupled or not decays else decay if decay_lr else decay / lr
        new = w + sign * lr * up / down - decay_sign * lr * shrink * w
        return (new, m_hat, v_hat) if keeps_corrected else (new, m, v)

    return step


def _decay_afterwards(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    new, m, v = adamw_step(w, g, m, v, t, lr, 0.0)
    return new * (1 - lr * decay), m, v


def _beta_and_rest_exchanged(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    m, v = (1 - BETA1) * m + BETA1 * g, (1 - BETA2) * v + BETA2 * g**2
    m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
    return w - lr * (m_hat / (v_hat.sqrt() + EPS) + decay * w), m, v


def _decay_in_the_denominator(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    _, m, v = adamw_step(w, g, m, v, t, lr, decay)
    m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
    return w - lr * (m_hat / (v_hat.sqrt() + EPS + decay * w)), m, v


def _step_with_old_averages(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
    return w - lr * (m_hat / (v_hat.sqrt() + EPS) + decay * w), *adamw_step(w, g, m, v, t, lr, decay)[1:]


def _weights_last(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    w, m, v = adamw_step(w, g, m, v, t, lr, decay)
    return m, v, w


def _weights_only(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> Tensor:
    return adamw_step(w, g, m, v, t, lr, decay)[0]


def _old_averages(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, decay: float) -> tuple:
    return adamw_step(w, g, m, v, t, lr, decay)[0], m, v


EXERCISES = [
    Exercise(
        key="B4.linear_backward",
        title="linear_backward",
        minutes=4,
        solution=linear_backward,
        cases=_layer_cases,
        tolerance=1e-5,
        hints=(
            "A row of x is an input, so Wᵀ g is written g @ W. It needs no sum: every token has its own gradient.",
            "All tokens of all texts share W and b: their gradients add up. x.flatten(0, -2) makes one long list of "
            "rows; then rows_g.T @ rows_x is the sum of all outer products.",
        ),
        mutants=(
            Mutant(_weight_turned, "The gradient of W is turned over: it has the shape of W, (d_out, d_in)."),
            Mutant(_w_not_turned, "dx uses the wrong side of W. In rows, Wᵀ g is g @ W, and W.T is the forward's."),
            Mutant(_bias_of_every_row, "db is not summed: all tokens share one bias of shape (d_out,)."),
            Mutant(_bias_over_the_batch_only, "db is summed over the first dimension only. Tokens share the bias too."),
            Mutant(_tokens_only, "dW is summed over the tokens of each text, not over the texts. All share one W."),
            Mutant(_first_dimension_only, "dW is summed over the tokens only, db over the texts only. Sum over both."),
            Mutant(_last_rows_only, "dW and db are summed over the tokens of each text. All texts share W and b too."),
            Mutant(
                _three_dimensions,
                "That works for texts of tokens. `...` may also stand for one dimension, or for three: flatten all "
                "but the last.",
            ),
            Mutant(
                _weight_of_three_dimensions,
                "Your dW works for texts of tokens. `...` may also be one dimension, or three: flatten all but the "
                "last.",
            ),
            Mutant(
                _bias_of_three_dimensions,
                "Your db works for texts of tokens. `...` may also be one dimension, or three: sum over all but the "
                "last.",
            ),
            Mutant(_weight_of_every_row, "You have one dW for every token. All of them share one W: add them up."),
            Mutant(_means, "You average over the rows. Gradients add up; a mean, if any, is in the loss and so in g."),
            Mutant(_mean_of_weight, "dW is a mean over the rows. It is the sum: the loss has set the scale of g."),
            Mutant(_mean_of_bias, "db is a mean over the rows. It is the sum: the loss has set the scale of g."),
            Mutant(_summed_first, "You sum x and g first and multiply then. Multiply row by row, and then sum."),
            Mutant(_weight_first, "The right tensors in another order: dx, dW, db."),
            Mutant(_without_bias, "The gradient of the bias is missing: return dx, dW, db."),
            Mutant(_input_summed, "dx is summed over the rows. Each row has an input, and a gradient, of its own."),
        ),
    ),
    Exercise(
        key="B4.adamw_step",
        title="adamw_step",
        minutes=4,
        solution=adamw_step,
        cases=_step_cases,
        tolerance=1e-6,
        compares=_nan_as_number,
        hints=(
            "Line by line, as in the formula: new m, new v, the two corrections with 1 - 0.9**t and 1 - 0.999**t.",
            "The weights lose lr times (m_hat / (v_hat.sqrt() + 1e-8) + decay * w). Return them with the m and v "
            "that are not corrected.",
        ),
        mutants=(
            Mutant(
                _variant(corrected_m=False, corrected_v=False),
                "Neither average is corrected. In the first steps both are too small: divide by 1 - βᵗ.",
            ),
            Mutant(_variant(corrected_v=False), "Only m is corrected. v starts at zero as well: divide by 1 - β₂ᵗ."),
            Mutant(_variant(corrected_m=False), "Only v is corrected. m starts at zero as well: divide by 1 - β₁ᵗ."),
            Mutant(
                _variant(coupled=True),
                "The decay is added to the gradient, so m and v see it. That is Adam with L2. In AdamW it goes "
                "straight to the weights.",
            ),
            Mutant(_variant(eps_inside=True), "ε stands inside the root. It is added after it: √v̂ + ε."),
            Mutant(_variant(squared=False), "v averages the gradient itself. It averages its square."),
            Mutant(_variant(rooted=False), "You divide by v̂. Divide by its square root."),
            Mutant(_variant(sign=1.0), "The step goes uphill: it is subtracted from w."),
            Mutant(_variant(betas=(BETA2, BETA1)), "β₁ and β₂ are exchanged: m forgets with 0.9, v with 0.999."),
            Mutant(_variant(late=1), "The correction is one step late: the first step has t = 1."),
            Mutant(_variant(decay_lr=False), "The decay is not multiplied by the learning rate."),
            Mutant(_variant(decays=False), "The weight decay is missing."),
            Mutant(_variant(momentum=False), "The step uses g instead of its average m̂."),
            Mutant(_variant(keeps_corrected=True), "You keep the corrected averages. Return m and v as they were."),
            Mutant(_variant(fresh=False), "The new gradient has full weight. It enters with 1 - β, in m and in v."),
            Mutant(_decay_afterwards, "You shrink the weights after the step. The decay takes the old w."),
            Mutant(_variant(eps=0.0), "ε is missing: √v̂ + ε."),
            Mutant(_variant(decay_sign=-1.0), "The decay has the wrong sign: it is subtracted too."),
            Mutant(
                _variant(power=lambda beta, t: beta * t),
                "β is raised to the power t, not multiplied by it.",
            ),
            Mutant(_beta_and_rest_exchanged, "β and 1 - β are exchanged: most of the old average stays."),
            Mutant(_decay_in_the_denominator, "A bracket closes too late: the decay stands in the denominator."),
            Mutant(_step_with_old_averages, "The step uses m and v from before this gradient. Renew them first."),
            Mutant(_weights_last, "The right tensors in another order: w, m, v."),
            Mutant(_weights_only, "The next step needs m and v: return all three."),
            Mutant(_old_averages, "You return the old m and v. The next step needs the new ones."),
        ),
    ),
]
