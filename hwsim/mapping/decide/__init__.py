"""From a workload graph to a mapping decision for every operator, and what the decision means for the cost models."""
