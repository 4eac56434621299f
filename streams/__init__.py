"""The running system: events, rows, absorb, fold, refresh, publish."""
