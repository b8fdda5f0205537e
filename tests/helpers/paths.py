"""Folders of the checkout that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Checkout."""
TESTS = ROOT / "tests"
"""Put on PYTHONPATH of processes that import `helpers`."""
CONFIGS = ROOT / "configs"
GOLDEN = TESTS / "golden"
"""Recorded numbers; each file states its origin."""
