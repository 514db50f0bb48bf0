r"""Trainable tokens (peft): some rows of the embedding matrix train, all others stay.

$$E'_{t} = \begin{cases} e_t & t \in T \\ E_{t} & \text{otherwise} \end{cases}$$

$e_t \in \mathbb{R}^{d}$ starts as a copy of the pretrained row $E_t$. peft names no paper. Textual inversion (Gal et
al., 2022, arXiv:2208.01618) is this for one new word of a text-to-image model. Where the output head is the same matrix
(tied embeddings), its rows change with it, as in peft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.base import Adapter, Card, Delta, Method, Shared, method
from peftlab.surgery import Site


class TokenRows(Shared):
    """The trained rows of each targeted matrix, (k, d). They belong to it and to whatever it is tied to."""

    def __init__(self, prefix: str, sites: list[Site], tokens: list[int], *, random: bool) -> None:
        super().__init__()
        matrices = list(dict.fromkeys(id(site.module.weight) for site in sites))
        self.which = {site.name: matrices.index(id(site.module.weight)) for site in sites}  # the matrix of each site
        self.prefix = prefix
        rows = [site.module.weight.detach()[tokens].clone() for site in firsts(sites)]
        self.rows = nn.ParameterList([nn.Parameter(torch.randn_like(E_T) if random else E_T) for E_T in rows])

    def file_names(self) -> dict[str, str]:
        first = {i: name for name, i in reversed(self.which.items())}
        return {f"rows.{i}": f"{self.prefix}{name}.trainable_tokens_delta" for i, name in first.items()}

    def tensors(self) -> dict[str, Tensor]:
        """As peft writes them: once for each place, tied or not."""
        return {f"{self.prefix}{name}.trainable_tokens_delta": self.rows[i].data for name, i in self.which.items()}


class TokensLayer(Delta):
    """An embedding, or a head that is tied to it, with e_t in the place of some rows."""

    def __init__(self, site: Site, shared: TokenRows, which: int, tokens: list[int]) -> None:
        super().__init__(site)
        self.__dict__["shared"] = shared  # belongs to the whole adapter, so it is not a part of this one
        self.which, self.tokens = which, tokens

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        places = torch.tensor(self.tokens, device=tensor.device)
        return tensor.index_copy(0, places, self.shared.rows[self.which].to(tensor))  # E' (V, d)

    def check_beside(self, other: Delta) -> None:
        both = set(self.tokens) & set(other.tokens) if isinstance(other, TokensLayer) else set()
        if both or not isinstance(other, TokensLayer):
            what = f"rows {', '.join(map(str, sorted(both)[:5]))}" if both else "the weight"
            raise PeftLabError(f"two adapters would both change {what} of {self.site.name}; only one can be active")


@method
class TrainableTokens(Method):
    """Trained rows of the embedding. `peft.TrainableTokensConfig`'s fields, defaults and semantics.

    token_indices: which rows. target_modules: embeddings; None: the model's input embedding.
    """

    token_indices: list[int]
    target_modules: list[str] | str | None = None
    init_weights: bool = True

    peft_type = "TRAINABLE_TOKENS"
    default_targets: ClassVar[Mapping[str, object]] = {}
    card = Card(
        title="An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion",
        year=2022,
        arxiv="2208.01618",
        equation="the method, for one new word; peft names no paper",
        family="selective",
        reference="peft.TrainableTokensConfig",
        formula="E'_t = e_t for the chosen tokens t, E_t for all others",
        shapes="e (k, d) for k tokens",
        parameters="k d",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of the embedding matrix in every pass",
        traps=(
            "peft calls the tensor trainable_tokens_delta, but it holds the whole new rows, not their change.",
            "New tokens must be in the tokenizer, and the matrix resized, before it is attached; the file holds the "
            "rows, not the tokenizer.",
            "With tied embeddings the head's rows change too, and so do the chances of saying these words; peft writes "
            "them into the file twice.",
            "Where the tied head has a bias (BERT's for masked words), peft 0.21.2 leaves the bias out as soon as the "
            "adapter is attached, so its model has changed before any training; here it stays.",
            "Adam's weight decay pulls on these rows alone, also in steps whose texts lack the token.",
        ),
        use_when="a few words are new: special tokens, names, a nonsense word",
        avoid_when="the model must do something new with words that it knows: no row can teach that",
        unknown="how far one vector can carry a meaning that the model has no features for",
    )

    def __post_init__(self) -> None:
        tokens = self.token_indices
        whole = isinstance(tokens, list | tuple) and all(isinstance(t, int) and not isinstance(t, bool) for t in tokens)
        if not whole or not tokens or min(tokens) < 0 or len(set(tokens)) < len(tokens):
            raise ConfigError(
                f"TrainableTokens(token_indices={tokens!r}): give a list of token ids from 0 on, each once; "
                "tokenizer.convert_tokens_to_ids names them"
            )
        if not isinstance(self.init_weights, bool):
            raise ConfigError(f"TrainableTokens(init_weights={self.init_weights!r}): give True (as they are) or False")

    def prepare(self, model: nn.Module) -> Method:
        prepared = super().prepare(model)
        if self.target_modules is not None:
            return prepared
        found = getattr(model, "get_input_embeddings", lambda: None)()
        name = next((name for name, module in surgery.modules_in_place(model).items() if module is found), None)
        if name is None:
            raise ConfigError(
                f"where the input embeddings of a {type(model).__name__} are is not known; name them in target_modules"
            )
        return dataclasses.replace(prepared, target_modules=name)

    def sites(self, model: nn.Module) -> list[Site]:
        """The targets, then whatever shares a weight with one of them."""
        targets = super().sites(model)
        modules, names = surgery.base_modules(model), {site.name for site in targets}
        tied = [n for site in targets for n in surgery.tied_names(model, site.module) if n not in names]
        return [*targets, *(Site(name, modules[name]) for name in dict.fromkeys(tied))]

    def shared(self, model: nn.Module, sites: list[Site]) -> TokenRows:
        for site in sites:
            weight = site.module._parameters.get("weight")
            if weight is None or weight.ndim != 2 or site.kind not in ("embedding", "linear"):
                raise ConfigError(
                    f"TrainableTokens trains rows of embeddings; {site.name} is a {type(site.module).__name__}"
                )
            if max(self.token_indices) >= weight.shape[0]:
                raise ConfigError(
                    f"TrainableTokens(token_indices=…) names {max(self.token_indices)}, and {site.name} has rows 0 to "
                    f"{weight.shape[0] - 1}; add the tokens and call model.resize_token_embeddings first"
                )
        return TokenRows(self.file_prefix, sites, list(self.token_indices), random=not self.init_weights)

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if not isinstance(shared, TokenRows):
            raise ConfigError("TrainableTokens needs its rows; attach it to a model")
        return TokensLayer(site, shared, shared.which[site.name], list(self.token_indices))

    def to_config(self) -> dict[str, Any]:
        """peft's config for this method has no modules_to_save, so an empty one is left out."""
        config = super().to_config()
        return {k: v for k, v in config.items() if k != "modules_to_save" or v is not None}

    def parameters_at(self, site: Site) -> int:
        return 0  # rows belong to the whole adapter: tied matrices share them

    def shared_parameters(self, model: nn.Module) -> int:
        d = [site.module.weight.shape[1] for site in firsts(self.sites(model))]
        return len(self.token_indices) * sum(d)


def firsts(sites: list[Site]) -> list[Site]:
    """One site for each matrix: of those that share a weight, the first."""
    return list({id(site.module.weight): site for site in reversed(sites)}.values())[::-1]
