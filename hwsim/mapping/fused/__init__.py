"""Attention as one mapping: QK^T, softmax and AV over tiles of queries and keys, scores kept on the chip."""
