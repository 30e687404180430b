"""What verbs share: a model opened, adapted, sampled and scored, and the directory of a run."""
