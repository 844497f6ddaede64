//! Connections that come and go in the middle.

use crate::*;

#[test]
fn resets_in_the_middle() {
    let row = Row {
        sent: "a login, half a message of 1 MiB, and a reset, 20 times over",
        attackers: 8,
        gets: "nothing",
        each: 2 * (SOCKET + INCOMING),
        shared: 0,
    };
    row.play(&[], |scene| {
        scene.all_at_once(|at| {
            for _ in 0..20 {
                let mut peer = login(at);
                peer.bytes(&announcement(MESSAGE));
                peer.bytes(&vec![b' '; MESSAGE / 2]);
                SockRef::from(&*peer.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
    });
}
