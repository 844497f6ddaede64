//! Logs on stderr, for whoever asks for them with `RUST_LOG`.

use std::{
    env,
    io::{self, Write as _},
};

use tracing_subscriber::EnvFilter;

/// Logs from here on what `RUST_LOG` says; nothing without it.
pub(crate) fn start() {
    let Some(wanted) = env::var_os(EnvFilter::DEFAULT_ENV).filter(|wanted| !wanted.is_empty()) else {
        return;
    };
    match wanted.to_string_lossy().parse::<EnvFilter>() {
        Ok(filter) => {
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(io::stderr)
                .with_ansi(false)
                // That would be told on stderr too, and panic where nobody reads it any more.
                .log_internal_errors(false)
                .init();
        }
        // The variable may be meant for other programs as well: a wrong value must not stop this one.
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "edge-link: warning: nothing is logged, since RUST_LOG is invalid ({error}); \
                 set it to a level, such as debug, or to targets, such as link::server=debug"
            );
        }
    }
}
