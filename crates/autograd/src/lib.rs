//! vitrine-autograd
