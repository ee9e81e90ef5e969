//! The rules WHIP and WHEP add to an SDP offer (RFC 9725 section 4.2 and 4.4,
//! draft-ietf-wish-whep section 4.2): at most one audio and one video track, bundled on
//! one transport with RTCP, in the direction of the protocol.
//!
//! This is a look at the text before anything is built for it. Codecs, fingerprints and
//! ICE are judged by `webrtc`.

use std::fmt;

use crate::http::Status;

/// Which way media goes, seen from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// WHIP: the peer sends.
    Send,
    /// WHEP: the peer receives.
    Receive,
}

/// Why an offer cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No text at all.
    Empty,
    /// Not an SDP session description.
    NotSdp,
    /// Neither an audio nor a video section that is in use.
    NoMedia,
    /// More than one audio or more than one video section.
    TooManyTracks,
    /// A WHIP offer that does not send, or a WHEP offer that does not receive.
    WrongDirection(Direction),
    /// Several sections that are not in one BUNDLE group.
    NotBundled,
    /// A section without `a=rtcp-mux`.
    NoRtcpMux,
}

impl Error {
    /// The status of the answer: 400 for what is no offer, 422 for one that breaks a rule.
    pub const fn status(&self) -> Status {
        match self {
            Self::Empty | Self::NotSdp => Status::BadRequest,
            _ => Status::UnprocessableContent,
        }
    }

    /// A short name for counters and the problem body.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "offer_empty",
            Self::NotSdp => "offer_not_sdp",
            Self::NoMedia => "offer_no_media",
            Self::TooManyTracks => "offer_too_many_tracks",
            Self::WrongDirection(_) => "offer_wrong_direction",
            Self::NotBundled => "offer_not_bundled",
            Self::NoRtcpMux => "offer_no_rtcp_mux",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "The request has no body; send an SDP offer.",
            Self::NotSdp => "The body is not an SDP offer.",
            Self::NoMedia => "The offer has neither audio nor video.",
            Self::TooManyTracks => "At most one audio and one video track may be offered.",
            Self::WrongDirection(Direction::Send) => {
                "A WHIP offer must send its media (sendonly); to play, use WHEP."
            }
            Self::WrongDirection(Direction::Receive) => {
                "A WHEP offer must receive its media (recvonly); to publish, use WHIP."
            }
            Self::NotBundled => "All media must be in one BUNDLE group.",
            Self::NoRtcpMux => "RTCP must be multiplexed with media (a=rtcp-mux).",
        })
    }
}

impl std::error::Error for Error {}

/// One audio or video section in use.
#[derive(Default)]
struct Section<'a> {
    mid: Option<&'a str>,
    direction: Option<&'a str>,
    rtcp_mux: bool,
}

/// The text of an offer that keeps the rules for this direction. `sendrecv` is
/// tolerated both ways: browsers offer it by default.
///
/// # Errors
/// See [`Error`].
pub fn check(body: &[u8], direction: Direction) -> Result<&str, Error> {
    let text = std::str::from_utf8(body).map_err(|_| Error::NotSdp)?;
    let text = text.trim_start();
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if !text.starts_with("v=0") {
        return Err(Error::NotSdp);
    }
    let mut parts = Vec::new();
    for line in text.lines() {
        if line.starts_with("m=") || parts.is_empty() {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(line.trim_end());
        }
    }
    let mut parts = parts.into_iter();
    let session = parts.next().unwrap_or_default();
    let default = direction_of(&session).unwrap_or("sendrecv");
    let (mut kinds, mut sections) = (Vec::new(), Vec::new());
    for part in parts {
        let mut words = part.first().unwrap_or(&"").split(' ');
        let kind = words.next().unwrap_or_default();
        let is_off = words.next() == Some("0") && !part.contains(&"a=bundle-only");
        if is_off || !matches!(kind, "m=audio" | "m=video") {
            continue;
        }
        if kinds.contains(&kind) {
            return Err(Error::TooManyTracks);
        }
        kinds.push(kind);
        sections.push(Section {
            mid: part.iter().find_map(|line| line.strip_prefix("a=mid:")),
            direction: direction_of(&part),
            rtcp_mux: part
                .iter()
                .any(|&line| matches!(line, "a=rtcp-mux" | "a=rtcp-mux-only")),
        });
    }
    if sections.is_empty() {
        return Err(Error::NoMedia);
    }
    let wanted = match direction {
        Direction::Send => ["sendonly", "sendrecv"],
        Direction::Receive => ["recvonly", "sendrecv"],
    };
    let is_right = |section: &Section<'_>| wanted.contains(&section.direction.unwrap_or(default));
    if !sections.iter().all(is_right) {
        return Err(Error::WrongDirection(direction));
    }
    if !sections.iter().all(|section| section.rtcp_mux) {
        return Err(Error::NoRtcpMux);
    }
    if sections.len() > 1 && !is_bundled(&session, &sections) {
        return Err(Error::NotBundled);
    }
    Ok(text)
}

