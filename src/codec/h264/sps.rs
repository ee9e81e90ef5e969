//! [`SpsInfo`]: what a sequence parameter set says, ITU-T H.264 section 7.3.2.1.1 and Annex E.1.

use super::{
    FORBIDDEN_BIT, H264Error, PARAMETER_SET_BYTES_MAX, PICTURE_SIDE_MAX, nal_type, nal_unit_type,
};
use crate::codec::bits::{BitReader, BitWriter};
use crate::wire::Truncated;

/// What the gateway needs to know of a sequence parameter set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpsInfo {
    /// profile_idc: 66 Baseline, 77 Main, 100 High and so on.
    pub profile_idc: u8,
    /// constraint_set0_flag in the highest bit down to constraint_set5_flag, then two reserved
    /// bits.
    pub constraint_flags: u8,
    /// level_idc: ten times the level.
    pub level_idc: u8,
    /// seq_parameter_set_id, 0 to 31.
    pub id: u8,
    /// chroma_format_idc: 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits of a luma sample, 8 to 14.
    pub bit_depth_luma: u8,
    /// Bits of a chroma sample, 8 to 14.
    pub bit_depth_chroma: u8,
    /// pic_order_cnt_type, 0 to 2; 2 means that output order is decoding order.
    pub pic_order_cnt_type: u8,
    /// Bits of frame_num, 4 to 16.
    pub(super) frame_num_bits: u8,
    /// Bits of pic_order_cnt_lsb, 4 to 16; 0 where pic_order_cnt_type is not 0.
    pub(super) pic_order_cnt_bits: u8,
    /// delta_pic_order_always_zero_flag, of pic_order_cnt_type 1.
    pub(super) delta_pic_order_always_zero: bool,
    /// separate_colour_plane_flag.
    pub(super) separate_colour_planes: bool,
    /// max_num_ref_frames, 0 to 16.
    pub max_num_ref_frames: u8,
    /// Whether there are no field pictures and no field macroblocks.
    pub frame_mbs_only: bool,
    /// Samples in a line after cropping.
    pub width: u32,
    /// Lines after cropping.
    pub height: u32,
    /// max_num_reorder_frames of the VUI, 0 to 16, where the SPS tells it.
    pub max_num_reorder_frames: Option<u8>,
    /// The frame rate of the VUI, where the SPS tells it. A hint: many encoders write nonsense.
    pub frame_rate: Option<FrameRate>,
}

/// Frames per second as a fraction; neither part is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    /// time_scale of the VUI.
    pub numerator: u32,
    /// Twice num_units_in_tick of the VUI: a tick is a field.
    pub denominator: u64,
}

impl FrameRate {
    /// Frames per second.
    pub fn hz(self) -> f64 {
        f64::from(self.numerator) / self.denominator as f64
    }
}

impl SpsInfo {
    /// Parses an SPS NAL unit, header byte included.
    ///
    /// A VUI that is cut short or makes no sense costs only what it would have said: encoders get
    /// it wrong and every decoder plays such streams. An error anywhere before it is an error.
    pub fn decode(sps_nal: &[u8]) -> Result<Self, H264Error> {
        if sps_nal.len() > PARAMETER_SET_BYTES_MAX {
            return Err(H264Error::ParameterSetTooLarge(sps_nal.len()));
        }
        let (&header, body) = sps_nal.split_first().ok_or(H264Error::Truncated)?;
        if header & FORBIDDEN_BIT != 0 {
            return Err(H264Error::ForbiddenBit);
        }
        if nal_unit_type(header) != nal_type::SPS {
            return Err(H264Error::WrongNalType {
                wanted: nal_type::SPS,
                found: nal_unit_type(header),
            });
        }
        let mut reader = BitReader::of_nal_body(body);
        let (mut info, _) = decode_body(&mut reader)?;
        if let Ok(true) = reader.bit() {
            let mut vui = Vui::default();
            // What was read before the VUI ended counts.
            let _ = vui.decode(&mut reader);
            info.max_num_reorder_frames = vui.max_num_reorder_frames;
            info.frame_rate = vui.frame_rate;
        }
        Ok(info)
    }

    /// The three bytes of `profile-level-id` (RFC 6184 section 8.1), as in the SPS.
    pub const fn profile_level_id(&self) -> [u8; 3] {
        [self.profile_idc, self.constraint_flags, self.level_idc]
    }

