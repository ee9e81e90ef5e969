//! [`InOrder`]: what browsers get of a stream with B-frames.
//!
//! A browser shows pictures as they come and cannot put them in order, so the B pictures are left
//! out, whether others refer to them or not, and the rest is shown at its own rate: decoders are
//! told by the SPS that frame_num has gaps.
//!
//! That is right as long as no P picture refers to a B picture, which [`References`] tells. x264
//! makes such ones with two or more reference frames and its non-strict pyramid, without any setting:
//! its presets from `faster` on. Of such a stream browsers are shown each key frame and what
//! follows up to the first P picture that needs a B picture. Nothing more can be done: decoded
//! without, the picture falls to pieces (25 dB); sent along as pictures of their own or in the P
//! picture's access unit, B pictures are errors to Chromium's decoder, which then shows nothing.

use crate::codec::h264::{AccessUnit, Anchor, AvcConfig, References};
use crate::hub::BrowserView;

/// One publisher's pictures on their way to browsers. See the module.
#[derive(Debug)]
pub(super) struct InOrder {
    references: References,
    /// A picture that is left out is missing up to the next key frame.
    is_broken: bool,
    /// Whether P pictures refer to B pictures.
    has_needed_b: bool,
}

impl InOrder {
    /// For pictures of `config`.
    pub(super) fn new(config: &AvcConfig) -> Self {
        Self {
            references: References::new(config),
            is_broken: false,
            has_needed_b: false,
        }
    }

    /// Whether P pictures were seen to refer to B pictures.
    pub(super) const fn has_needed_b(&self) -> bool {
        self.has_needed_b
    }

    /// What browsers get of a picture.
    pub(super) fn view(&mut self, unit: &AccessUnit, key: bool) -> BrowserView {
        let anchor = self.references.picture(&unit.payload, unit.has_b_slices);
        if unit.has_b_slices {
            return BrowserView::Skip;
        }
        if key {
            self.is_broken = false;
        } else if anchor == Anchor::NeedsB {
            self.is_broken = true;
            self.has_needed_b = true;
        }
        if self.is_broken {
            BrowserView::Skip
        } else {
            BrowserView::InOrder
        }
    }
}