fn direction_of<'a>(part: &[&'a str]) -> Option<&'a str> {
    part.iter()
        .filter_map(|line| line.strip_prefix("a="))
        .find(|name| matches!(*name, "sendrecv" | "sendonly" | "recvonly" | "inactive"))
}

fn is_bundled(session: &[&str], sections: &[Section<'_>]) -> bool {
    session
        .iter()
        .filter_map(|line| line.strip_prefix("a=group:BUNDLE"))
        .any(|group| {
            let is_member = |mid: &str| group.split(' ').any(|member| member == mid);
            sections
                .iter()
                .all(|section| section.mid.is_some_and(is_member))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        a=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\n";

    fn publish(offer: &str) -> Result<&str, Error> {
        check(offer.as_bytes(), Direction::Send)
    }

    #[test]
    fn offers_in_the_right_direction_pass_as_they_are() {
        assert_eq!(publish(OFFER), Ok(OFFER));
        let junk_before = format!("\r\n {OFFER}");
        assert_eq!(publish(&junk_before), Ok(OFFER));
        for direction in ["sendrecv", "recvonly"] {
            let offer = OFFER.replace("sendonly", direction);
            assert!(check(offer.as_bytes(), Direction::Receive).is_ok());
        }
        let default = OFFER.replace("a=sendonly\r\n", "");
        assert!(publish(&default).is_ok());
        let in_session = default.replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n");
        assert!(check(in_session.as_bytes(), Direction::Receive).is_ok());
        assert!(publish(&in_session).is_err());
    }

    #[test]
    fn one_track_needs_no_group_and_others_do_not_count() {
        let single = "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=rtcp-mux\n";
        assert!(publish(single).is_ok());
        let with_data = format!("{single}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\n");
        assert!(publish(&with_data).is_ok());
        let with_rejected = format!("{single}m=video 0 UDP/TLS/RTP/SAVPF 96\n");
        assert!(publish(&with_rejected).is_ok());
        let bundle_only = OFFER.replace("m=video 9", "m=video 0");
        let bundle_only = format!("{bundle_only}a=bundle-only\r\n");
        assert!(publish(&bundle_only).is_ok());
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        let whole = |offer: &str| publish(offer).expect_err("refused");
        assert_eq!(whole(""), Error::Empty);
        assert_eq!(whole(" \r\n"), Error::Empty);
        assert_eq!(whole("hello"), Error::NotSdp);
        assert_eq!(whole("v=0\r\n"), Error::NoMedia);
        assert_eq!(whole(&OFFER.replace(" 9 ", " 0 ")), Error::NoMedia);
        let mut two = OFFER.to_owned();
        two.push_str("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=rtcp-mux\r\n");
        assert_eq!(whole(&two), Error::TooManyTracks);
        let send = Error::WrongDirection(Direction::Send);
        assert_eq!(whole(&OFFER.replacen("sendonly", "recvonly", 1)), send);
        assert_eq!(whole(&OFFER.replace("sendonly", "inactive")), send);
        assert_eq!(
            check(OFFER.as_bytes(), Direction::Receive),
            Err(Error::WrongDirection(Direction::Receive))
        );
        assert_eq!(
            whole(&OFFER.replace("BUNDLE 0 1", "BUNDLE 0")),
            Error::NotBundled
        );
        assert_eq!(
            whole(&OFFER.replacen("a=rtcp-mux\r\n", "", 1)),
            Error::NoRtcpMux
        );
        assert_eq!(check(b"v=0\xff", Direction::Send), Err(Error::NotSdp));
    }

    #[test]
    fn cut_and_flipped_offers_return() {
        for index in 0..OFFER.len() {
            let _ = publish(&OFFER[..index]);
            for bit in 0..8 {
                let mut flipped = OFFER.as_bytes().to_vec();
                flipped[index] ^= 1 << bit;
                let _ = check(&flipped, Direction::Send);
            }
        }
    }
}
