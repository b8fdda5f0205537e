"""Worker processes of verifiers."""
