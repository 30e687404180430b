"""Several processes of one run: how they join, agree, stop and notice each other."""