    /// The profile's name, Annex A.2.
    pub const fn profile_name(&self) -> &'static str {
        match self.profile_idc {
            44 => "CAVLC 4:4:4 Intra",
            66 if self.constraint(1) => "Constrained Baseline",
            66 => "Baseline",
            77 => "Main",
            83 => "Scalable Baseline",
            86 => "Scalable High",
            88 => "Extended",
            100 if self.constraint(4) && self.constraint(5) => "Constrained High",
            100 if self.constraint(4) => "Progressive High",
            100 => "High",
            110 if self.constraint(3) => "High 10 Intra",
            110 => "High 10",
            118 => "Multiview High",
            122 if self.constraint(3) => "High 4:2:2 Intra",
            122 => "High 4:2:2",
            128 => "Stereo High",
            244 if self.constraint(3) => "High 4:4:4 Intra",
            244 => "High 4:4:4 Predictive",
            _ => "unknown",
        }
    }

    /// Whether pictures may have to be shown in another order than they are decoded in, judged by
    /// this SPS alone.
    ///
    /// `false` is certain. `true` may only mean that the encoder did not say: many hardware
    /// encoders write Main or High without a bitstream restriction and never make a B slice, so
    /// that slice types have to be looked at too.
    pub const fn may_reorder(&self) -> bool {
        // Baseline has no B slices; Constrained High neither.
        let without_b = self.profile_idc == 66
            || (self.profile_idc == 100 && self.constraint(4) && self.constraint(5));
        // The intra profiles (section E.2.1: absent there, the value is inferred to be 0).
        let intra_only = self.profile_idc == 44
            || (matches!(self.profile_idc, 86 | 100 | 110 | 122 | 244) && self.constraint(3))
            || self.max_num_ref_frames == 0;
        !(self.pic_order_cnt_type == 2
            || matches!(self.max_num_reorder_frames, Some(0))
            || without_b
            || intra_only)
    }

    /// constraint_set0_flag to constraint_set5_flag.
    const fn constraint(&self, set: u8) -> bool {
        self.constraint_flags & (0x80 >> set) != 0
    }

    /// Whether the profile is one of those with chroma format, bit depths and scaling lists in the
    /// SPS.
    pub(super) const fn has_high_syntax(profile_idc: u8) -> bool {
        matches!(
            profile_idc,
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
        )
    }
}

