//! vitrine-tensor
