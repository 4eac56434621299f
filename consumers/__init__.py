"""Everything that uses what streams publishes, or writes to the same topics: reader, producer, import."""
