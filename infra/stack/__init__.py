"""Local Kafka, Redis and worker processes for trying out, tests and benchmarks; see `LocalStack` and `WorkerProcess`."""

from infra.stack.local import LocalStack, missing_requirements
from infra.stack.process import StackError, free_port
from infra.stack.redis import RedisServer
from infra.stack.workers import WorkerProcess

__all__ = ["LocalStack", "RedisServer", "StackError", "WorkerProcess", "free_port", "missing_requirements"]
