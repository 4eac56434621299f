"""Replay: the log once more, into a generation beside the live one; and what may become of that (docs/replay.md).

    places      what `--from` and `--to` say, and the offsets that they stand for
    source      the event log in files, where a replay reads that
    shadows     generations made, listed and removed
    running     workers of a shadow until they have read what they shall read
    promotion   a shadow goes live, and back
    diff        how its lists differ from the live ones
"""
