//! [`AvcConfig`]: the AVCDecoderConfigurationRecord, ISO/IEC 14496-15 section 5.3.3.1.

use bytes::Bytes;

use super::{
    FORBIDDEN_BIT, H264Error, PARAMETER_SET_BYTES_MAX, SpsInfo, annex_b_nal_units,
    begins_with_start_code, nal_type, nal_unit_type,
};
use crate::wire::{Reader, WriteExt};

/// The parameter sets of a track: at least one SPS and one PPS.
///
/// Owns its bytes, so that a configuration kept for hours does not hold the frame it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig {
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
    info: SpsInfo,
}

impl AvcConfig {
    /// Reads an AVCDecoderConfigurationRecord, as an RTMP sequence header carries it. The second
    /// value is how many bytes the lengths of NAL units have in the frames that follow, 1 to 4.
    ///
    /// As real encoders write it: the reserved bits may be 0 (SRS #3551), there may be several sets
    /// (SRS #2544), the tail of the High profiles may be missing or followed by more. The profile
    /// is that of the SPS, not the copy in the record. A byte stream of Annex B in place of the
    /// record is read as well, and then says 4.
    ///
    /// # Errors
    /// [`H264Error::NoParameterSets`] for a record that leaves them to the stream; others for what
    /// is malformed.
    pub fn decode(record: &[u8]) -> Result<(Self, u8), H264Error> {
        if begins_with_start_code(record) {
            return Self::decode_annex_b(record);
        }
        let mut reader = Reader::new(record);
        let version = reader.u8()?;
        if version != 1 {
            return Err(H264Error::RecordVersion(version));
        }
        reader.take(3)?; // AVCProfileIndication, profile_compatibility, AVCLevelIndication
        let length_size = (reader.u8()? & 0x03) + 1;
        let sps_count = reader.u8()? & 0x1f;
        let sps = decode_sets(&mut reader, sps_count)?;
        // A record that ends after its SPS announces no PPS.
        let pps_count = reader.u8().unwrap_or(0);
        let pps = decode_sets(&mut reader, pps_count)?;
        if sps.is_empty() || pps.is_empty() {
            return Err(H264Error::NoParameterSets { length_size });
        }
        Ok((Self::from_parameter_sets(sps, pps)?, length_size))
    }

    /// A configuration from NAL units with their header bytes, as they come in-band.
    ///
    /// # Errors
    /// If either list is empty, a NAL unit is of another type, or the first SPS cannot be parsed.
    pub fn from_parameter_sets(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, H264Error> {
        // What the record can count (section 5.3.3.1.2).
        for (count, max) in [(sps.len(), 31), (pps.len(), 255)] {
            if count > max {
                return Err(H264Error::TooManyParameterSets(count));
            }
        }
        for set in &sps {
            check_set(set, nal_type::SPS)?;
        }
        for set in &pps {
            check_set(set, nal_type::PPS)?;
        }
        let (Some(first), false) = (sps.first(), pps.is_empty()) else {
            return Err(H264Error::NoParameterSets { length_size: 4 });
        };
        let info = SpsInfo::decode(first)?;
        Ok(Self { sps, pps, info })
    }

    /// The configuration after parameter sets came in-band: these replace the known ones of their
    /// kind, an empty list replaces nothing. `None` if nothing changed by that, so that a header is
    /// repeated only when its bytes differ.
    ///
    /// # Errors
    /// As [`AvcConfig::from_parameter_sets`].
    pub fn updated(&self, sps: &[Bytes], pps: &[Bytes]) -> Result<Option<Self>, H264Error> {
        if sps.is_empty() && pps.is_empty() {
            return Ok(None);
        }
        let sps = if sps.is_empty() { &self.sps } else { sps };
        let pps = if pps.is_empty() { &self.pps } else { pps };
        if self.sps == sps && self.pps == pps {
            return Ok(None);
        }
        Self::from_parameter_sets(sps.to_vec(), pps.to_vec()).map(Some)
    }

    /// The record for a stream with 4-byte lengths, with the tail of the High profiles where it
    /// belongs.
    pub fn encode(&self) -> Bytes {
        let sets = self.sps.iter().chain(&self.pps);
        let mut out = Vec::with_capacity(11 + sets.map(|set| set.len() + 2).sum::<usize>());
        out.push(1);
        out.extend(self.info.profile_level_id());
        out.push(0xfc | 3); // reserved bits, lengthSizeMinusOne
        // Both counts were checked at construction, and so were the lengths.
        out.push(0xe0 | self.sps.len() as u8);
        encode_sets(&self.sps, &mut out);
        out.push(self.pps.len() as u8);
        encode_sets(&self.pps, &mut out);
        if SpsInfo::has_high_syntax(self.info.profile_idc) {
            out.push(0xfc | self.info.chroma_format_idc);
            out.push(0xf8 | (self.info.bit_depth_luma - 8));
            out.push(0xf8 | (self.info.bit_depth_chroma - 8));
            out.push(0); // numOfSequenceParameterSetExt
        }
        out.into()
    }

    /// The sequence parameter sets, header bytes included; at least one.
    pub fn sps(&self) -> &[Bytes] {
        &self.sps
    }

    /// The picture parameter sets, header bytes included; at least one.
    pub fn pps(&self) -> &[Bytes] {
        &self.pps
    }

    /// What the first SPS says.
    pub const fn info(&self) -> &SpsInfo {
        &self.info
    }

    fn decode_annex_b(stream: &[u8]) -> Result<(Self, u8), H264Error> {
        let mut sps = Vec::new();
        let mut pps = Vec::new();
        for nal in annex_b_nal_units(stream) {
            match nal.first().map(|header| nal_unit_type(*header)) {
                Some(nal_type::SPS) => sps.push(Bytes::copy_from_slice(nal)),
                Some(nal_type::PPS) => pps.push(Bytes::copy_from_slice(nal)),
                _ => {}
            }
        }
        Ok((Self::from_parameter_sets(sps, pps)?, 4))
    }
}

/// `count` sets behind 16-bit lengths; empty ones are left out.
fn decode_sets(reader: &mut Reader<'_>, count: u8) -> Result<Vec<Bytes>, H264Error> {
    let mut sets = Vec::new();
    for _ in 0..count {
        let len = usize::from(reader.u16()?);
        let set = reader.take(len)?;
        if !set.is_empty() {
            sets.push(Bytes::copy_from_slice(set));
        }
    }
    Ok(sets)
}

fn encode_sets(sets: &[Bytes], out: &mut Vec<u8>) {
    for set in sets {
        // Not longer than PARAMETER_SET_BYTES_MAX.
        out.put_u16_be(set.len() as u16);
        out.extend_from_slice(set);
    }
}

fn check_set(set: &[u8], wanted: u8) -> Result<(), H264Error> {
    let header = *set.first().ok_or(H264Error::Truncated)?;
    if set.len() > PARAMETER_SET_BYTES_MAX {
        return Err(H264Error::ParameterSetTooLarge(set.len()));
    }
    if header & FORBIDDEN_BIT != 0 {
        return Err(H264Error::ForbiddenBit);
    }
    let found = nal_unit_type(header);
    if found != wanted {
        return Err(H264Error::WrongNalType { wanted, found });
    }
    Ok(())
}
