"""The one error that a user can mend: it is shown as a sentence, without a traceback, and the program exits with 2."""


class UserError(ValueError):
    """Says which setting is wrong, what it holds and what to do about it.

    Example: `UserError("data.prompts.train", "gsm.jsonl", "no such file", "give the path of a JSONL file")`.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        """Say what is wrong; the remedy starts with a verb in the imperative."""
        self.key, self.value, self.problem, self.remedy = key, value, problem, remedy
        super().__init__(key, value, problem, remedy)  # what it is made of, so that it can go from process to process

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.key}: {self.value!r}: {self.problem}. {self.remedy[0].upper()}{self.remedy[1:]}."
