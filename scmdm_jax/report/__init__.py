"""From measured results (plain dicts and lists) to a table, a JSON file and a page.

Nothing here trains, samples or measures. `summary` and `table` need only the
standard library and SciPy's special functions; `figures` needs matplotlib,
`molecules` RDKit, and `compare` (which assembles everything) both.
"""
