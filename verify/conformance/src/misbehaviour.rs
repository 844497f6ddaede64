//! Frames that no honest peer sends: who sends one is closed with the code that says why, and nobody else notices.

use std::io::Write;

use futures_util::future::join;
use link_driver::{ClientEvent, CloseReason, FailureCause, Runtime, ServerEvent, Violation};

use crate::support::{
    raw::{self, RawPeer, frame},
    *,
};

/// Sends those bytes to a server, before authentication and after it; expects that close code, and no effect on
/// anybody else.
async fn is_closed_with<R: Runtime>(code: u16, violation: Violation, bytes: Vec<u8>) {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();

    let said = bytes.clone();
    let stranger = script(move || {
        let mut peer = RawPeer::open(at);
        peer.bytes(&said);
        peer.until_the_end()
    });
    let (seen, rejected) = join(stranger, echo.rejected()).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(code)), "before authentication");
    assert_eq!(rejected, (None, CloseReason::Violation(violation)));
    bystander.notices_nothing().await;

    let client = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        peer.bytes(&bytes);
        peer.until_the_end()
    });
    let story = async {
        let peer = echo.authenticated().await;
        let (gone, reason) = echo.disconnected().await;
        assert_eq!(gone, peer);
        reason
    };
    let (seen, reason) = join(client, story).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(code)), "after authentication");
    assert_eq!(reason, CloseReason::Violation(violation));
    bystander.notices_nothing().await;
    assert_eq!(echo.handle.clients().len(), 1);
    assert_eq!(echo.handle.clients()[0].address(), bystander.address());
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn reserved_bits_are_closed_with_1002<R: Runtime>() {
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        is_closed_with::<R>(1002, Violation::WebSocket, frame(0x81 | reserved, b"{}", true)).await;
    }
}

pub async fn an_unmasked_frame_is_closed_with_1002<R: Runtime>() {
    is_closed_with::<R>(1002, Violation::WebSocket, frame(0x81, b"{}", false)).await;
}

pub async fn unknown_opcodes_are_closed_with_1002<R: Runtime>() {
    for opcode in [0x3, 0x7, 0xb, 0xf] {
        is_closed_with::<R>(1002, Violation::WebSocket, frame(0x80 | opcode, b"", true)).await;
    }
}

pub async fn long_or_cut_control_frames_are_closed_with_1002<R: Runtime>() {
    is_closed_with::<R>(1002, Violation::WebSocket, frame(0x89, &[0; 126], true)).await;
    is_closed_with::<R>(1002, Violation::WebSocket, frame(0x09, b"", true)).await;
}

pub async fn a_continuation_of_nothing_is_closed_with_1002<R: Runtime>() {
    is_closed_with::<R>(1002, Violation::WebSocket, frame(0x80, b"{}", true)).await;
}

pub async fn a_message_within_a_message_is_closed_with_1002<R: Runtime>() {
    let bytes = [frame(0x01, b"{", true), frame(0x81, b"{}", true)].concat();
    is_closed_with::<R>(1002, Violation::WebSocket, bytes).await;
}

pub async fn text_that_is_not_utf_8_is_closed_with_1007<R: Runtime>() {
    for text in [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80", b"\xc0\xaf"] {
        is_closed_with::<R>(1007, Violation::NotUtf8, frame(0x81, text, true)).await;
    }
    let in_pieces = [frame(0x01, b"\xf0\x9f", true), frame(0x80, b"\x98", true)].concat();
    is_closed_with::<R>(1007, Violation::NotUtf8, in_pieces).await;
}

pub async fn an_announced_giant_is_closed_with_1009_at_once<R: Runtime>() {
    // Headers alone, of 2^63 - 1 bytes and of a byte beyond the limit.
    for length in [i64::MAX as u64, (1 << 20) + 1] {
        let mut echo = Echo::start(server::<R>()).await;
        let mut bystander = Bystander::of(&mut echo).await;
        let at = echo.handle.local_address().unwrap();
        let giant = script(move || {
            let mut peer = RawPeer::login(at, &wallet());
            let mut header = vec![0x81, 0xff];
            header.extend(length.to_be_bytes());
            header.extend([0; 4]);
            peer.bytes(&header);
            peer.until_the_end()
        });
        let story = async {
            echo.authenticated().await;
            echo.disconnected().await.1
        };
        let (seen, reason) = join(giant, story).soon::<R>().await;
        assert_eq!(seen, (vec![], Some(1009)));
        assert_eq!(reason, CloseReason::Violation(Violation::MessageTooLarge { limit: 1 << 20 }));
        bystander.notices_nothing().await;
        bystander.leaves().await;
        echo.handle.close().soon::<R>().await;
    }
}

