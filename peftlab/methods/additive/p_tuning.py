r"""P-tuning (Liu et al., 2021, arXiv:2103.10385): a prompt encoder.

$$[h; X] \quad\text{with}\quad h = \mathrm{MLP}(e) \;\text{ or }\; h = \mathrm{MLP}(\mathrm{LSTM}(e))$$

$n$ vectors $h$ stand before the embedded input $X$, as in prompt tuning. While training they come out of a small
network that reads $n$ trained vectors $e$; afterwards only its result $h$ is needed, and only that is saved.
"""

from __future__ import annotations

import dataclasses
import warnings

from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError
from peftlab.methods.additive.prompt_tuning import Prompt, PromptMethod, PromptTuning
from peftlab.methods.base import Card, Method, Shared, method, require_positive, require_share
from peftlab.surgery import Site


class Encoder(nn.Module):
    """h of shape (n, d): an embedding of n vectors, perhaps an LSTM in both directions, and an MLP."""

    def __init__(self, n: int, d: int, hidden: int, lstm_layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n, d)
        if lstm_layers:
            both = 2 * hidden  # the two directions side by side
            self.lstm_head = nn.LSTM(d, hidden, lstm_layers, dropout=dropout, bidirectional=True, batch_first=True)
            self.mlp_head = nn.Sequential(nn.Linear(both, both), nn.ReLU(), nn.Linear(both, d))
        else:
            wide = nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
            self.mlp_head = nn.Sequential(*wide, nn.Linear(hidden, d))

    def forward(self) -> Tensor:
        e = self.embedding.weight[None]
        if hasattr(self, "lstm_head"):
            e, _ = self.lstm_head(e)
        return self.mlp_head(e)[0]


class EncodedPrompt(Prompt):
    """h = encoder(e), put before every input."""

    def __init__(self, encoder: Encoder, model: nn.Module) -> None:
        Shared.__init__(self)  # no P of its own
        self.n, self.network = encoder.embedding.num_embeddings, encoder
        self.__dict__["model"] = model

    def vectors(self, batch: int) -> Tensor:
        return self.network().expand(batch, -1, -1)

    def tensors(self) -> dict[str, Tensor]:
        training = self.network.training
        h = self.network.eval()().detach()  # without dropout, even in the middle of training
        self.network.train(training)
        return {"prompt_embeddings": h}


@method
class PTuning(PromptMethod):
    """P-tuning. `peft.PromptEncoderConfig`'s fields, defaults and semantics."""

    num_virtual_tokens: int
    encoder_reparameterization_type: str = "MLP"  # or 'LSTM'
    encoder_hidden_size: int | None = None  # None: the model's d
    encoder_num_layers: int = 2  # of the LSTM; the MLP has its three
    encoder_dropout: float = 0.0  # between the layers of the LSTM

    peft_type = "P_TUNING"
    card = Card(
        title="GPT Understands, Too",
        year=2021,
        arxiv="2103.10385",
        equation="the prompt encoder",
        family="additive",
        reference="peft.PromptEncoderConfig",
        formula="[h; X],  h = MLP(e)  or  MLP(LSTM(e))",
        shapes="e, h (n, d); MLP d → H → H → d, or LSTM d → 2H and MLP 2H → 2H → d",
        parameters="MLP: n d + 2 d H + H² + 2 H + d; LSTM: see `PTuning.shared_parameters`",
        mergeable=False,
        inference_cost="n more positions in every layer, and n fewer of the context left; the network is gone by then",
        traps=(
            "The file holds h only: it is thousands of times smaller than what was trained, and training that goes on "
            "from a file trains h itself.",
            "With the MLP, encoder_num_layers and encoder_dropout do nothing.",
            "peft saves with the LSTM's dropout switched on if the model is in train mode; here h is saved without it.",
            "The paper also puts vectors between words of a template; peft, and so this method, only in front.",
        ),
        use_when="prompt tuning is wanted but learns too slowly or too unsteadily by itself",
        avoid_when="memory while training is tight: the network can be larger than LoRA's matrices",
        unknown="how much of its gain over plain prompt tuning is the network, and how much the learning rate",
        levels={"P4": "a prompt is an input, there is no weight to merge it into"},
    )

    def __post_init__(self) -> None:
        require_positive(self, "num_virtual_tokens", "encoder_num_layers")
        require_share(self, "encoder_dropout")
        if self.encoder_hidden_size is not None:
            require_positive(self, "encoder_hidden_size")
        kind = self.encoder_reparameterization_type
        if kind not in ("MLP", "LSTM"):
            raise ConfigError(f"PTuning(encoder_reparameterization_type={kind!r}): choose 'MLP' or 'LSTM'")

    def for_loading(self) -> Method:
        """A file holds h itself, which is a plain prompt."""
        return PromptTuning(
            num_virtual_tokens=self.num_virtual_tokens,
            task_type=self.task_type,
            modules_to_save=self.modules_to_save,
        )

    def prepare(self, model: nn.Module) -> Method:
        if self.encoder_reparameterization_type == "MLP" and (self.encoder_num_layers != 2 or self.encoder_dropout):
            warnings.warn(
                "encoder_num_layers and encoder_dropout belong to the LSTM; the MLP ignores them, as in peft",
                stacklevel=3,
            )
        method = super().prepare(model)
        hidden = method.encoder_hidden_size or method.bookkeeping["token_dim"]
        return dataclasses.replace(method, encoder_hidden_size=hidden)

    def shared(self, model: nn.Module, sites: list[Site]) -> Shared:
        d = hosts.word_embeddings(model).embedding_dim
        layers = self.encoder_num_layers if self.encoder_reparameterization_type == "LSTM" else 0
        hidden = self.encoder_hidden_size or d
        return EncodedPrompt(Encoder(self.num_virtual_tokens, d, hidden, layers, self.encoder_dropout), model)

    def shared_parameters(self, model: nn.Module) -> int:
        d = hosts.word_embeddings(model).embedding_dim
        n, H = self.num_virtual_tokens, self.encoder_hidden_size or d
        if self.encoder_reparameterization_type == "MLP":
            return n * d + 2 * d * H + H * H + 2 * H + d
        inputs = [d] + [2 * H] * (self.encoder_num_layers - 1)
        lstm = sum(2 * 4 * H * (d_in + H + 2) for d_in in inputs)  # 2 directions, 4 gates, 2 biases
        return n * d + lstm + 2 * H * (2 * H + 1) + d * (2 * H + 1)
