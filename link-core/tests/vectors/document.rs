//! How the files are laid out: a proof or a step a line, so that a change shows as a change of its line.
//! Members stand in the order of the fields, which `serde_json::Value` would not keep.

use std::time::Duration;

use serde::Serialize;

use super::wallets::Wallets;

/// A file: its head, and one list of cases.
pub(super) fn document(about: &str, window: Option<Duration>, list: &str, cases: &[String]) -> String {
    let about = json(&format!("{about}: see docs/protocol.md, 'Test vectors'."));
    let wallets = json(&Wallets::all());
    let window = match window {
        Some(window) => format!(" \"window_ms\": {},\n", window.as_millis()),
        None => String::new(),
    };
    let cases: Vec<_> = cases.iter().map(|case| format!("  {case}")).collect();
    let cases = cases.join(",\n");
    format!("{{\n \"about\": {about},\n \"wallets\": {wallets},\n{window} \"{list}\": [\n{cases}\n ]\n}}\n")
}

/// A case of one line.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// A case of several steps: the members of its head, then `steps`.
pub(super) fn story(head: &impl Serialize, steps: &[impl Serialize]) -> String {
    let head = json(head);
    let head = head.strip_suffix('}').unwrap();
    let steps: Vec<_> = steps.iter().map(|step| format!("   {}", json(step))).collect();
    format!("{head},\"steps\":[\n{}\n  ]}}", steps.join(",\n"))
}