pub async fn the_code_comes_though_more_is_on_its_way<R: Runtime>() {
    // All of the giant is sent. A server that just went away would answer what it has not read with a reset, and
    // that overtakes the close frame.
    let mut echo = Echo::start(server::<R>()).await;
    let at = echo.handle.local_address().unwrap();
    let giant = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        peer.bytes(&frame(0x81, &vec![b' '; 3 << 20], true));
        peer.until_the_end()
    });
    let story = async {
        echo.authenticated().await;
        echo.disconnected().await.1
    };
    let (seen, reason) = join(giant, story).soon::<R>().await;
    assert_eq!(seen, (vec![], Some(1009)));
    assert_eq!(reason, CloseReason::Violation(Violation::MessageTooLarge { limit: 1 << 20 }));
    echo.handle.close().soon::<R>().await;
}

pub async fn a_close_frame_that_is_none_ends_the_connection_all_the_same<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    // One byte, a code that must not be sent, a reason that is not UTF-8, nothing at all.
    for payload in [&b"\x03"[..], b"\x03\xed", b"\x03\xe8\xff", b""] {
        let peer = script(move || {
            let mut peer = RawPeer::login(at, &wallet());
            peer.bytes(&frame(0x88, payload, true));
            let mut rest = Vec::new();
            std::io::Read::read_to_end(peer.stream(), &mut rest).unwrap();
        });
        let story = async {
            echo.authenticated().await;
            echo.disconnected().await
        };
        join(peer, story).soon::<R>().await;
        bystander.notices_nothing().await;
    }
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn rubbish_below_the_websocket_stalls_nobody<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    // Deterministic noise.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..30 {
        let noise: Vec<u8> = (0..300)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        let peer = script(move || {
            let mut peer = RawPeer::login(at, &wallet());
            // It may be closed in the middle.
            let _ = peer.stream().write_all(&noise);
        });
        let story = async {
            echo.authenticated().await;
            // Some noise is text, though not JSON.
            let gone = |event| matches!(event, ServerEvent::Disconnected(..)).then_some(());
            echo.hears(gone).await;
        };
        join(peer, story).soon::<R>().await;
    }
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}

pub async fn a_client_closes_a_malformed_server_in_the_same_way<R: Runtime>() {
    for (bytes, violation, code) in [
        (frame(0xc1, b"{}", false), Violation::WebSocket, 1002),
        (frame(0x81, b"{}", true), Violation::WebSocket, 1002),
        (frame(0x81, b"\xff", false), Violation::NotUtf8, 1007),
        (vec![0x81, 127, 0, 0, 0, 0, 1, 0, 0, 0], Violation::MessageTooLarge { limit: 1 << 20 }, 1009),
    ] {
        let (listener, at) = raw::listen();
        let server = script(move || {
            let (mut peer, _) = RawPeer::admit(&listener, &wallet());
            peer.bytes(&bytes);
            peer.until_the_end()
        });
        let connecting = client_at::<R>(at).max_reconnect_attempts(0).connect();
        let story = async {
            let mut client = connecting.await.unwrap();
            assert_eq!(client.disconnected().await.0, CloseReason::Violation(violation));
            match client.told().await {
                Some(ClientEvent::ConnectionFailed(failure)) => {
                    assert_eq!(failure.cause, FailureCause::Closed(CloseReason::Violation(violation)));
                }
                other => panic!("{other:?}"),
            }
        };
        let (seen, ()) = join(server, story).soon::<R>().await;
        assert_eq!(seen, (vec![], Some(code)));
    }
}

pub async fn a_reset_in_the_middle_is_a_lost_connection<R: Runtime>() {
    let mut echo = Echo::start(server::<R>()).await;
    let mut bystander = Bystander::of(&mut echo).await;
    let at = echo.handle.local_address().unwrap();
    let peer = script(move || {
        let mut peer = RawPeer::login(at, &wallet());
        // What the server answers is never read, so that the system resets the connection.
        for number in 0..50 {
            peer.bytes(&frame(0x81, numbered(number).to_string().as_bytes(), true));
        }
        let mut some = [0; 1];
        std::io::Read::read_exact(peer.stream(), &mut some).unwrap();
    });
    let story = async {
        echo.authenticated().await;
        echo.disconnected().await.1
    };
    let ((), reason) = join(peer, story).soon::<R>().await;
    assert_eq!(reason, CloseReason::Lost);
    bystander.notices_nothing().await;
    bystander.leaves().await;
    echo.handle.close().soon::<R>().await;
}
