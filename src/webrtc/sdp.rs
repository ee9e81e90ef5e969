//! [`Offer`]: what we need to know of an SDP offer (RFC 8866, RFC 8829).
//!
//! A tolerant reader: LF or CRLF, attributes in any order and at session or media
//! level, everything unknown skipped. What it hands on is judged in `negotiate`.

use std::fmt;

use super::{MEDIA_SECTIONS_MAX, OFFER_BYTES_MAX, OfferError};

/// `a=sendrecv` and its kin, as the offerer sees it (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways; also what no attribute means.
    #[default]
    SendRecv,
    /// The offerer sends.
    SendOnly,
    /// The offerer receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        })
    }
}

/// The kind of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Audio,
    Video,
    Application,
    Other,
}

/// `a=setup` (RFC 8842 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    ActPass,
    Active,
    Passive,
    Other,
}

/// `a=fingerprint` (RFC 8122 section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// In lower case.
    pub(super) hash: String,
    pub(super) bytes: Vec<u8>,
}

/// What may stand at session level and is inherited by every m-line.
#[derive(Clone, Debug, Default)]
pub(super) struct TransportAttributes {
    pub(super) ice_ufrag: Option<String>,
    pub(super) ice_pwd: Option<String>,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) setup: Option<Setup>,
}

/// One payload type of an m-line.
#[derive(Clone, Debug, Default)]
pub(super) struct Codec {
    pub(super) pt: u8,
    /// As written in `a=rtpmap`; empty if there is none.
    pub(super) name: String,
    pub(super) clock_rate_hz: u32,
    pub(super) channels: u8,
    /// The parameters of `a=fmtp`, unparsed.
    pub(super) fmtp: String,
    /// The values of `a=rtcp-fb`, also those of the wildcard.
    pub(super) feedback: Vec<String>,
}

impl Codec {
    /// A parameter of the `fmtp` line, names compared without case.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn has_feedback(&self, value: &str) -> bool {
        self.feedback.iter().any(|feedback| feedback == value)
    }
}

/// One m-line with its attributes.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// The media name as written, to be repeated in the answer.
    pub(super) media: String,
    pub(super) port: u16,
    /// The transport as written, to be repeated in the answer.
    pub(super) proto: String,
    /// The first format as written, for the answer to a section that is refused.
    pub(super) first_format: String,
    pub(super) mid: Option<String>,
    pub(super) direction: Direction,
    pub(super) rtcp_mux: bool,
    pub(super) transport: TransportAttributes,
    /// In the offer's order of preference.
    pub(super) codecs: Vec<Codec>,
    /// Header extensions: id and URI.
    pub(super) extensions: Vec<(u8, String)>,
    /// The SSRCs that will be sent, in order of first mention.
    pub(super) ssrcs: Vec<u32>,
    /// Of `a=ssrc-group:FID`: main and retransmission SSRC.
    pub(super) retransmissions: Vec<(u32, u32)>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    pub(super) ice_lite: bool,
    pub(super) transport: TransportAttributes,
    /// The mids of the BUNDLE group.
    pub(super) bundle: Option<Vec<String>>,
    pub(super) sections: Vec<Section>,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// Those of [`OfferError`] that say that this is no SDP, or too much of it.
    pub(super) fn decode(text: &str) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(OfferError::TooLarge { len: text.len() });
        }
        let mut lines = text
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.is_empty());
        if lines.next().map(|(_, line)| line.trim_end()) != Some("v=0") {
            return Err(OfferError::NotSdp);
        }
        let mut offer = Offer::default();
        for (number, line) in lines {
            offer.decode_line(line).map_err(|fault| match fault {
                Fault::Line(what) => OfferError::Malformed { line: number, what },
                Fault::Offer(error) => error,
            })?;
        }
        if offer.sections.is_empty() {
            return Err(OfferError::NoMedia);
        }
        Ok(offer)
    }

    /// The peer's ICE fragment, wherever it stands.
    pub(super) fn ice_ufrag(&self) -> Option<&str> {
        self.transports()
            .find_map(|level| level.ice_ufrag.as_deref())
    }

    /// The password to it.
    pub(super) fn ice_pwd(&self) -> Option<&str> {
        self.transports().find_map(|level| level.ice_pwd.as_deref())
    }

    fn transports(&self) -> impl Iterator<Item = &TransportAttributes> {
        let sections = self.sections.iter().map(|section| &section.transport);
        sections.chain([&self.transport])
    }

    fn decode_line(&mut self, line: &str) -> Result<(), Fault> {
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err(Fault::Line("not of the form x=..."));
        };
        match kind {
            "m" => {
                if self.sections.len() >= MEDIA_SECTIONS_MAX {
                    return Err(Fault::Offer(OfferError::TooManyMediaSections));
                }
                self.sections.push(Section::decode(value)?);
                Ok(())
            }
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                match self.sections.last_mut() {
                    Some(section) => section.decode_attribute(name, value),
                    None => self.decode_attribute(name, value),
                }
            }
            _ => Ok(()),
        }
    }

    fn decode_attribute(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "ice-lite" => self.ice_lite = true,
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.bundle.is_none() {
                    self.bundle = Some(words.map(str::to_owned).collect());
                }
            }
            _ => self.transport.decode(name, value)?,
        }
        Ok(())
    }
}

