"""One trainer for everything: a pure step, and the host loop around it."""
