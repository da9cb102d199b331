//! vitrine-bert
