"""Worker processes of verifiers: pool, messages, and the modules that run in a worker."""

__all__ = [
    "json_messages",
    "math_answers",
    "math_worker",
    "pool",
    "reasoning_gym_worker",
    "worker_loop",
    "worker_verifier",
]
