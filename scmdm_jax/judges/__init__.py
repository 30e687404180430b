"""Pure measures of samples; each states its protocol and where it comes from."""
