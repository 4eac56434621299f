"""How good the lists are, beside everything a user could pick instead: `python -m benchmarks.quality` runs and renders it.

`measurements` says what is measured, `run` runs some of it and keeps each run's figures and ranks in a folder, `render` puts
the runs together, compares contenders target by target, and writes docs/quality.md with its plots.
"""
