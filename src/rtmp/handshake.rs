//! The RTMP handshake (RTMP 1.0 section 5.2) in its two forms.
//!
//! ```text
//!  client                                   server
//!    │ C0 (1)  C1 (1536) ─────────────────────▶ │   C1 whole: answer all at once
//!    │ ◀───────────── S0 (1)  S1 (1536)  S2 (1536)
//!    │ C2 (1536) ─────────────────────────────▶ │   content not checked
//! ```
//!
//! *Simple*: C2 echoes S1 and S2 echoes C1. *Digest*, of Flash Player 9 and ffmpeg, is not in the
//! specification: C1 and S1 hide an HMAC-SHA256 of their other bytes at an offset that four
//! of their bytes give, in one of two places ([`Scheme`]); C2 and S2 end with one keyed by
//! the other side's digest. The server answers in the form that C1 proves to have.
//!
//! The random bytes are no secret and prove nothing: a small generator makes them from a
//! seed. How long a handshake may take is the session's business.

use std::fmt;

use aws_lc_rs::hmac;
use bytes::Bytes;

use crate::transmit::TransmitQueue;

/// Which form a client's C1 takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RTMP 1.0 section 5.2: random bytes, echoed.
    Simple,
    /// With digests; falls back to the echo if S1 has none.
    Digest,
}

/// The server's half.
///
/// The same bytes cut anywhere give the same answer.
#[derive(Debug)]
pub struct ServerHandshake {
    seed: u64,
    state: ServerState,
}

#[derive(Debug)]
enum ServerState {
    /// Waits for C0.
    Version,
    /// Waits for the rest of C1.
    C1(Vec<u8>),
    /// Waits for so many bytes of C2.
    C2(usize),
    Done,
}

impl ServerHandshake {
    /// Waits for C0. `seed` gives the random bytes of S1 and S2.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            state: ServerState::Version,
        }
    }

    /// Consumes handshake bytes from `input` and queues the answer; `true` once C2 is
    /// through. What follows C2 stays in `input`.
    ///
    /// # Errors
    /// [`HandshakeError::NotRtmp`], at the first byte.
    pub fn read(
        &mut self,
        input: &mut &[u8],
        out: &mut TransmitQueue,
    ) -> Result<bool, HandshakeError> {
        loop {
            match &mut self.state {
                ServerState::Version => {
                    let Some((&version, rest)) = input.split_first() else {
                        return Ok(false);
                    };
                    // Versions that we do not know are answered with ours (5.2.2).
                    if version > RTMP_VERSION_MAX {
                        return Err(HandshakeError::NotRtmp { first: version });
                    }
                    *input = rest;
                    self.state = ServerState::C1(Vec::new());
                }
                ServerState::C1(bytes) => {
                    let Some(c1) = fill_block(bytes, input) else {
                        return Ok(false);
                    };
                    out.push(answer_c1(&c1, self.seed));
                    self.state = ServerState::C2(BLOCK_BYTES);
                }
                ServerState::C2(left) => {
                    *left -= skip(input, *left);
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.state = ServerState::Done;
                }
                ServerState::Done => return Ok(true),
            }
        }
    }
}

/// S0, S1 and S2 for this C1.
fn answer_c1(c1: &Block, seed: u64) -> Bytes {
    let mut random = Random(seed);
    let mut answer = Vec::with_capacity(1 + 2 * BLOCK_BYTES);
    answer.push(RTMP_VERSION);
    // S1 begins with a clock that nothing depends on, and the version: zero for the simple form.
    let mut s1 = random.block();
    match find_digest(c1, PLAYER_KEY) {
        Some((scheme, c1_digest)) => {
            set_head(&mut s1, SERVER_SOFTWARE_VERSION);
            imprint_digest(&mut s1, scheme, SERVER_KEY);
            answer.extend_from_slice(&s1);
            answer.extend_from_slice(&answer_digest(random.block(), &c1_digest, SERVER_KEY));
        }
        None => {
            set_head(&mut s1, [0; 4]);
            answer.extend_from_slice(&s1);
            answer.extend_from_slice(c1);
        }
    }
    Bytes::from(answer)
}

/// The client's half.
///
/// The same bytes cut anywhere give the same answer.
#[derive(Debug)]
pub struct ClientHandshake {
    seed: u64,
    form: Form,
    state: ClientState,
}

#[derive(Debug)]
enum ClientState {
    /// Waits for S0.
    Version,
    /// Waits for the rest of S1.
    S1(Vec<u8>),
    /// Waits for so many bytes of S2.
    S2(usize),
    Done,
}

