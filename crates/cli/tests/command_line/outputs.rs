//! What runs leave in their output folders, also when they are killed, interrupted or raced.
