//! An error with its causes, for logs and for people.

use std::{error::Error, fmt};

/// Shows an error, and behind it each of its causes: an error of Link does not repeat them in its own text.
///
/// ```
/// # use link_driver::ErrorChain;
/// # fn say(error: &link_driver::ConnectError) {
/// // cannot connect to localhost:3793: Connection refused (os error 111)
/// eprintln!("{}", ErrorChain::new(error));
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl<'a> ErrorChain<'a> {
    /// Of this error.
    pub fn new(error: &'a (dyn Error + 'static)) -> Self {
        Self(error)
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}
