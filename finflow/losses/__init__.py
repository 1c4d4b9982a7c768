"""Loss functions: pure functions of tensors, one equation per file."""
