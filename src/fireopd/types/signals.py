"""The signals: what the loop can tell a strategy about each token or trajectory, by name.

A strategy lists in `requires` the signals that it reads. The loop computes the union of what is declared and no more.
"""

SIGNALS: dict[str, str] = {
    "sampling_logprobs": "float32 [N, L]: log-probability of each token when the engine sampled it",
    "student_logprobs": "float32 [N, L]: the same under the student that is about to be updated",
    "student_entropy": "float32 [N, L]: entropy of the student's distribution that token t was drawn from",
    "teacher_logprobs": "float32 [N, L]: log-probability of each token under the row's own teacher",
    "teacher_entropy": "float32 [N, L]: entropy of the teacher's distribution at token t",
    "base_logprobs": "float32 [N, L]: log-probability of each token under the base model",
    "reverse_kl": "float32 [N, L]: KL(student || teacher) over the whole vocabulary before token t",
    "topk_overlap": "float32 [N, L]: share of the student's top_k likeliest tokens that are among the teacher's",
    "student_topk_mass": "float32 [N, L]: the teacher's probability of the student's top_k likeliest tokens",
    "rewards": "float32 [N]: the verifier's grade of the trajectory, in [0, 1]",
}
"""Name and meaning of every signal. What has a logarithm in it is in nats; [N, L] is 0 off the response mask."""

ENTROPIES = frozenset({"student_entropy", "teacher_entropy"})
JOINT = frozenset({"reverse_kl", "topk_overlap", "student_topk_mass"})
"""Signals of student and teacher together, for which the teacher's distribution is needed at the student's pass."""
OF_STUDENT = frozenset({"student_logprobs", "student_entropy"}) | JOINT
"""Signals for which the student has to read the trajectories."""
PER_TRAJECTORY = frozenset({"rewards"})
