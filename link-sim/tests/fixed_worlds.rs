//! Worlds that once failed, as the choices that `--shrink` left of them.

use link_sim::{Choices, Fault, Faults, Options, Outcome, run_with};

fn replay(faults: &[Fault], choices: &[u64]) -> Outcome {
    let allowed = faults.iter().fold(Faults::NONE, |faults, fault| faults.with(*fault));
    run_with(Choices::replayed(choices), Options { allowed, trace: true, ..Options::default() })
}

/// A close frame and then something that is no JSON came while the server decided; the second was called an unexpected
/// message, where the specification (6.1) has a row of its own for it.
#[test]
fn what_is_not_json_is_called_so_while_the_server_decides() {
    use Fault::*;
    let faults = [
        Delay,
        BoundedPipe,
        CutFin,
        CutReset,
        WallDrift,
        Hang,
        LateTimers,
        Ties,
        ServerCrash,
        ServerShutdown,
        Check,
        SharedWallets,
        Crowd,
        Leave,
        Intruder,
        Impostor,
        TightLimits,
    ];
    let choices = [
        2, 2, 0, 2, 2, 3, 0, 0, 0, 2, 0, 0, 2, 3, 0, 2, 0, 0, 0, 0, 2, 2, 2, 0, 3, 0, 0, 2, 3, 2, 0, 0, 0,
        15993, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1262, 0, 1056,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 104, 0, 0, 0, 203, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 196, 0, 0, 0, 0, 0, 0, 177, 0, 7, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 934, 0, 1, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 27, 116, 0, 0, 0, 0, 0, 0, 0, 79, 0, 0, 0, 3, 0, 0, 15, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 24, 129, 0, 0, 0, 555, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 385, 0, 0, 0, 0, 0, 0,
        0, 0, 31, 903, 0, 0, 0, 0, 0, 302, 0, 0, 1257, 0, 3, 1, 0, 222, 0, 0, 0, 0, 0, 0, 0, 0, 309, 0, 2, 9,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1651, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 585, 0, 3, 0, 0, 0, 0, 0, 5,
        14, 0, 0, 373, 0, 6, 0, 0, 0, 0,
    ];
    let outcome = replay(&faults, &choices);
    assert_eq!(outcome.failure, None);
    let named = "closed: the peer sent a frame that is not JSON";
    let decided = outcome.trace.iter().rev().any(|line| line.contains(named));
    assert!(decided, "the world has changed; find another one:\n{}", outcome.trace.join("\n"));
}
