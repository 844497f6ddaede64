//! Where a connection writes what it says of its own, over and over.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::{
    message::{self, MAX_HEARTBEAT_LENGTH},
    time::UnixMillis,
};

/// The length of a ping's payload.
pub(super) const PING_LENGTH: usize = 8;

/// Room for a ping and a `heartbeat`. Once nobody holds the frames that were last written here, the next ones are
/// written in their place, so that a connection which beats along does not allocate; as long as somebody does, it takes
/// new room.
#[derive(Debug, Default)]
pub(super) struct Room(BytesMut);

impl Room {
    pub(super) fn ping(&mut self, payload: [u8; PING_LENGTH]) -> Bytes {
        // And for the `heartbeat` that follows, since the ping then still lies in the way.
        self.0.reserve(PING_LENGTH.saturating_add(MAX_HEARTBEAT_LENGTH));
        self.0.extend_from_slice(&payload);
        self.0.split().freeze()
    }

    pub(super) fn heartbeat(&mut self, now: UnixMillis) -> ByteString {
        self.0.reserve(MAX_HEARTBEAT_LENGTH);
        message::write_heartbeat(now, &mut self.0);
        // It is ASCII.
        ByteString::try_from(self.0.split()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis::MAX;

    #[test]
    fn what_nobody_holds_is_written_over_and_what_somebody_holds_is_not() {
        let mut room = Room::default();
        let first = room.ping([1; PING_LENGTH]);
        let place = first.as_ptr();
        let text = room.heartbeat(NOW);
        assert_eq!(text, r#"{"type":"heartbeat","ts":9007199254740991}"#);
        assert_eq!((text.len(), text.as_ptr()), (MAX_HEARTBEAT_LENGTH, place.wrapping_add(PING_LENGTH)));
        drop(text);

        let second = room.ping([2; PING_LENGTH]);
        assert_eq!((&first[..], &second[..]), (&[1; PING_LENGTH][..], &[2; PING_LENGTH][..]));
        assert_ne!(second.as_ptr(), place);
        let place = second.as_ptr();
        drop((first, second, room.heartbeat(NOW)));
        assert_eq!(room.ping([3; PING_LENGTH]).as_ptr(), place);
    }

    #[test]
    fn heartbeats_between_two_pings_take_no_more_room() {
        let mut room = Room::default();
        let place = room.ping([1; PING_LENGTH]).as_ptr();
        for _ in 0..10 {
            assert!([place, place.wrapping_add(PING_LENGTH)].contains(&room.heartbeat(NOW).as_ptr()));
        }
    }
}
