"""Backup: a generation of state copied into a folder while workers run, and put back (docs/backup.md).

    records     files of keys and values, packed, with checksums
    manifest    what a backup says of itself
    topics      which topics there are, compacted ones read whole and put back
    taking      the copy
    fitting     whether a backup is whole, and fits the settings, this version and the log
    restoring   the way back
"""
