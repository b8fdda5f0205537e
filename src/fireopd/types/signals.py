"""Signals: the per-token and per-trajectory quantities that strategies read, by name.

A strategy lists its signals in `requires`. The training step computes the union over all
strategies, and no other signal.
"""

__all__ = ["ENTROPIES", "JOINT", "OF_STUDENT", "PER_TRAJECTORY", "SIGNALS"]

SIGNALS: dict[str, str] = {
    "sampling_logprobs": "float32 [N, L]: log-probability of each token under its author",
    "student_logprobs": "float32 [N, L]: log-probability of each token under the student before the update",
    "student_entropy": "float32 [N, L]: entropy of the student's distribution before token t",
    "teacher_logprobs": "float32 [N, L]: log-probability of each token under the row's own teacher",
    "teacher_entropy": "float32 [N, L]: entropy of the teacher's distribution before token t",
    "base_logprobs": "float32 [N, L]: log-probability of each token under the base model",
    "reverse_kl": "float32 [N, L]: KL(student || teacher) over the whole vocabulary before token t",
    "topk_reverse_kl": "float32 [N, L]: KL(student || teacher), both normalised on the student's top_k tokens",
    "topk_forward_kl": "float32 [N, L]: KL(teacher || student), each normalised on its own top_k tokens, 0 elsewhere",
    "topk_overlap": "float32 [N, L]: fraction of the student's top_k tokens that are in the teacher's top k",
    "student_topk_mass": "float32 [N, L]: teacher's probability mass on the student's top_k tokens",
    "teacher_rank": "float32 [N, L]: rank of the student's likeliest token under the teacher, from 1",
    "rewards": "float32 [N]: the verifier's grade of the trajectory, in [0, 1]",
}
"""Meaning of each signal. Log-probabilities, entropies and divergences are in nats; [N, L] is 0 off the mask."""

ENTROPIES = frozenset({"student_entropy", "teacher_entropy"})
JOINT = frozenset({"reverse_kl", "topk_reverse_kl", "topk_forward_kl", "topk_overlap", "student_topk_mass"})
JOINT |= {"teacher_rank"}
"""Signals of student and teacher together: the student's pass needs the teacher's distributions."""
OF_STUDENT = frozenset({"student_logprobs", "student_entropy"}) | JOINT
"""Signals that need a forward pass of the student."""
PER_TRAJECTORY = frozenset({"rewards"})
"""Signals of shape [N]."""