impl TransportAttributes {
    fn decode(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "ice-ufrag" => self.ice_ufrag = Some(value.trim().to_owned()),
            "ice-pwd" => self.ice_pwd = Some(value.trim().to_owned()),
            "fingerprint" => self.fingerprints.push(Fingerprint::decode(value)?),
            "setup" => {
                self.setup = Some(match value.trim() {
                    "actpass" => Setup::ActPass,
                    "active" => Setup::Active,
                    "passive" => Setup::Passive,
                    _ => Setup::Other,
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Fingerprint {
    fn decode(value: &str) -> Result<Self, Fault> {
        const WHAT: Fault = Fault::Line("a fingerprint that cannot be read");
        let (hash, digits) = value.trim().split_once(' ').ok_or(WHAT)?;
        let bytes = digits
            .trim()
            .split(':')
            .map(|pair| u8::from_str_radix(pair, 16).map_err(|_| WHAT))
            .collect::<Result<Vec<u8>, Fault>>()?;
        Ok(Self {
            hash: hash.to_ascii_lowercase(),
            bytes,
        })
    }
}

impl Section {
    /// Reads what follows `m=`.
    fn decode(value: &str) -> Result<Self, Fault> {
        const WHAT: Fault = Fault::Line("an m-line that cannot be read");
        let mut words = value.split_ascii_whitespace();
        let media = words.next().ok_or(WHAT)?;
        // "9/2" would be two ports; RTP over one transport has no use for it.
        let port = words
            .next()
            .and_then(|port| port.parse().ok())
            .ok_or(WHAT)?;
        let proto = words.next().ok_or(WHAT)?;
        let kind = match media {
            "audio" => Kind::Audio,
            "video" => Kind::Video,
            "application" => Kind::Application,
            _ => Kind::Other,
        };
        let formats: Vec<&str> = words.collect();
        let mut codecs: Vec<Codec> = Vec::new();
        if matches!(kind, Kind::Audio | Kind::Video) {
            for format in &formats {
                let pt = format.parse().ok().filter(|pt| *pt < 128).ok_or(WHAT)?;
                if codecs.iter().all(|codec| codec.pt != pt) {
                    codecs.push(Codec {
                        pt,
                        ..Codec::default()
                    });
                }
            }
        }
        Ok(Self {
            kind,
            media: media.to_owned(),
            port,
            proto: proto.to_owned(),
            first_format: (*formats.first().ok_or(WHAT)?).to_owned(),
            mid: None,
            direction: Direction::default(),
            rtcp_mux: false,
            transport: TransportAttributes::default(),
            codecs,
            extensions: Vec::new(),
            ssrcs: Vec::new(),
            retransmissions: Vec::new(),
        })
    }

    fn decode_attribute(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "mid" => self.mid = Some(value.trim().to_owned()),
            "sendrecv" => self.direction = Direction::SendRecv,
            "sendonly" => self.direction = Direction::SendOnly,
            "recvonly" => self.direction = Direction::RecvOnly,
            "inactive" => self.direction = Direction::Inactive,
            "rtcp-mux" | "rtcp-mux-only" => self.rtcp_mux = true,
            "rtpmap" => self.decode_rtpmap(value)?,
            "fmtp" => {
                if let Some((pt, parameters)) = value.split_once(' ')
                    && let Some(codec) = self.codec_mut(pt)
                {
                    codec.fmtp = parameters.trim().to_owned();
                }
            }
            "rtcp-fb" => {
                if let Some((pt, feedback)) = value.split_once(' ') {
                    let feedback = feedback.trim().to_owned();
                    for codec in &mut self.codecs {
                        let is_meant = pt == "*" || pt.parse() == Ok(codec.pt);
                        if is_meant && codec.feedback.len() < FEEDBACK_MAX {
                            codec.feedback.push(feedback.clone());
                        }
                    }
                }
            }
            "extmap" => self.decode_extmap(value),
            "ssrc" => {
                let ssrc = value.split_ascii_whitespace().next();
                if let Some(ssrc) = ssrc.and_then(|ssrc| ssrc.parse().ok())
                    && !self.ssrcs.contains(&ssrc)
                    && self.ssrcs.len() < SSRCS_MAX
                {
                    self.ssrcs.push(ssrc);
                }
            }
            "ssrc-group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("FID")
                    && let Some(main) = words.next().and_then(|ssrc| ssrc.parse().ok())
                    && let Some(repair) = words.next().and_then(|ssrc| ssrc.parse().ok())
                    && self.retransmissions.len() < SSRCS_MAX
                {
                    self.retransmissions.push((main, repair));
                }
            }
            _ => self.transport.decode(name, value)?,
        }
        Ok(())
    }

    fn decode_rtpmap(&mut self, value: &str) -> Result<(), Fault> {
        const WHAT: Fault = Fault::Line("an a=rtpmap that cannot be read");
        let (pt, encoding) = value.split_once(' ').ok_or(WHAT)?;
        let mut parts = encoding.trim().split('/');
        let name = parts.next().ok_or(WHAT)?;
        let clock_rate_hz = parts
            .next()
            .and_then(|rate| rate.parse().ok())
            .ok_or(WHAT)?;
        let channels = match parts.next() {
            Some(channels) => channels.parse().map_err(|_| WHAT)?,
            None => 1,
        };
        // A line for a payload type that the m-line does not list is skipped.
        if let Some(codec) = self.codec_mut(pt) {
            codec.name = name.to_owned();
            codec.clock_rate_hz = clock_rate_hz;
            codec.channels = channels;
        }
        Ok(())
    }

    fn decode_extmap(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        // "4/sendonly" restricts the direction; the id is what stands before.
        let id = words
            .next()
            .and_then(|id| id.split('/').next())
            .and_then(|id| id.parse().ok());
        if let Some(id) = id
            && let Some(uri) = words.next()
            && self.extensions.len() < EXTENSIONS_MAX
        {
            self.extensions.push((id, uri.to_owned()));
        }
    }

    fn codec_mut(&mut self, pt: &str) -> Option<&mut Codec> {
        let pt: u8 = pt.trim().parse().ok()?;
        self.codecs.iter_mut().find(|codec| codec.pt == pt)
    }

    /// The names of the codecs, for a message to the person who made the offer.
    pub(super) fn codec_names(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for codec in &self.codecs {
            let is_helper = [
                "rtx",
                "red",
                "ulpfec",
                "flexfec-03",
                "telephone-event",
                "CN",
            ]
            .iter()
            .any(|helper| codec.is_named(helper));
            if !codec.name.is_empty() && !is_helper && !names.contains(&codec.name.as_str()) {
                names.push(&codec.name);
            }
        }
        if names.is_empty() {
            return "none that is named".to_owned();
        }
        names.truncate(8);
        names.join(", ")
    }

    /// The id of a header extension, if it fits the one-byte form (RFC 8285 section 4.2).
    pub(super) fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extensions
            .iter()
            .find(|(id, known)| known == uri && (1..=14).contains(id))
            .map(|(id, _)| *id)
    }
}

/// Why a line stops the reading.
enum Fault {
    Line(&'static str),
    Offer(OfferError),
}

/// Sources remembered per m-line: three simulcast layers with retransmission make six.
const SSRCS_MAX: usize = 32;
/// `a=rtcp-fb` lines remembered per payload type; browsers send five.
const FEEDBACK_MAX: usize = 16;
/// Header extensions remembered per m-line; the one-byte form has 14 ids.
const EXTENSIONS_MAX: usize = 64;
