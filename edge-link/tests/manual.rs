//! Completions for shells, and man pages.

mod support;

use support::run;

const COMMANDS: [&str; 6] = ["serve", "connect", "bench", "wallet", "completions", "man"];

#[test]
fn there_are_completions_for_each_shell_and_they_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in COMMANDS.iter().chain(&["linger", "metrics"]) {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
    let refused = run(&["completions", "command.com"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("bash"), "{refused:?}");
}

#[test]
fn a_man_page_has_its_sections() {
    let all = run(&["man"]);
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    for part in [".TH edge-link 1", ".SH NAME", ".SH SYNOPSIS", "RUST_LOG"] {
        assert!(all.stdout.contains(part), "{part}: {}", all.stdout);
    }
    for command in COMMANDS {
        assert!(all.stdout.contains(&format!("edge\\-link\\-{command}(1)")), "{command}: {}", all.stdout);
    }
    let connect = run(&["man", "connect"]);
    assert!(connect.stdout.contains(".TH edge-link-connect 1"), "{}", connect.stdout);
    assert!(connect.stdout.contains("\\-\\-linger") && connect.stdout.contains(".SH OPTIONS"));
    assert!(run(&["man", "wallet", "new"]).stdout.contains(".TH edge-link-wallet-new 1"));
    let refused = run(&["man", "dance"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("dance"), "{refused:?}");
}

#[test]
fn all_man_pages_can_be_written_to_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man/man1");
    let written = run(&["man", "--out", pages.to_str().unwrap()]);
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""), "{written:?}");
    for name in ["edge-link", "edge-link-serve", "edge-link-wallet", "edge-link-wallet-new"] {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
    }
    let blocked = pages.join("edge-link.1");
    let refused = run(&["man", "--out", blocked.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot write man pages to"), "{refused:?}");
}
