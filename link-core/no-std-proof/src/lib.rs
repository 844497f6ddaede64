//! Proves by building that `link-core`, with all that it depends on, needs no `std`.
//!
//! A static library that brings a panic handler of its own cannot contain `std`, which brings one too: the compiler
//! refuses the second (E0152). Nothing here is ever run.

#![no_std]

extern crate alloc;

use alloc::sync::Arc;
use core::{
    alloc::{GlobalAlloc, Layout},
    panic::PanicInfo,
};

use link_core::{Admission, AdmissionConfig, Config, Connection, Now, PrivateKey, Reconnect, Wallet};

struct NoMemory;

// SAFETY: null is what an allocator returns that has no memory.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Reaches every part, so that none is left out of the build.
#[unsafe(no_mangle)]
pub extern "C" fn link_core_needs_no_std() -> usize {
    let Ok(key) = PrivateKey::from_bytes([1; 32]) else { return 0 };
    let wallet = Wallet::from_private_key(key);
    let now = Now::default();
    let mut server = Connection::server(Arc::new(Config::server(wallet.clone())), now);
    let mut client = Connection::client(Arc::new(Config::client(wallet)), now);
    let _ = Admission::new(AdmissionConfig::default());
    let _ = Reconnect::new(Default::default(), 0);
    [server.poll_output().is_some(), client.poll_output().is_some()].into_iter().filter(|some| *some).count()
}
