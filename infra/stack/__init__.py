"""Local Kafka and Redis for trying out, tests and benchmarks; see `LocalStack`."""

from infra.stack.local import LocalStack, missing_requirements
from infra.stack.process import StackError, free_port

__all__ = ["LocalStack", "StackError", "free_port", "missing_requirements"]
