"""Documents of prose: published sets from local files, and anybody's own."""
