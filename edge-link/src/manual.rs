//! `edge-link completions` and `edge-link man`: for shells, for people, and for those who make packages.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{Failure, args::Args};

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "edge-link", &mut script);
    print(&script)
}

/// Prints the man page of a subcommand, or of all.
pub(crate) fn man(subcommand: &[String]) -> Result<(), Failure> {
    let all = built();
    let mut command = &all;
    for name in subcommand {
        command = command.find_subcommand(name).ok_or_else(|| {
            let asked = subcommand.join(" ");
            Failure::Usage(format!("no such command: {asked:?}; `edge-link --help` lists them"))
        })?;
    }
    let mut text = Vec::new();
    page(command).render(&mut text)?;
    print(&text)
}

/// Writes the man page of each command.
pub(crate) fn write_man_pages(directory: &Path) -> Result<(), Failure> {
    let written = || {
        fs::create_dir_all(directory)?;
        let mut commands = vec![built()];
        while let Some(command) = commands.pop() {
            page(&command).generate_to(directory)?;
            commands.extend(command.get_subcommands().cloned());
        }
        Ok(())
    };
    written().map_err(|error: io::Error| {
        Failure::Failed(format!("cannot write man pages to {}: {error}", directory.display()))
    })
}

/// The command, where each subcommand knows its full name.
fn built() -> Command {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("edge-link ", env!("CARGO_PKG_VERSION")))
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    Ok(stdout.flush()?)
}
