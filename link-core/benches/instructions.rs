//! How many instructions each operation takes: `cargo bench -p link-core --bench instructions`, and a part of a name for
//! some of them. It needs valgrind.
//!
//! Unlike times, these are the same on a busy machine. Each is compared with `instructions.txt`; it fails where one has
//! become more than a twentieth larger. `-- --save` writes that file anew, for a change that is worth it, or another
//! compiler.
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, clippy::print_stdout)]

mod cases;

use std::{
    collections::BTreeMap,
    env, fs,
    process::{Command, ExitCode},
};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--repeat", times, name] => {
            repeat(name, times.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["--save"] => table("", true),
        [] => table("", false),
        [part] => table(part, false),
        _ => panic!("give a part of a name, or --save"),
    }
}

/// What runs under valgrind.
fn repeat(name: &str, times: u32) {
    let mut operation = (cases::all().find(|case| case.name == name).unwrap().prepare)();
    for _ in 0..times {
        operation();
    }
}

fn table(part: &str, save: bool) -> ExitCode {
    let recorded = recorded();
    let mut record = String::new();
    let mut grown = false;
    println!("instructions  recorded   change");
    for case in cases::all().filter(|case| case.name.contains(part)) {
        let counted = instructions_of(case.name);
        record.push_str(&format!("{counted:>9}  {}\n", case.name));
        match recorded.get(case.name) {
            None => println!("{counted:>12} {:>9} {:>8}  {}", "-", "", case.name),
            Some(before) => {
                let change = 100.0 * (counted as f64 / *before as f64 - 1.0);
                grown |= change > 5.0;
                println!("{counted:>12} {before:>9} {change:>+7.1}%  {}", case.name);
            }
        }
    }
    if save {
        fs::write(RECORD, record).unwrap();
    } else if grown {
        println!("FAILS: more than a twentieth larger than recorded");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn recorded() -> BTreeMap<String, u64> {
    let record = fs::read_to_string(RECORD).unwrap_or_default();
    let lines = record.lines().filter_map(|line| line.trim_start().split_once("  "));
    lines.map(|(count, name)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// What twice as many repetitions take more, for each: preparation and the first few times cancel out.
fn instructions_of(name: &str) -> u64 {
    let times = if name.contains("handshake") || name.contains("k256") { 16 } else { 2_000 };
    (instructions(name, 2 * times) - instructions(name, times)) / u64::from(times)
}

fn instructions(name: &str, times: u32) -> u64 {
    let ran = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["--repeat", &times.to_string(), name])
        .output()
        .unwrap_or_else(|error| panic!("cannot run valgrind: {error}"));
    let said = String::from_utf8_lossy(&ran.stderr);
    let count =
        said.lines().find_map(|line| line.split_once("I   refs:")).map(|(_, count)| count.replace(',', ""));
    match count {
        Some(count) if ran.status.success() => count.trim().parse().unwrap(),
        _ => panic!("{name} failed under valgrind:\n{said}"),
    }
}
