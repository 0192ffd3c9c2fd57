"""Operators on devices and tensors in memories: exact programs, their referees and baselines.

`problem` and `chain` state what is decided and cost it; `graph`, `contiguous` and `tiers` decide; `baselines` are the
hand-made rules beside them. Nothing here knows how an operator was priced.
"""
