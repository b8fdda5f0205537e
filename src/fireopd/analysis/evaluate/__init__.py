"""Models on benchmarks: what is asked, every response on disk, and the numbers with what they can say."""
