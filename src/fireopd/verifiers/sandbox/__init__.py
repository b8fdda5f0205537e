"""Running programs that nobody has read, so that nothing that they do is felt outside.

- `jailer.py`: a worker process that locks itself in, and has each program run in a jail of its own
- `jail.py`: what a jail is: limits, no privileges, no network, no other processes; made of `namespaces.py` or
  `landlock.py`, and of `seccomp.py`
- `programs.py`: the process in which a program runs; `testers.py`: the one that tests it; `values.py`: what goes
  from one to the other

Nothing here is imported by the trainer, and nothing here imports torch.
"""
