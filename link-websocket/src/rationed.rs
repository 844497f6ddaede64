//! A stream that can be read a number of times, and then claims that nothing is there.

use std::io::{self, Read, Write};

/// Reads for one frame. (A message may take more, and tungstenite would join fragments for as long as there are any.)
const RATION: u32 = 64;

/// A stream whose reads are rationed, and which counts what it has written.
pub(crate) struct Rationed<S> {
    pub(crate) stream: S,
    pub(crate) written: u64,
    /// Reads that are left.
    reads: u32,
}

impl<S> Rationed<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, written: 0, reads: RATION }
    }

    pub(crate) const fn replenish(&mut self) {
        self.reads = RATION;
    }

    pub(crate) const fn is_used_up(&self) -> bool {
        self.reads == 0
    }
}

impl<S: Read> Read for Rationed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads = self.reads.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        self.stream.read(buffer)
    }
}

impl<S: Write> Write for Rationed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.written = self.written.wrapping_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
