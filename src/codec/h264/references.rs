//! [`References`]: whether the I and P pictures of a stream can be decoded without its B pictures.
//!
//! A decoder that never gets the B pictures takes those that others could have referred to for
//! gaps in frame_num and puts placeholders in their place (section 8.2.5.2). It decodes a P
//! picture right if every entry of its reference list is the same picture as at the encoder. So
//! both decoded picture buffers are followed here, by what slice headers say: the encoder's, and
//! that of the decoder without B pictures.
//!
//! x264 with `ref=1` (the presets up to `veryfast`, what OBS does), NVENC and hardware encoders pass;
//! x264 with more reference frames and its non-strict pyramid lets P pictures refer to B pictures.
//! Fields, long-term references and slice groups are not followed: they pass for needed.

use super::access_unit::{SLICE_TYPE_B, SLICE_TYPE_P};
use super::{AvcConfig, SpsInfo, avcc_nal_units, nal_ref_idc, nal_type, nal_unit_type};
use crate::codec::bits::BitReader;
use crate::wire::Truncated;

/// What a picture that is no B picture needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// No B picture.
    Independent,
    /// A B picture may be what it refers to, or it cannot be told.
    NeedsB,
}

/// What the pictures of a stream refer to. See the module.
#[derive(Debug)]
pub struct References {
    sps: SpsInfo,
    /// By id; `None` for those that cannot be followed.
    pps: Vec<Pps>,
    /// Reference pictures at the encoder.
    encoder: Buffer,
    /// Those of a decoder that gets no B pictures.
    thinned: Buffer,
    pictures: u64,
}

impl References {
    /// Nothing is known before the first IDR picture.
    pub fn new(config: &AvcConfig) -> Self {
        let sps = config.info().clone();
        let size = usize::from(sps.max_num_ref_frames.max(1));
        Self {
            pps: config
                .pps()
                .iter()
                .filter_map(|pps| Pps::decode(pps).ok().flatten())
                .filter(|pps| pps.sps_id == u32::from(sps.id))
                .collect(),
            sps,
            encoder: Buffer::new(size),
            thinned: Buffer::new(size),
            pictures: 0,
        }
    }

    /// Takes note of a picture, by its AVCC payload with 4-byte lengths. `is_b` says whether it
    /// has a B slice; the answer counts only if it has none.
    pub fn picture(&mut self, payload: &[u8], is_b: bool) -> Anchor {
        match self.follow(payload, is_b) {
            Some(anchor) => anchor,
            None => {
                // Unknown up to the next IDR picture.
                self.encoder.lose();
                self.thinned.lose();
                Anchor::NeedsB
            }
        }
    }

    fn follow(&mut self, payload: &[u8], is_b: bool) -> Option<Anchor> {
        self.pictures += 1;
        let mut anchor = Anchor::Independent;
        let mut first = None;
        for nal in avcc_nal_units(payload, 4) {
            let nal = nal.ok()?;
            let header = *nal.first()?;
            match nal_unit_type(header) {
                nal_type::SLICE | nal_type::IDR => {}
                nal_type::SEI => continue,
                _ => return None,
            }
            let slice = self.slice(nal).ok()??;
            if slice.kind == SLICE_TYPE_P && !is_b {
                let here = self.encoder.list(&slice)?;
                let there = self.thinned.list(&slice);
                if there.as_ref() != Some(&here) || here.iter().any(|picture| picture.is_b) {
                    anchor = Anchor::NeedsB;
                }
            }
            first.get_or_insert(slice);
        }
        let slice = first?;
        if slice.is_reference {
            let picture = Picture {
                frame_num: slice.frame_num,
                number: self.pictures,
                is_b,
            };
            self.encoder.mark(picture, &slice, Some(&slice.marking))?;
            let marking = (!is_b).then_some(&slice.marking);
            self.thinned.mark(picture, &slice, marking)?;
        }
        Some(anchor)
    }

