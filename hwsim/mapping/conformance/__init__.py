"""What a mapper must do, as laws that a user's own mapper can be held against: `check_mapper`.

No test framework is needed; `Conformance.raise_if_broken` suits one line of any.
"""

from hwsim.mapping.conformance.kit import Conformance, LawResult, check_mapper

__all__ = ["Conformance", "LawResult", "check_mapper"]
