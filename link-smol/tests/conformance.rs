//! Link on smol does what every adapter must: the suite of `link-conformance`, on smol's global executor.

use link_smol::Smol;

link_conformance::conformance!(Smol, smol::block_on);
