//! What the files call an ending. Each is written out, so that a new name in the library does not rename it.

use link_core::{CloseReason, Refusal, Violation};

pub(super) fn reason(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Local => "local".into(),
        CloseReason::ShuttingDown => "shutting-down".into(),
        CloseReason::PeerClosed { code: Some(code) } => format!("peer-closed {code}"),
        CloseReason::PeerClosed { code: None } => "peer-closed".into(),
        CloseReason::Lost => "lost".into(),
        CloseReason::AuthenticationTimeout(_) => "authentication-timeout".into(),
        CloseReason::Idle(_) => "idle".into(),
        CloseReason::Replaced => "replaced".into(),
        CloseReason::Refused(reason) => refusal(*reason).into(),
        CloseReason::RefusedByServer(status) => format!("refused-by-server {}", status.code()),
        CloseReason::Violation(reason) => violation(*reason).into(),
        CloseReason::SlowPeer => "slow-peer".into(),
        other => panic!("{other:?} has no name yet"),
    }
}

pub(super) fn violation(violation: Violation) -> &'static str {
    match violation {
        Violation::NotJson => "not-json",
        Violation::UnexpectedMessage => "unexpected-message",
        Violation::MalformedProof => "malformed-proof",
        Violation::StaleProof => "stale-proof",
        Violation::BadSignature => "bad-signature",
        Violation::Reflected => "reflected",
        Violation::UnexpectedServer(_) => "unexpected-server",
        Violation::MessageTooLarge { .. } => "message-too-large",
        Violation::NotUtf8 => "not-utf8",
        Violation::WebSocket => "websocket",
        other => panic!("{other:?} has no name yet"),
    }
}

pub(super) fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Replayed => "replayed",
        Refusal::NotWhitelisted => "not-whitelisted",
        Refusal::Denied => "denied",
        Refusal::AlreadyConnected => "already-connected",
        Refusal::Busy => "busy",
        other => panic!("{other:?} has no name yet"),
    }
}
