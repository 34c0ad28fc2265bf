"""Models that see something before every text: demonstrations, or a soft prompt.

What comes before is next to the padding of a batch, not to its texts, so the positions of the texts
are counted here; peft's prompt tuning drops them, and a padded row is then read as another.
"""

import torch
from transformers import DynamicCache


class Demonstrated(torch.nn.Module):
    """A causal language model that reads tokens before every text, computed once.

    Args:
        model: the model.
        ids: the tokens.
    """

    def __init__(self, model, ids):
        super().__init__()
        self.model, self.count = model, len(ids)
        with torch.no_grad():
            first = torch.tensor([ids], device=model.device)
            read = model(input_ids=first, use_cache=True, logits_to_keep=1).past_key_values
        self.read = [(layer.keys, layer.values) for layer in read.layers]

    def forward(self, input_ids, attention_mask, position_ids, logits_to_keep):
        """As the model's own, of texts that are padded on the left."""
        rows = len(input_ids)
        read = [tuple(kept.expand(rows, -1, -1, -1) for kept in pair) for pair in self.read]
        return self.model(
            input_ids=input_ids,
            attention_mask=_more(attention_mask, self.count),
            position_ids=position_ids + self.count,
            past_key_values=DynamicCache(read),
            logits_to_keep=logits_to_keep,
        )


class SoftPrompt(torch.nn.Module):
    """A frozen causal language model with tuned embeddings before every text.

    Lester et al. 2021, arXiv 2104.08691; the prompt is in fp32.

    Args:
        model: the model.
        ids: tokens whose embeddings the prompt begins as.
    """

    def __init__(self, model, ids):
        super().__init__()
        self.model = model.requires_grad_(False)
        embedded = model.get_input_embeddings().weight[torch.tensor(ids, device=model.device)]
        self.prompt = torch.nn.Parameter(embedded.detach().float())

    def forward(self, input_ids, attention_mask, position_ids, logits_to_keep):
        """As the model's own, of texts that are padded on the left."""
        texts = self.model.get_input_embeddings()(input_ids)
        prompt = self.prompt.to(texts.dtype).expand(len(texts), -1, -1)
        count = self.prompt.shape[0]
        first = torch.arange(count, device=texts.device).expand(len(texts), -1)
        return self.model(
            inputs_embeds=torch.cat([prompt, texts], dim=1),
            attention_mask=_more(attention_mask, count),
            position_ids=torch.cat([first, position_ids + count], dim=1),
            logits_to_keep=logits_to_keep,
            use_cache=False,
        )


def _more(mask, count):
    return torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
