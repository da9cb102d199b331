//! The tutorial in `docs/book/src`. Each chapter is the documentation of a module here, so `cargo test` compiles and runs its
//! code, and `cargo doc -p vitrine-book` renders it. `mdbook serve docs/book` (`cargo install mdbook`) shows it as a book.

macro_rules! chapters {
    ($($name:ident $file:literal)*) => {
        $(#[doc = include_str!(concat!("src/", $file))] pub mod $name {})*
    };
}

chapters! {
    introduction "introduction.md"
    operation "operation.md"
    attention "attention.md"
    training_step "training_step.md"
    claims "claims.md"
    reading_order "reading_order.md"
    extending "extending.md"
}
