"""MiniLM with a classification head on the mean of its token vectors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple


class MeanPoolClassifier(BertPreTrainedModel):
    """A BERT encoder `bert` and a linear head `classifier` (d, classes) on a sentence vector.

        h = bert(tokens)                        (batch, tokens, d)
        s = mean of h over the real tokens      (batch, d)
        z = sqrt(d) * s / |s|                   (batch, d), entries of size about 1
        logits = classifier(z)                  (batch, classes)

    The mean of the token vectors is what all-MiniLM-L6-v2 was trained to make meaningful (its model
    card says so); the pooler that BertForSequenceClassification reads was not trained with it.
    """

    _keys_to_ignore_on_load_unexpected = [r"pooler"]
    is_sequence_classifier = True  # tells peftlab.attach that the head must be trained and saved too

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    # peft's prefix tuning looks for `past_key_values` in the signature. Without it, peft would call
    # the encoder and the head itself and leave the pooling out.
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: object | None = None,
        **kwargs: object,
    ) -> SequenceClassifierOutput:
        """Logits (batch, classes), and the mean cross-entropy when `labels` (batch,) are given."""
        outputs = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            **kwargs,
        )
        logits = self.classifier(sentence_vector(outputs.last_hidden_state, attention_mask))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def sentence_vector(hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The mean of `hidden` (batch, tokens, d) over the tokens that the mask (batch, tokens) keeps.

    Scaled to length sqrt(d), so that a fresh linear layer sees entries of the usual size.
    """
    batch, tokens, width = hidden.shape
    if attention_mask is None:
        attention_mask = hidden.new_ones(batch, tokens)
    # A prefix adds keys, not tokens: then the mask is longer than the output, at its left end.
    mask = attention_mask[:, -tokens:, None].to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1) * width**0.5
