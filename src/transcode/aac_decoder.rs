//! The AAC decoder: a thin safe face of `fdk-aac-sys`.
//!
//! The safe crate `fdk-aac` cannot switch off what delays its decoder by 36 ms: the limiter
//! (720 samples of look-ahead at 48 kHz) and concealment by interpolation (one
//! frame). Here both are off, so that AAC-LC comes out without any delay; what is
//! left for HE-AAC (its filter bank) is told with each frame.
//!
//! This is one of the few modules with `unsafe`; every block says why it is sound.
#![allow(unsafe_code)]

use std::os::raw::{c_int, c_uint};
use std::ptr::NonNull;

use fdk_aac_sys as sys;

use super::Error;

/// Samples of the largest frame that is decoded: 2048 (HE-AAC) in up to eight
/// channels. Channels are mixed down to two; the rest is room for streams whose layout
/// the library cannot mix. A frame that needs more is an error.
const PCM_SAMPLES_MAX: usize = 2048 * 8;

/// Settings of each decoder. The library may know none but the first two; those
/// alone are needed.
const PARAMETERS: [(sys::AACDEC_PARAM, c_int, bool); 5] = [
    // No limiter: it holds back 15 ms of sound.
    (sys::AACDEC_PARAM_AAC_PCM_LIMITER_ENABLE, 0, true),
    // Concealment by noise substitution: interpolation (2) holds back a frame.
    (sys::AACDEC_PARAM_AAC_CONCEAL_METHOD, 1, true),
    // More than two channels are mixed down.
    (sys::AACDEC_PARAM_AAC_PCM_MAX_OUTPUT_CHANNELS, 2, true),
    // No loudness normalisation and no dynamic range control: what goes in comes out.
    (sys::AACDEC_PARAM_AAC_DRC_REFERENCE_LEVEL, -1, false),
    (sys::AACDEC_PARAM_AAC_UNIDRC_SET_EFFECT, -1, false),
];

/// A decoder of raw AAC access units.
pub(super) struct AacDecoder {
    /// Owned: closed on drop, never copied.
    handle: NonNull<sys::AAC_DECODER_INSTANCE>,
    pcm: Box<[i16]>,
}

// SAFETY: the library keeps all state of a decoder behind its handle, without
// thread-locals and without globals that change after the program was loaded. The handle
// is owned by this value alone and every use needs `&mut self`, so at most one thread is
// in it at a time.
unsafe impl Send for AacDecoder {}

/// One decoded frame.
pub(super) struct Decoded<'a> {
    /// Rate in Hz as heard: twice the configured one if there is implicit SBR.
    pub(super) rate_hz: u32,
    /// Channels in `pcm`.
    pub(super) channels: usize,
    /// Samples at `rate_hz` by which the sound is later than the access unit's time.
    pub(super) delay: u32,
    /// Whether the access unit was damaged and this is a replacement.
    pub(super) concealed: bool,
    /// Interleaved samples.
    pub(super) pcm: &'a [i16],
}

impl AacDecoder {
    /// Opens a decoder for the streams that an AudioSpecificConfig (ISO/IEC 14496-3
    /// section 1.6.2.1) describes.
    ///
    /// # Errors
    ///
    /// If the library refuses the configuration or has no memory.
    pub(super) fn new(audio_specific_config: &[u8]) -> Result<Self, Error> {
        // The library takes an empty configuration for a good one and then has none.
        let length = match c_uint::try_from(audio_specific_config.len()) {
            Ok(length) if length > 0 => length,
            _ => return Err(Error::AacDecoder { code: 0 }),
        };
        // SAFETY: a constructor without preconditions; null means failure.
        let handle = unsafe { sys::aacDecoder_Open(sys::TRANSPORT_TYPE_TT_MP4_RAW, 1) };
        let Some(handle) = NonNull::new(handle) else {
            return Err(Error::AacDecoder {
                code: sys::AAC_DECODER_ERROR_AAC_DEC_OUT_OF_MEMORY,
            });
        };
        // From here on `drop` closes the handle on every way out.
        let decoder = Self {
            handle,
            pcm: vec![0; PCM_SAMPLES_MAX].into_boxed_slice(),
        };
        for (parameter, value, needed) in PARAMETERS {
            // SAFETY: the handle is open; unknown parameters and values are answered by
            // an error code.
            let code = unsafe { sys::aacDecoder_SetParam(handle.as_ptr(), parameter, value) };
            if needed && code != sys::AAC_DECODER_ERROR_AAC_DEC_OK {
                return Err(Error::AacDecoder { code });
            }
        }
        let mut configuration = audio_specific_config.as_ptr().cast_mut();
        // SAFETY: `configuration` and `length` describe a live slice, which the library
        // only reads (its prototype lacks `const`), and which it does not keep.
        let code = unsafe {
            sys::aacDecoder_ConfigRaw(handle.as_ptr(), &raw mut configuration, &raw const length)
        };
        if code != sys::AAC_DECODER_ERROR_AAC_DEC_OK {
            return Err(Error::AacDecoder { code });
        }
        Ok(decoder)
    }

