"""What verbs share: opening, adapting, sampling and scoring a model, and workdirs."""
