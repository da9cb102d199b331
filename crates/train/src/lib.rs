//! vitrine-train
