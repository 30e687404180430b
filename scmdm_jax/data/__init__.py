"""Where tokens come from: dataset builders, tokenizers, the batch pipeline."""
