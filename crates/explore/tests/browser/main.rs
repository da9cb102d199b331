//! The page in headless Chromium, with a server of known numbers, and with the real one ([`real`]). Skipped, visibly, where there is no Chromium (the Debian package
//! `chromium`); set `VITRINE_CHROMIUM` to one. With `VITRINE_SCREENSHOTS=DIR`, pictures of the page are written there.

mod behaviour;
mod chromium;
mod drawing;
mod expected;
mod files;
mod mock;
mod real;
mod values;
