//! Tokenizers as checkpoints carry them, and as saved models keep them.
