// A WHEP player for one <video>. Usable by itself:
//
//   import { WhepPlayer } from './whep.js';
//   const player = new WhepPlayer('/whep/live/demo', { video });
//   player.connect();          // in a click handler, to be allowed to play with sound
//   await player.stats();      // once a second
//   player.close();

import { Session, addFormatParameters, codecName, payloadTypes } from './session.js';

/**
 * Plays a stream. Events beside "state": "firstpicture" (the first decoded frame is
 * shown), "muted" (the browser refused sound without a gesture: offer a button that calls
 * unmute()), "stalled" and "flowing" (no media for some seconds, and media again).
 */
export class WhepPlayer extends Session {
  #lastBytes = { value: 0, at: 0 };

  /**
   * @param {string | Exchange} to  the WHEP endpoint, or see session.js
   * @param {{video: HTMLVideoElement, token?: string, retry?: boolean, muted?: boolean}} options
   */
  constructor(to, { video, muted = false, ...options }) {
    super(to, options);
    this.video = video;
    this.muted = muted;
    this.isStalled = false;
    /** ms from the POST, and from connect(), to the first picture. */
    this.firstPictureMs = this.firstPictureFromStartMs = null;
  }

  async prepare(peer) {
    this.isStalled = false;
    this.#lastBytes = { value: 0, at: performance.now() };
    const stream = new MediaStream();
    peer.addTransceiver('audio', { direction: 'recvonly' });
    peer.addTransceiver('video', { direction: 'recvonly' });
    peer.addEventListener('track', ({ track, streams }) => {
      // The stream the gateway names keeps sound and picture in step; both tracks are in it.
      const named = streams[0] ?? stream;
      if (!named.getTracks().includes(track)) named.addTrack(track);
      if (this.video.srcObject === named) return;
      this.video.srcObject = named;
      this.#play();
    });
    this.#onFirstFrame(peer);
  }

  editOffer(sdp) {
    // Chromium plays stereo only if its own offer asks for it.
    return addFormatParameters(sdp, payloadTypes(sdp, 'opus'), 'stereo=1;sprop-stereo=1');
  }

  /** Turns the sound on; call it in a click handler. */
  async unmute() {
    this.muted = false;
    this.video.muted = false;
    await this.#play();
  }

  /** Turns the sound off. */
  mute() {
    this.muted = this.video.muted = true;
  }

  async close() {
    const closed = super.close();
    this.video.srcObject = null;
    await closed;
  }

  async #play() {
    this.video.muted = this.muted;
    try {
      await this.video.play();
    } catch (error) {
      // Anything else is a newer call to play().
      if (error.name !== 'NotAllowedError' || this.muted) return;
      this.muted = this.video.muted = true;
      this.dispatchEvent(new Event('muted'));
      await this.video.play().catch(() => {});
    }
  }

  #onFirstFrame(peer) {
    let isDone = false;
    const done = () => {
      if (isDone || peer !== this.peer || !this.video.videoWidth) return;
      isDone = true;
      const now = performance.now();
      this.firstPictureMs = now - this.postedAt;
      this.firstPictureFromStartMs ??= now - this.startedAt;
      this.dispatchEvent(new Event('firstpicture'));
    };
    peer.addEventListener('track', ({ track }) => {
      if (track.kind !== 'video') return;
      this.video.requestVideoFrameCallback?.(done);
      // A hidden page gets no frame callbacks.
      this.video.addEventListener('loadeddata', done, { once: true });
    });
  }

  /** What the session does now; call it about once a second. */
  async stats() {
    const base = {
      state: this.state,
      attempts: this.attempts,
      muted: this.video.muted,
      first_picture_ms: round(this.firstPictureMs),
      first_picture_from_click_ms: round(this.firstPictureFromStartMs),
    };
    if (!this.peer || this.state !== 'connected') return base;
    const { report, all, rate, roundTripMs, protocol } = await this.report();
    const inbound = (kind) => all.find((s) => s.type === 'inbound-rtp' && s.kind === kind);
    const [video, audio] = [inbound('video'), inbound('audio')];
    const bits = (stat) => (stat ? round((rate(stat, 'bytesReceived') ?? 0) * 8) : null);
    const both = (key) => (video?.[key] ?? 0) + (audio?.[key] ?? 0);
    const lost = sum(rate(video, 'packetsLost'), rate(audio, 'packetsLost'));
    const received = sum(rate(video, 'packetsReceived'), rate(audio, 'packetsReceived'));
    this.#judgeFlow(both('bytesReceived'));
    return {
      ...base,
      uptime_s: (performance.now() - this.connectedAt) / 1000,
      bitrate_bps: sum(bits(video), bits(audio)),
      video_bitrate_bps: bits(video),
      audio_bitrate_bps: bits(audio),
      width: video?.frameWidth ?? null,
      height: video?.frameHeight ?? null,
      fps: rate(video, 'framesDecoded'),
      frames_decoded: video?.framesDecoded ?? 0,
      frames_dropped: video?.framesDropped ?? 0,
      freeze_count: video?.freezeCount ?? 0,
      round_trip_ms: roundTripMs,
      transport: protocol,
      packets_lost: both('packetsLost'),
      loss_percent: lost + received > 0 ? Math.max(0, (100 * lost) / (lost + received)) : 0,
      jitter_buffer_ms: delay(rate, video),
      audio_jitter_buffer_ms: delay(rate, audio),
      video_codec: codecName(report.get(video?.codecId)),
      audio_codec: codecName(report.get(audio?.codecId)),
      is_stalled: this.isStalled,
    };
  }

  #judgeFlow(bytes) {
    const now = performance.now();
    if (bytes !== this.#lastBytes.value) this.#lastBytes = { value: bytes, at: now };
    const isStalled = now - this.#lastBytes.at > STALL_MS;
    if (isStalled === this.isStalled) return;
    this.isStalled = isStalled;
    this.dispatchEvent(new Event(isStalled ? 'stalled' : 'flowing'));
  }
}

/** Mean time a frame or sample spent in the jitter buffer during the last interval. */
function delay(rate, stat) {
  const waited = rate(stat, 'jitterBufferDelay');
  const emitted = rate(stat, 'jitterBufferEmittedCount');
  return emitted > 0 ? (1000 * waited) / emitted : null;
}

const sum = (a, b) => (a ?? 0) + (b ?? 0);
const round = (value) => (value === null ? null : Math.round(value));

const STALL_MS = 4_000;
