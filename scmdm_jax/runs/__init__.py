"""What verbs share: a model opened, adapted, sampled, scored; the workdir of a run."""