    /// slice_header(), section 7.3.3; `None` for what is not followed.
    fn slice(&self, nal: &[u8]) -> Result<Option<Slice>, Truncated> {
        let Some((&header, body)) = nal.split_first() else {
            return Err(Truncated);
        };
        let mut reader = BitReader::of_nal_body(body);
        let sps = &self.sps;
        reader.ue()?; // first_mb_in_slice
        let kind = reader.ue()? % 5;
        let pps_id = reader.ue()?;
        let Some(pps) = self.pps.iter().find(|pps| pps.id == pps_id) else {
            return Ok(None);
        };
        if sps.separate_colour_planes {
            reader.skip(2)?; // colour_plane_id
        }
        let frame_num = reader.bits(sps.frame_num_bits)?;
        if !sps.frame_mbs_only && reader.bit()? {
            return Ok(None); // field_pic_flag
        }
        let is_idr = nal_unit_type(header) == nal_type::IDR;
        if is_idr {
            reader.ue()?; // idr_pic_id
        }
        match sps.pic_order_cnt_type {
            0 => {
                reader.bits(sps.pic_order_cnt_bits)?;
                if pps.bottom_field_pic_order {
                    reader.se()?;
                }
            }
            1 if !sps.delta_pic_order_always_zero => {
                reader.se()?;
                if pps.bottom_field_pic_order {
                    reader.se()?;
                }
            }
            _ => {}
        }
        if pps.redundant_pic_cnt {
            reader.ue()?;
        }
        let is_b = kind == SLICE_TYPE_B;
        if is_b {
            reader.bit()?; // direct_spatial_mv_pred_flag
        }
        let mut active = pps.active;
        if matches!(kind, SLICE_TYPE_P | SLICE_TYPE_B) && reader.bit()? {
            active[0] = reader.ue()?.saturating_add(1);
            if is_b {
                active[1] = reader.ue()?.saturating_add(1);
            }
        }
        // num_ref_idx_active_minus1 is 0 to 31 (section 7.4.3).
        if active.iter().any(|count| *count > 32) {
            return Ok(None);
        }
        let mut modifications = Vec::new();
        match kind {
            SLICE_TYPE_P => {
                if !modifications_of(&mut reader, &mut modifications)? {
                    return Ok(None);
                }
            }
            SLICE_TYPE_B => {
                for _ in 0..2 {
                    if !modifications_of(&mut reader, &mut Vec::new())? {
                        return Ok(None);
                    }
                }
            }
            SLICE_TYPE_I => {}
            _ => return Ok(None),
        }
        let is_weighted = match kind {
            SLICE_TYPE_P => pps.weighted_pred,
            SLICE_TYPE_B => pps.weighted_bipred_idc == 1,
            _ => false,
        };
        if is_weighted {
            let lists = active.iter().take(if is_b { 2 } else { 1 });
            skip_weights(&mut reader, lists, sps.chroma_format_idc != 0)?;
        }
        let is_reference = nal_ref_idc(header) != 0;
        let mut marking = Vec::new();
        if is_reference && is_idr {
            reader.bit()?; // no_output_of_prior_pics_flag
            if reader.bit()? {
                return Ok(None); // long_term_reference_flag
            }
        } else if is_reference && reader.bit()? {
            loop {
                match reader.ue()? {
                    0 => break,
                    1 => marking.push(reader.ue()?.saturating_add(1)),
                    _ => return Ok(None),
                }
                if marking.len() > OPERATIONS_MAX {
                    return Ok(None);
                }
            }
        }
        Ok(Some(Slice {
            kind,
            is_idr,
            is_reference,
            frame_num,
            frame_num_max: 1 << sps.frame_num_bits,
            // At most 32.
            active: active[0] as usize,
            modifications,
            marking,
        }))
    }
}

/// What counts of a slice header.
#[derive(Debug)]
struct Slice {
    kind: u32,
    is_idr: bool,
    is_reference: bool,
    frame_num: u32,
    frame_num_max: i64,
    /// Entries of list 0.
    active: usize,
    /// Differences of picture numbers, with their sign, that list 0 is changed by.
    modifications: Vec<i64>,
    /// Differences of picture numbers that are let go (operation 1 of section 7.4.3.3).
    marking: Vec<u32>,
}

/// ref_pic_list_modification() of one list; `false` if there are long-term pictures in it.
fn modifications_of(reader: &mut BitReader<'_>, into: &mut Vec<i64>) -> Result<bool, Truncated> {
    if !reader.bit()? {
        return Ok(true);
    }
    for _ in 0..OPERATIONS_MAX {
        let sign = match reader.ue()? {
            0 => -1,
            1 => 1,
            3 => return Ok(true),
            _ => return Ok(false),
        };
        into.push(sign * (i64::from(reader.ue()?) + 1));
    }
    Ok(false)
}

/// pred_weight_table(), section 7.3.3.2.
fn skip_weights<'a>(
    reader: &mut BitReader<'_>,
    lists: impl Iterator<Item = &'a u32>,
    has_chroma: bool,
) -> Result<(), Truncated> {
    reader.ue()?; // luma_log2_weight_denom
    if has_chroma {
        reader.ue()?; // chroma_log2_weight_denom
    }
    for count in lists {
        for _ in 0..*count {
            if reader.bit()? {
                reader.se()?;
                reader.se()?;
            }
            if has_chroma && reader.bit()? {
                for _ in 0..4 {
                    reader.se()?;
                }
            }
        }
    }
    Ok(())
}

