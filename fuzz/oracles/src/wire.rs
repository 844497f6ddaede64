//! A stream of bytes that behaves as it is told: reads and writes of any size, and none at all for a while.

use std::io::{self, ErrorKind, Read, Write};

use arbitrary::{Arbitrary, Unstructured};

/// How many bytes each call moves at most, again and again from the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    steps: Vec<u8>,
    next: usize,
}

/// The step that says `Interrupted`; zero says `WouldBlock`, and the longest moves what there is.
const INTERRUPTED: u8 = 254;
const ALL: u8 = 255;

impl Pace {
    pub(crate) fn of(steps: impl Into<Vec<u8>>) -> Self {
        let mut steps = steps.into();
        // Something has to move in the end.
        if steps.iter().all(|step| matches!(*step, 0 | INTERRUPTED)) {
            steps.push(ALL);
        }
        Self { steps, next: 0 }
    }

    pub(crate) fn whole() -> Self {
        Self::of([ALL])
    }

    /// How many bytes of `wanted` move now.
    pub(crate) fn step(&mut self, wanted: usize) -> io::Result<usize> {
        let step = self.steps[self.next];
        self.next = (self.next + 1) % self.steps.len();
        match step {
            0 => Err(ErrorKind::WouldBlock.into()),
            INTERRUPTED => Err(ErrorKind::Interrupted.into()),
            ALL => Ok(wanted),
            some => Ok(wanted.min(usize::from(some))),
        }
    }
}

impl<'a> Arbitrary<'a> for Pace {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let length = usize::from(u8::arbitrary(input)? % 16).min(input.len());
        Ok(Self::of(input.bytes(length)?))
    }
}

/// A stream whose peer has said everything already.
#[derive(Debug)]
pub(crate) struct Script {
    incoming: Vec<u8>,
    /// How much of it has been read.
    pub(crate) read: usize,
    pub(crate) reading: Pace,
    /// Whether the peer ends after that, rather than staying silent.
    pub(crate) ends: bool,
    pub(crate) written: Vec<u8>,
    pub(crate) writing: Pace,
    /// How many bytes the peer takes before it is gone, though what it has said is there to be read.
    pub(crate) deaf_after: usize,
    /// Whether it could not do something that it will be able to do later.
    pub(crate) blocked: bool,
    /// Calls of any kind, and those that read.
    pub(crate) calls: usize,
    pub(crate) reads: usize,
    /// Whether it says `Interrupted` as well.
    pub(crate) interruptions: bool,
}

impl Script {
    pub(crate) fn new(incoming: impl Into<Vec<u8>>, reading: Pace, writing: Pace) -> Self {
        Self {
            incoming: incoming.into(),
            read: 0,
            reading,
            ends: false,
            written: vec![],
            writing,
            deaf_after: usize::MAX,
            blocked: false,
            calls: 0,
            reads: 0,
            interruptions: false,
        }
    }

    /// All that the peer says.
    pub(crate) fn said(&self) -> &[u8] {
        &self.incoming
    }

    /// How much of what the peer has said is still to be read.
    pub(crate) fn left(&self) -> usize {
        self.incoming.len() - self.read
    }

    fn step(&mut self, reads: bool, wanted: usize) -> io::Result<usize> {
        self.calls += 1;
        let pace = if reads { &mut self.reading } else { &mut self.writing };
        let step = match pace.step(wanted) {
            Err(error) if error.kind() == ErrorKind::Interrupted && !self.interruptions => {
                Err(ErrorKind::WouldBlock.into())
            }
            step => step,
        };
        self.blocked |= step.is_err();
        step
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let left = self.left();
        if left == 0 {
            self.calls += 1;
            return if self.ends { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let length = self.step(true, left.min(buffer.len()))?;
        buffer[..length].copy_from_slice(&self.incoming[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.deaf_after - self.written.len();
        if room == 0 {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let length = self.step(false, bytes.len().min(room))?;
        self.written.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
