//! [`Error`]: why a connection was ended, and the answer that follows from it.

use std::fmt;

use super::{Response, Status};

/// Why an HTTP connection ends. Each variant has one status ([`Error::status`]) and one
/// name for counters ([`Error::reason`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    // The peer broke a rule.
    /// The head is not HTTP.
    MalformedHead,
    /// The request target cannot be parsed or its percent-encoding is broken.
    MalformedTarget,
    /// HTTP/1.1 without a `Host`, or with more than one.
    BadHost,
    /// `Content-Length` is no number, or there are two that differ.
    BadContentLength,
    /// `Transfer-Encoding` in a form that another server could read otherwise: beside a
    /// `Content-Length`, in HTTP/1.0, or not ending in `chunked` (RFC 9112 section 6.1).
    AmbiguousFraming,
    /// A chunk's size line, end or trailer is malformed.
    MalformedChunk,

    // We do not support it.
    /// The method is none of those of [`super::Method`].
    UnsupportedMethod,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnsupportedVersion,
    /// A transfer coding other than `chunked`.
    UnsupportedCoding,
    /// An `Expect` other than `100-continue`.
    UnsupportedExpectation,

    // A limit was reached.
    /// The head has more bytes than allowed.
    HeadTooLarge,
    /// The head has more headers than allowed.
    TooManyHeaders,
    /// The request line is longer than allowed.
    TargetTooLong,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// More was sent behind an unanswered request than is kept.
    PipelineTooLong,

    // Time ran out.
    /// The head did not come whole in time.
    HeadTimeout,
    /// The body did not come whole in time.
    BodyTimeout,
    /// The peer did not read its responses.
    Unread,
}

impl Error {
    /// The status the peer is answered with; `None` closes without a word, because the
    /// peer is in the middle of another exchange.
    pub const fn status(&self) -> Option<Status> {
        Some(match self {
            Self::MalformedHead
            | Self::MalformedTarget
            | Self::BadHost
            | Self::BadContentLength
            | Self::AmbiguousFraming
            | Self::MalformedChunk => Status::BadRequest,
            Self::UnsupportedMethod | Self::UnsupportedCoding => Status::NotImplemented,
            Self::UnsupportedVersion => Status::VersionNotSupported,
            Self::UnsupportedExpectation => Status::ExpectationFailed,
            Self::HeadTooLarge | Self::TooManyHeaders => Status::HeaderFieldsTooLarge,
            Self::TargetTooLong => Status::UriTooLong,
            Self::BodyTooLarge => Status::ContentTooLarge,
            Self::HeadTimeout | Self::BodyTimeout => Status::RequestTimeout,
            Self::PipelineTooLong | Self::Unread => return None,
        })
    }

    /// A short name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::MalformedHead => "malformed_head",
            Self::MalformedTarget => "malformed_target",
            Self::BadHost => "bad_host",
            Self::BadContentLength => "bad_content_length",
            Self::AmbiguousFraming => "ambiguous_framing",
            Self::MalformedChunk => "malformed_chunk",
            Self::UnsupportedMethod => "unsupported_method",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UnsupportedCoding => "unsupported_coding",
            Self::UnsupportedExpectation => "unsupported_expectation",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::TargetTooLong => "target_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::PipelineTooLong => "pipeline_too_long",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Unread => "responses_unread",
        }
    }

    /// The answer, ready to be sent: a problem body, readable across origins, and
    /// `Connection: close`.
    pub(super) fn response(&self) -> Option<Response> {
        let status = self.status()?;
        let response = Response::problem(status, self.reason(), &self.to_string());
        Some(response.with_cors().close())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedHead => "the request head is not HTTP",
            Self::MalformedTarget => "the request target is malformed",
            Self::BadHost => "exactly one Host header is needed",
            Self::BadContentLength => "Content-Length is malformed or contradicts itself",
            Self::AmbiguousFraming => "Transfer-Encoding leaves the body's length open",
            Self::MalformedChunk => "a chunk of the body is malformed",
            Self::UnsupportedMethod => "the method is not supported",
            Self::UnsupportedVersion => "only HTTP/1.0 and HTTP/1.1 are supported",
            Self::UnsupportedCoding => "no transfer coding but chunked is supported",
            Self::UnsupportedExpectation => "no expectation but 100-continue is supported",
            Self::HeadTooLarge => "the request head is too large",
            Self::TooManyHeaders => "the request has too many headers",
            Self::TargetTooLong => "the request target is too long",
            Self::BodyTooLarge => "the request body is too large",
            Self::PipelineTooLong => "too much was sent behind an unanswered request",
            Self::HeadTimeout => "the request head did not come in time",
            Self::BodyTimeout => "the request body did not come in time",
            Self::Unread => "the responses were not read in time",
        })
    }
}

impl std::error::Error for Error {}
