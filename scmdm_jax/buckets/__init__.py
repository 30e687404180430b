"""Paths in buckets, `gs://` and `s3://`: everything works on a copy on this disk.

`objects` speaks with the server, `paths` says where on this disk a path of the user's
lies, `mirror` keeps the workdir of a run and its bucket alike, `lock` lets one run at a
time have it.
"""
