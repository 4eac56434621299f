"""Algorithms: arrays in, arrays out. No Kafka, no Redis, no asyncio, no environment."""