    /// Decodes one access unit. A damaged one yields concealed sound of the same length.
    ///
    /// # Errors
    ///
    /// The library's code, if there is not even that: nothing good was decoded yet.
    pub(super) fn decode(&mut self, access_unit: &[u8]) -> Result<Decoded<'_>, u32> {
        let mut code = self.fill(access_unit);
        if code == sys::AAC_DECODER_ERROR_AAC_DEC_OK {
            code = self.decode_frame(0);
        }
        let concealed = code != sys::AAC_DECODER_ERROR_AAC_DEC_OK;
        if concealed && !has_output(code) {
            code = self.decode_frame(sys::AACDEC_CONCEAL);
            if code != sys::AAC_DECODER_ERROR_AAC_DEC_OK && !has_output(code) {
                return Err(code);
            }
        }
        self.output(concealed)
    }

    fn fill(&mut self, access_unit: &[u8]) -> u32 {
        let Ok(length) = c_uint::try_from(access_unit.len()) else {
            return sys::AAC_DECODER_ERROR_AAC_DEC_NOT_ENOUGH_BITS;
        };
        let mut data = access_unit.as_ptr().cast_mut();
        let mut left = length;
        // SAFETY: the handle is open; `data` and `length` describe a live slice that is
        // copied into the decoder's own buffer, as far as it fits, and not written to.
        unsafe {
            sys::aacDecoder_Fill(
                self.handle.as_ptr(),
                &raw mut data,
                &raw const length,
                &raw mut left,
            )
        }
    }

    fn decode_frame(&mut self, flags: u32) -> u32 {
        let room = c_int::try_from(self.pcm.len()).unwrap_or(0);
        // SAFETY: the handle is open, and `pcm` has room for as many samples as are
        // announced; the library checks the frame against that before it writes.
        unsafe {
            sys::aacDecoder_DecodeFrame(self.handle.as_ptr(), self.pcm.as_mut_ptr(), room, flags)
        }
    }

    fn output(&mut self, concealed: bool) -> Result<Decoded<'_>, u32> {
        // SAFETY: the handle is open, so the pointer is to a structure inside the
        // decoder, which nobody changes before the next call. It is copied at once. It is
        // null only for a null handle, and even that is looked at.
        let info = unsafe { sys::aacDecoder_GetStreamInfo(self.handle.as_ptr()).as_ref() }
            .copied()
            .ok_or(sys::AAC_DECODER_ERROR_AAC_DEC_UNKNOWN)?;
        let unknown = |_| sys::AAC_DECODER_ERROR_AAC_DEC_UNKNOWN;
        let rate_hz = u32::try_from(info.sampleRate).map_err(unknown)?;
        let channels = usize::try_from(info.numChannels).map_err(unknown)?;
        let samples = usize::try_from(info.frameSize).map_err(unknown)?;
        let pcm = samples
            .checked_mul(channels)
            .and_then(|length| self.pcm.get(..length))
            .filter(|pcm| !pcm.is_empty())
            .ok_or(sys::AAC_DECODER_ERROR_AAC_DEC_OUTPUT_BUFFER_TOO_SMALL)?;
        Ok(Decoded {
            rate_hz,
            channels,
            delay: info.outputDelay,
            concealed,
            pcm,
        })
    }
}

impl Drop for AacDecoder {
    fn drop(&mut self) {
        // SAFETY: the handle was opened in `new` and is closed only here.
        unsafe { sys::aacDecoder_Close(self.handle.as_ptr()) };
    }
}

/// Whether the output buffer holds sound in spite of an error: concealed after a
/// decode error, good after an error in ancillary data.
fn has_output(code: u32) -> bool {
    let decode = sys::AAC_DECODER_ERROR_aac_dec_decode_error_start
        ..=sys::AAC_DECODER_ERROR_aac_dec_decode_error_end;
    let ancillary = sys::AAC_DECODER_ERROR_aac_dec_anc_data_error_start
        ..=sys::AAC_DECODER_ERROR_aac_dec_anc_data_error_end;
    decode.contains(&code) || ancillary.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_configuration_is_refused() {
        assert!(AacDecoder::new(&[]).is_err());
        assert!(AacDecoder::new(&[0xff, 0xff]).is_err());
        assert!(AacDecoder::new(&[0x12]).is_err());
        assert!(AacDecoder::new(&[0x12, 0x10]).is_ok());
    }

    #[test]
    fn garbage_before_anything_good_is_an_error_or_silence() {
        let mut decoder = AacDecoder::new(&[0x11, 0x90]).unwrap();
        for length in [0, 1, 2, 7, 100, 5000] {
            if let Ok(decoded) = decoder.decode(&vec![0xff; length]) {
                assert!(decoded.concealed);
                assert_eq!(decoded.pcm.len(), 2048);
            }
        }
    }
}
