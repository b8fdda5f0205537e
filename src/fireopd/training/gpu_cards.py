"""GPUs that runs are planned for: memory, and the rates that bound the seconds of a step."""

from dataclasses import dataclass

from fireopd.errors import UserError

__all__ = ["CARDS", "Card", "find_card"]


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, with the figures of its vendor's data sheet."""

    name: str
    """Name on the command line."""
    memory: int
    """GiB."""
    tflops: float
    """10^12 floating-point operations per second, dense matrix products in bfloat16 with float32 sums."""
    bandwidth: float
    """GB/s of the GPU memory."""
    link: float
    """GB/s between the GPUs of a machine, in one direction: NVLink, or PCIe of cards without it."""
    host: float
    """GB/s between GPU and host memory, in one direction: PCIe."""
    sheet: str
    """Data sheet that the figures are from."""


CARDS = (
    Card("H100", 80, 989.0, 3350, 450, 64, "NVIDIA H100 Tensor Core GPU datasheet, SXM"),
    Card("H200", 141, 989.0, 4800, 450, 64, "NVIDIA H200 Tensor Core GPU datasheet, SXM"),
    Card("B200", 180, 2250.0, 8000, 900, 64, "NVIDIA HGX B200 datasheet, one of eight GPUs"),
    Card("A100-80", 80, 312.0, 2039, 300, 32, "NVIDIA A100 Tensor Core GPU datasheet, 80 GB SXM"),
    Card("A100-40", 40, 312.0, 1555, 300, 32, "NVIDIA A100 Tensor Core GPU datasheet, 40 GB SXM"),
    Card("L40S", 48, 362.0, 864, 32, 32, "NVIDIA L40S datasheet"),
    Card("RTX4090", 24, 165.2, 1008, 32, 32, "NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090"),
)
"""Known cards. Sheets with sparse rates give twice the dense ones; links are half of the sum of both directions."""


def find_card(name: str) -> Card:
    """Return a card by name, whatever the case.

    Raises:
        UserError: if the card is not known.
    """
    for card in CARDS:
        if card.name.lower() == name.lower():
            return card
    raise UserError("--gpu", name, "no such card", f"choose from {', '.join(card.name for card in CARDS)}")