impl ClientHandshake {
    /// Queues C0 and C1 and waits for S0. `seed` gives the random bytes.
    pub fn start(seed: u64, form: Form, out: &mut TransmitQueue) -> Self {
        let mut c1 = Random(seed).block();
        match form {
            Form::Simple => set_head(&mut c1, [0; 4]),
            Form::Digest => {
                set_head(&mut c1, CLIENT_SOFTWARE_VERSION);
                imprint_digest(&mut c1, Scheme::First, PLAYER_KEY);
            }
        }
        out.push(Bytes::from([&[RTMP_VERSION], &c1[..]].concat()));
        Self {
            seed,
            form,
            state: ClientState::Version,
        }
    }

    /// Consumes handshake bytes from `input` and queues C2; `true` once S2 is through: only
    /// then may the client send more (5.2.1). What follows S2 stays in `input`.
    ///
    /// # Errors
    /// [`HandshakeError`], at the first byte.
    pub fn read(
        &mut self,
        input: &mut &[u8],
        out: &mut TransmitQueue,
    ) -> Result<bool, HandshakeError> {
        loop {
            match &mut self.state {
                ClientState::Version => {
                    let Some((&version, rest)) = input.split_first() else {
                        return Ok(false);
                    };
                    match version {
                        RTMP_VERSION => *input = rest,
                        0..=RTMP_VERSION_MAX => {
                            return Err(HandshakeError::VersionUnsupported { version });
                        }
                        first => return Err(HandshakeError::NotRtmp { first }),
                    }
                    self.state = ClientState::S1(Vec::new());
                }
                ClientState::S1(bytes) => {
                    let Some(s1) = fill_block(bytes, input) else {
                        return Ok(false);
                    };
                    let digest = match self.form {
                        Form::Simple => None,
                        Form::Digest => find_digest(&s1, SERVER_KEY),
                    };
                    let c2 = match digest {
                        // Other random bytes than C1 has.
                        Some((_, digest)) => {
                            answer_digest(Random(!self.seed).block(), &digest, PLAYER_KEY)
                        }
                        None => s1,
                    };
                    out.push(Bytes::copy_from_slice(&c2));
                    self.state = ClientState::S2(BLOCK_BYTES);
                }
                ClientState::S2(left) => {
                    *left -= skip(input, *left);
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.state = ClientState::Done;
                }
                ClientState::Done => return Ok(true),
            }
        }
    }
}

/// C1, S1, C2 or S2.
type Block = [u8; BLOCK_BYTES];

/// Where C1 and S1 keep their digest: each has two halves of 764 bytes, one for the
/// digest and one for a key that only encrypted RTMP uses, in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// The digest is in the first half: ffmpeg, Flash Player.
    First,
    /// The digest is in the second half.
    Second,
}

impl Scheme {
    /// Where the digest begins: four bytes of the half, added up, say how far into it.
    fn digest_offset(self, block: &Block) -> usize {
        let base = match self {
            Scheme::First => 8,
            Scheme::Second => 772,
        };
        let sum: usize = block[base..base + 4].iter().map(|&b| usize::from(b)).sum();
        base + 4 + sum % DIGEST_OFFSETS
    }
}

/// The digest of C1 or S1, if it is there and right.
fn find_digest(block: &Block, key: &[u8]) -> Option<(Scheme, [u8; DIGEST_BYTES])> {
    [Scheme::First, Scheme::Second]
        .into_iter()
        .find_map(|scheme| {
            let digest = block_digest(block, scheme, short_key(key));
            let at = scheme.digest_offset(block);
            (block[at..at + DIGEST_BYTES] == digest).then_some((scheme, digest))
        })
}

/// Writes the digest of C1 or S1 into it.
fn imprint_digest(block: &mut Block, scheme: Scheme, key: &[u8]) {
    let digest = block_digest(block, scheme, short_key(key));
    let at = scheme.digest_offset(block);
    block[at..at + DIGEST_BYTES].copy_from_slice(&digest);
}

/// The HMAC of all bytes of C1 or S1 but those of the digest.
fn block_digest(block: &Block, scheme: Scheme, key: &[u8]) -> [u8; DIGEST_BYTES] {
    let at = scheme.digest_offset(block);
    hmac_sha256(key, &[&block[..at], &block[at + DIGEST_BYTES..]])
}