/// What counts of a picture parameter set, section 7.3.2.2.
#[derive(Clone, Copy, Debug)]
struct Pps {
    id: u32,
    sps_id: u32,
    bottom_field_pic_order: bool,
    /// num_ref_idx_l0_default_active_minus1 + 1, and the same of list 1.
    active: [u32; 2],
    weighted_pred: bool,
    weighted_bipred_idc: u32,
    redundant_pic_cnt: bool,
}

impl Pps {
    /// `None` if it has slice groups.
    fn decode(nal: &[u8]) -> Result<Option<Self>, Truncated> {
        let mut reader = BitReader::of_nal_body(nal.get(1..).unwrap_or_default());
        let id = reader.ue()?;
        let sps_id = reader.ue()?;
        reader.bit()?; // entropy_coding_mode_flag
        let bottom_field_pic_order = reader.bit()?;
        if reader.ue()? != 0 {
            return Ok(None);
        }
        let active = [
            reader.ue()?.saturating_add(1),
            reader.ue()?.saturating_add(1),
        ];
        let weighted_pred = reader.bit()?;
        let weighted_bipred_idc = reader.bits(2)?;
        for _ in 0..3 {
            reader.se()?; // pic_init_qp, pic_init_qs, chroma_qp_index_offset
        }
        reader.skip(2)?; // deblocking_filter_control, constrained_intra_pred
        Ok(Some(Self {
            id,
            sps_id,
            bottom_field_pic_order,
            active,
            weighted_pred,
            weighted_bipred_idc,
            redundant_pic_cnt: reader.bit()?,
        }))
    }
}

/// A picture that others may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    frame_num: u32,
    /// Which of the stream's pictures it is.
    number: u64,
    is_b: bool,
}

/// The reference pictures of a decoded picture buffer, in order of decoding.
#[derive(Debug)]
struct Buffer {
    pictures: Vec<Picture>,
    size: usize,
    is_known: bool,
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self {
            pictures: Vec::new(),
            size,
            is_known: false,
        }
    }

    fn lose(&mut self) {
        self.is_known = false;
        self.pictures.clear();
    }

    /// Reference list 0 of a P slice (sections 8.2.4.2.1 and 8.2.4.3.1); `None` if it has an
    /// entry that is not here.
    fn list(&self, slice: &Slice) -> Option<Vec<Picture>> {
        if !self.is_known {
            return None;
        }
        let mut list = self.pictures.clone();
        list.sort_by_key(|picture| std::cmp::Reverse(pic_num(picture, slice)));
        let mut predicted = i64::from(slice.frame_num);
        for (at, step) in slice.modifications.iter().enumerate() {
            predicted = (predicted + step).rem_euclid(slice.frame_num_max);
            let wanted = if predicted > i64::from(slice.frame_num) {
                predicted - slice.frame_num_max
            } else {
                predicted
            };
            let is_wanted = |picture: &&Picture| pic_num(picture, slice) == wanted;
            let picture = *self.pictures.iter().find(is_wanted)?;
            // One that stands further on moves; one that stands before is there twice, as x264 does
            // it for weighted prediction.
            let behind = list.split_off(at.min(list.len()));
            list.push(picture);
            list.extend(behind.into_iter().filter(|other| *other != picture));
        }
        list.truncate(slice.active);
        Some(list)
    }

    /// Takes in a decoded picture; `None` for its marking if only its place is taken in.
    fn mark(&mut self, picture: Picture, slice: &Slice, marking: Option<&Vec<u32>>) -> Option<()> {
        if slice.is_idr {
            self.pictures.clear();
            self.is_known = true;
        }
        for difference in marking.into_iter().flatten() {
            let wanted = i64::from(slice.frame_num) - i64::from(*difference);
            let position = self
                .pictures
                .iter()
                .position(|picture| pic_num(picture, slice) == wanted);
            // What is not here cannot be let go: nothing changes.
            position.map(|position| self.pictures.remove(position));
        }
        while self.pictures.len() >= self.size {
            // The sliding window, section 8.2.5.3.
            let oldest = (0..self.pictures.len())
                .min_by_key(|at| self.pictures.get(*at).map(|p| pic_num(p, slice)))?;
            self.pictures.remove(oldest);
        }
        self.pictures.push(picture);
        Some(())
    }
}

/// PicNum of a frame: its frame_num, less the modulus if that lies before a wrap (8-27, 8-28).
fn pic_num(picture: &Picture, slice: &Slice) -> i64 {
    let frame_num = i64::from(picture.frame_num);
    if picture.frame_num > slice.frame_num {
        frame_num - slice.frame_num_max
    } else {
        frame_num
    }
}

/// slice_type modulo 5 of an I slice, table 7-6.
const SLICE_TYPE_I: u32 = 2;

/// Most operations on a list or on the buffer in one slice header: there are no more than 32
/// entries and 16 pictures (sections 7.4.3.1 and 7.4.3.3).
const OPERATIONS_MAX: usize = 66;
