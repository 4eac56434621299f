"""The Transformer against published figures: one command a row, resumable in pieces, and the table of what each part of it is worth."""