/// seq_parameter_set_data() up to vui_parameters_present_flag, and at which bit
/// gaps_in_frame_num_value_allowed_flag stands.
fn decode_body(reader: &mut BitReader<'_>) -> Result<(SpsInfo, usize), H264Error> {
    let profile_idc = reader.byte()?;
    let constraint_flags = reader.byte()?;
    let level_idc = reader.byte()?;
    let id = ranged(reader.ue()?, 31, "seq_parameter_set_id")?;
    let mut chroma_format_idc = 1;
    let mut separate_colour_planes = false;
    let mut bit_depth_luma = 8;
    let mut bit_depth_chroma = 8;
    if SpsInfo::has_high_syntax(profile_idc) {
        chroma_format_idc = ranged(reader.ue()?, 3, "chroma_format_idc")?;
        if chroma_format_idc == 3 {
            separate_colour_planes = reader.bit()?;
        }
        bit_depth_luma = 8 + ranged(reader.ue()?, 6, "bit_depth_luma_minus8")?;
        bit_depth_chroma = 8 + ranged(reader.ue()?, 6, "bit_depth_chroma_minus8")?;
        reader.bit()?; // qpprime_y_zero_transform_bypass_flag
        if reader.bit()? {
            let lists = if chroma_format_idc == 3 { 12 } else { 8 };
            for list in 0..lists {
                if reader.bit()? {
                    skip_scaling_list(reader, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let frame_num_bits = 4 + ranged(reader.ue()?, 12, "log2_max_frame_num_minus4")?;
    let pic_order_cnt_type = ranged(reader.ue()?, 2, "pic_order_cnt_type")?;
    let mut pic_order_cnt_bits = 0;
    let mut delta_pic_order_always_zero = false;
    match pic_order_cnt_type {
        0 => {
            pic_order_cnt_bits = 4 + ranged(reader.ue()?, 12, "log2_max_pic_order_cnt_lsb_minus4")?;
        }
        1 => {
            delta_pic_order_always_zero = reader.bit()?;
            reader.se()?; // offset_for_non_ref_pic
            reader.se()?; // offset_for_top_to_bottom_field
            let cycle = ranged(reader.ue()?, 255, "num_ref_frames_in_pic_order_cnt_cycle")?;
            for _ in 0..cycle {
                reader.se()?; // offset_for_ref_frame
            }
        }
        _ => {}
    }
    let max_num_ref_frames = ranged(reader.ue()?, 16, "max_num_ref_frames")?;
    let gaps_flag_at = reader.position();
    reader.bit()?; // gaps_in_frame_num_value_allowed_flag
    let width_mbs = side_in_macroblocks(reader.ue()?, "pic_width_in_mbs_minus1")?;
    let height_units = side_in_macroblocks(reader.ue()?, "pic_height_in_map_units_minus1")?;
    let frame_mbs_only = reader.bit()?;
    if !frame_mbs_only {
        reader.bit()?; // mb_adaptive_frame_field_flag
    }
    reader.bit()?; // direct_8x8_inference_flag
    let mut crop = [0; 4];
    if reader.bit()? {
        for side in &mut crop {
            *side = reader.ue()?;
        }
    }
    // Section 7.4.2.1.1: cropping is counted in chroma samples, and in fields where there are
    // fields.
    let chroma_array_type = if separate_colour_planes {
        0
    } else {
        chroma_format_idc
    };
    let crop_unit_x = if matches!(chroma_array_type, 1 | 2) {
        2
    } else {
        1
    };
    let fields = if frame_mbs_only { 1 } else { 2 };
    let crop_unit_y = fields * if chroma_array_type == 1 { 2 } else { 1 };
    let [left, right, top, bottom] = crop;
    let width = cropped(width_mbs * 16, left, right, crop_unit_x)?;
    let height = cropped(height_units * 16 * fields, top, bottom, crop_unit_y)?;
    if width == 0 || height == 0 || width > PICTURE_SIDE_MAX || height > PICTURE_SIDE_MAX {
        return Err(H264Error::PictureSize { width, height });
    }
    let info = SpsInfo {
        profile_idc,
        constraint_flags,
        level_idc,
        id,
        chroma_format_idc,
        bit_depth_luma,
        bit_depth_chroma,
        pic_order_cnt_type,
        frame_num_bits,
        pic_order_cnt_bits,
        delta_pic_order_always_zero,
        separate_colour_planes,
        max_num_ref_frames,
        frame_mbs_only,
        width,
        height,
        max_num_reorder_frames: None,
        frame_rate: None,
    };
    Ok((info, gaps_flag_at))
}

/// The SPS for a stream of which all pictures that change the order are left out: decoders are told
/// to show each picture at once (max_num_reorder_frames 0, section E.2.1), and that frame_num has
/// gaps where pictures that others could have referred to are missing (section 7.4.2.1.1).
///
/// # Errors
/// As [`SpsInfo::decode`], and for a VUI that is cut short.
pub fn for_output_at_once(sps_nal: &[u8]) -> Result<Vec<u8>, H264Error> {
    // Also checks the header and the length.
    SpsInfo::decode(sps_nal)?;
    let (&header, body) = sps_nal.split_first().ok_or(H264Error::Truncated)?;
    let mut reader = BitReader::of_nal_body(body);
    let (info, gaps_flag_at) = decode_body(&mut reader)?;
    let vui_flag_at = reader.position();
    let mut vui = Vui::default();
    if reader.bit()? {
        vui.decode(&mut reader)?;
    }
    let mut source = BitReader::of_nal_body(body);
    let mut out = BitWriter::default();
    while source.position() < vui.restriction_at.unwrap_or(vui_flag_at) {
        let is_gaps_flag = source.position() == gaps_flag_at;
        out.bit(source.bit()? | is_gaps_flag);
    }
    if vui.restriction_at.is_none() {
        out.bit(true); // vui_parameters_present_flag
        // Nothing else is said: aspect ratio, overscan, signal type, chroma location, timing, both
        // HRDs, picture structure.
        (0..8).for_each(|_| out.bit(false));
    }
    out.bit(true); // bitstream_restriction_flag
    out.bit(true); // motion_vectors_over_pic_boundaries_flag
    // As inferred where it says nothing (section E.2.1).
    for value in [2, 1, 16, 16] {
        out.ue(value);
    }
    out.ue(0); // max_num_reorder_frames
    out.ue(u32::from(info.max_num_ref_frames.max(1))); // max_dec_frame_buffering
    Ok(out.into_nal(header))
}

/// scaling_list(), section 7.3.2.1.1.1.
fn skip_scaling_list(reader: &mut BitReader<'_>, size: usize) -> Result<(), H264Error> {
    let mut last_scale = 8i32;
    let mut next_scale = 8i32;
    for _ in 0..size {
        if next_scale != 0 {
            let delta = reader.se()?;
            if !(-128..=127).contains(&delta) {
                return Err(H264Error::SpsValue("delta_scale"));
            }
            next_scale = (last_scale + delta).rem_euclid(256);
        }
        if next_scale != 0 {
            last_scale = next_scale;
        }
    }
    Ok(())
}

fn ranged(value: u32, max: u8, element: &'static str) -> Result<u8, H264Error> {
    u8::try_from(value)
        .ok()
        .filter(|value| *value <= max)
        .ok_or(H264Error::SpsValue(element))
}

fn side_in_macroblocks(minus1: u32, element: &'static str) -> Result<u32, H264Error> {
    if minus1 < PICTURE_SIDE_MAX / 16 {
        Ok(minus1 + 1)
    } else {
        Err(H264Error::SpsValue(element))
    }
}

fn cropped(side: u32, first: u32, second: u32, unit: u32) -> Result<u32, H264Error> {
    first
        .checked_add(second)
        .and_then(|sum| sum.checked_mul(unit))
        .and_then(|crop| side.checked_sub(crop))
        .ok_or(H264Error::SpsValue("frame_crop_offset"))
}

/// What vui_parameters() say, section E.1.1.
#[derive(Default)]
struct Vui {
    max_num_reorder_frames: Option<u8>,
    frame_rate: Option<FrameRate>,
    /// At which bit bitstream_restriction_flag stands.
    restriction_at: Option<usize>,
}

impl Vui {
    fn decode(&mut self, reader: &mut BitReader<'_>) -> Result<(), Truncated> {
        if reader.bit()? && reader.byte()? == EXTENDED_SAR {
            reader.skip(32)?; // sar_width, sar_height
        }
        if reader.bit()? {
            reader.bit()?; // overscan_appropriate_flag
        }
        if reader.bit()? {
            reader.skip(4)?; // video_format, video_full_range_flag
            if reader.bit()? {
                reader.skip(24)?; // colour_primaries, transfer_characteristics, matrix_coefficients
            }
        }
        if reader.bit()? {
            reader.ue()?; // chroma_sample_loc_type_top_field
            reader.ue()?; // chroma_sample_loc_type_bottom_field
        }
        if reader.bit()? {
            let num_units_in_tick = reader.bits(32)?;
            let time_scale = reader.bits(32)?;
            reader.bit()?; // fixed_frame_rate_flag
            if num_units_in_tick != 0 && time_scale != 0 {
                self.frame_rate = Some(FrameRate {
                    numerator: time_scale,
                    denominator: u64::from(num_units_in_tick) * 2,
                });
            }
        }
        let nal_hrd = reader.bit()?;
        if nal_hrd {
            skip_hrd(reader)?;
        }
        let vcl_hrd = reader.bit()?;
        if vcl_hrd {
            skip_hrd(reader)?;
        }
        if nal_hrd || vcl_hrd {
            reader.bit()?; // low_delay_hrd_flag
        }
        reader.bit()?; // pic_struct_present_flag
        self.restriction_at = Some(reader.position());
        if reader.bit()? {
            reader.bit()?; // motion_vectors_over_pic_boundaries_flag
            for _ in 0..4 {
                // max_bytes_per_pic_denom, max_bits_per_mb_denom, log2_max_mv_length_horizontal and
                // _vertical
                reader.ue()?;
            }
            let reorder = reader.ue()?;
            let buffering = reader.ue()?;
            // Out of range, the whole restriction is nonsense.
            if reorder <= buffering && buffering <= 16 {
                self.max_num_reorder_frames = u8::try_from(reorder).ok();
            }
        }
        Ok(())
    }
}

/// hrd_parameters(), section E.1.2.
fn skip_hrd(reader: &mut BitReader<'_>) -> Result<(), Truncated> {
    let cpb_count = reader.ue()?;
    if cpb_count > 31 {
        // cpb_cnt_minus1 is 0 to 31: what follows cannot be found.
        return Err(Truncated);
    }
    reader.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..=cpb_count {
        reader.ue()?; // bit_rate_value_minus1
        reader.ue()?; // cpb_size_value_minus1
        reader.bit()?; // cbr_flag
    }
    // initial_cpb_removal_delay_length_minus1, cpb_removal_delay_length_minus1,
    // dpb_output_delay_length_minus1, time_offset_length
    reader.skip(20)
}

/// aspect_ratio_idc that is followed by a ratio, table E-1.
const EXTENDED_SAR: u8 = 255;
