"""The Transformer that recalls items: trained offline by torch, run in workers without it.

Nothing outside this package imports torch; `config`, `data` and `weights` do not need it either.
"""
