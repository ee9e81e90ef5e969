// A WHIP publisher for one MediaStream. Usable by itself:
//
//   import { WhipPublisher } from './whip.js';
//   const publisher = new WhipPublisher('/whip/live/me', { stream });
//   publisher.connect();
//   await publisher.stats();   // once a second
//   publisher.close();         // the stream's tracks go on: they are the caller's

import { Session, SessionError, addFormatParameters, codecName, payloadTypes } from './session.js';

export class WhipPublisher extends Session {
  /**
   * @param {string | Exchange} to  the WHIP endpoint, or see session.js
   * @param {{stream: MediaStream, token?: string, retry?: boolean, videoBitrateBps?: number,
   *   keepSize?: boolean}} options  keepSize: on a poor network drop frames, not pixels
   */
  constructor(to, { stream, videoBitrateBps = 2_500_000, keepSize = false, ...options }) {
    super(to, options);
    this.keepSize = keepSize;
    this.stream = stream;
    this.videoBitrateBps = videoBitrateBps;
  }

  async prepare(peer) {
    for (const track of this.stream.getTracks()) {
      const isVideo = track.kind === 'video';
      const transceiver = peer.addTransceiver(track, {
        direction: 'sendonly',
        streams: [this.stream],
        sendEncodings: isVideo ? [{ maxBitrate: this.videoBitrateBps }] : [],
      });
      if (!isVideo) continue;
      preferH264(transceiver);
      if (!this.keepSize) continue;
      const { sender } = transceiver;
      const parameters = { ...sender.getParameters(), degradationPreference: 'maintain-resolution' };
      // A browser that does not know the preference publishes all the same.
      await sender.setParameters(parameters).catch(() => {});
    }
  }

  /** A stream whose publisher crashed is free again after some seconds; one that is still
      taken after that belongs to somebody. */
  isHopeless(error, failures) {
    return error.status === 409 && failures > TAKEN_RETRIES;
  }

  editAnswer(sdp) {
    // Chromium begins at 300 kbit/s and a blurred picture unless told otherwise.
    const kbps = Math.round(this.videoBitrateBps / 2000);
    return addFormatParameters(sdp, payloadTypes(sdp, 'h264'), `x-google-start-bitrate=${kbps}`);
  }

  /** What the session does now; call it about once a second. */
  async stats() {
    const base = { state: this.state, attempts: this.attempts };
    if (!this.peer || this.state !== 'connected') return base;
    const { report, all, rate, roundTripMs, protocol } = await this.report();
    const outbound = (kind) => all.find((s) => s.type === 'outbound-rtp' && s.kind === kind);
    const [video, audio] = [outbound('video'), outbound('audio')];
    const remote = all.filter((s) => s.type === 'remote-inbound-rtp');
    const bits = (stat) => (stat ? Math.round((rate(stat, 'bytesSent') ?? 0) * 8) : null);
    return {
      ...base,
      uptime_s: (performance.now() - this.connectedAt) / 1000,
      connected_ms: Math.round(this.connectedAt - this.postedAt),
      bitrate_bps: (bits(video) ?? 0) + (bits(audio) ?? 0),
      video_bitrate_bps: bits(video),
      audio_bitrate_bps: bits(audio),
      width: video?.frameWidth ?? null,
      height: video?.frameHeight ?? null,
      fps: rate(video, 'framesEncoded'),
      frames_encoded: video?.framesEncoded ?? 0,
      keyframes: video?.keyFramesEncoded ?? 0,
      round_trip_ms: roundTripMs,
      transport: protocol,
      loss_percent: Math.max(0, ...remote.map((s) => 100 * (s.fractionLost ?? 0))),
      video_codec: codecName(report.get(video?.codecId)),
      audio_codec: codecName(report.get(audio?.codecId)),
      encoder: video?.encoderImplementation ?? null,
      limited_by: video?.qualityLimitationReason ?? null,
    };
  }
}

const TAKEN_RETRIES = 2;

/** H.264 in packetization mode 1 first: the gateway takes nothing else for video. */
function preferH264(transceiver) {
  const codecs = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
  const isH264 = ({ mimeType }) => mimeType.toLowerCase() === 'video/h264';
  if (!codecs.some(isH264)) {
    throw new SessionError('This browser cannot encode H.264.', {
      cure: 'Use Chrome, Edge, Safari or Firefox in a current version.',
    });
  }
  const rank = (codec) => {
    if (!isH264(codec)) return 3;
    const line = codec.sdpFmtpLine ?? '';
    if (!line.includes('packetization-mode=1')) return 2;
    return line.includes('profile-level-id=42e0') ? 0 : 1;
  };
  transceiver.setCodecPreferences?.([...codecs].sort((a, b) => rank(a) - rank(b)));
}