/// C2 or S2: random bytes and their HMAC, whose key is an HMAC of the digest received.
fn answer_digest(mut block: Block, received: &[u8; DIGEST_BYTES], key: &[u8]) -> Block {
    let at = BLOCK_BYTES - DIGEST_BYTES;
    let key = hmac_sha256(key, &[received]);
    let digest = hmac_sha256(&key, &[&block[..at]]);
    block[at..].copy_from_slice(&digest);
    block
}

/// The key of C1 and S1 is the text alone, without the constant bytes after it.
fn short_key(key: &[u8]) -> &[u8] {
    &key[..key.len() - KEY_TAIL_BYTES]
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

/// Sets the time to 0 and the four bytes after it.
fn set_head(block: &mut Block, version: [u8; 4]) {
    block[..4].fill(0);
    block[4..8].copy_from_slice(&version);
}

/// Collects a block from `input`; `None` until it is whole.
fn fill_block(bytes: &mut Vec<u8>, input: &mut &[u8]) -> Option<Block> {
    let count = (BLOCK_BYTES - bytes.len()).min(input.len());
    let (head, rest) = input.split_at(count);
    bytes.extend_from_slice(head);
    *input = rest;
    Block::try_from(bytes.as_slice()).ok()
}

/// Drops up to `count` bytes of `input` and answers how many.
fn skip(input: &mut &[u8], count: usize) -> usize {
    let count = count.min(input.len());
    *input = input.get(count..).unwrap_or_default();
    count
}

/// SplitMix64 (Steele, Lea and Flood, 2014): well spread, predictable, and good enough for
/// bytes that nobody checks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn block(&mut self) -> Block {
        let mut block = [0; BLOCK_BYTES];
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        block
    }
}

/// Why a handshake failed. Ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    // The peer broke a rule.
    /// The first byte is above 31: the peer does not speak RTMP (RTMP 1.0 section 5.2.2).
    NotRtmp {
        /// The byte; 0x47 is the G of an HTTP GET.
        first: u8,
    },
    // We do not support it.
    /// The server answered with a version other than 3. A client only.
    VersionUnsupported {
        /// S0, 0..=31.
        version: u8,
    },
}

impl HandshakeError {
    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotRtmp { .. } => "not_rtmp",
            Self::VersionUnsupported { .. } => "rtmp_version_unsupported",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRtmp { first } => write!(f, "not RTMP: the first byte is {first:#04x}"),
            Self::VersionUnsupported { version } => {
                write!(f, "the server speaks RTMP version {version}")
            }
        }
    }
}

impl std::error::Error for HandshakeError {}

/// C0 and S0.
const RTMP_VERSION: u8 = 3;

/// Larger first bytes are text, so another protocol (RTMP 1.0 section 5.2.2).
const RTMP_VERSION_MAX: u8 = 31;

/// The length of C1, S1, C2 and S2.
const BLOCK_BYTES: usize = 1_536;

/// The length of an HMAC-SHA256.
const DIGEST_BYTES: usize = 32;

/// How many places a digest may have in its half: 764 less four bytes of offset and its own 32.
const DIGEST_OFFSETS: usize = 728;

/// Bytes 4 to 7 of a digest S1: a version of Flash Media Server. ffmpeg checks digests
/// where the first of them is 3 or more.
const SERVER_SOFTWARE_VERSION: [u8; 4] = [4, 5, 0, 1];

/// Bytes 4 to 7 of a digest C1: Flash Player 9.0.124.2, as ffmpeg says.
const CLIENT_SOFTWARE_VERSION: [u8; 4] = [9, 0, 124, 2];

/// Constant bytes at the end of both keys, which only the answers use.
const KEY_TAIL_BYTES: usize = 32;

/// The key of clients. Public since 2009; it proves nothing.
const PLAYER_KEY: &[u8; 62] = b"Genuine Adobe Flash Player 001\
    \xf0\xee\xc2\x4a\x80\x68\xbe\xe8\x2e\x00\xd0\xd1\x02\x9e\x7e\x57\
    \x6e\xec\x5d\x2d\x29\x80\x6f\xab\x93\xb8\xe6\x36\xcf\xeb\x31\xae";

/// The key of servers.
const SERVER_KEY: &[u8; 68] = b"Genuine Adobe Flash Media Server 001\
    \xf0\xee\xc2\x4a\x80\x68\xbe\xe8\x2e\x00\xd0\xd1\x02\x9e\x7e\x57\
    \x6e\xec\x5d\x2d\x29\x80\x6f\xab\x93\xb8\xe6\x36\xcf\xeb\x31\xae";

#[cfg(test)]
mod tests;
