'use strict';
// The laboratory page: plays by WHEP and publishes by WHIP with nothing but the
// browser's own API, and measures what a viewer would see and hear. The tests
// call `lab.*` by the DevTools protocol.

const lab = { players: {}, publishers: {} };

// ---- the ear: reports each start of a loud beep with the wall time of its first sample

const earSource = `
class Ear extends AudioWorkletProcessor {
  constructor() {
    super();
    // Wall ms minus context ms of the earliest rendering in this second and in
    // the one before: blocks are rendered in bursts, the earliest is on time.
    this.lag = this.lagBefore = Infinity;
    this.second = 0;
    this.quiet = 0;        // samples since the last loud one
  }
  process(inputs) {
    const contextMs = currentTime * 1000;
    if (Math.floor(currentTime) !== this.second) {
      this.second = Math.floor(currentTime);
      this.lagBefore = this.lag;
      this.lag = Infinity;
    }
    this.lag = Math.min(this.lag, Date.now() - contextMs);
    const samples = inputs[0] && inputs[0][0];
    if (!samples) return true;
    for (let i = 0; i < samples.length; i++) {
      if (Math.abs(samples[i]) > 0.3) {
        if (this.quiet > sampleRate / 4) {
          this.port.postMessage(contextMs + i * 1000 / sampleRate + Math.min(this.lag, this.lagBefore));
        }
        this.quiet = 0;
      } else {
        this.quiet++;
      }
    }
    return true;
  }
}
registerProcessor('ear', Ear);
`;

async function listen(player, stream) {
  player.stream = stream;
  const context = new AudioContext({ sampleRate: 48000 });
  player.audio = context;
  await context.resume();
  await context.audioWorklet.addModule(
    URL.createObjectURL(new Blob([earSource], { type: 'text/javascript' })));
  const source = context.createMediaStreamSource(stream);
  const ear = new AudioWorkletNode(context, 'ear', { numberOfOutputs: 0 });
  ear.port.onmessage = (event) => player.beeps.push(event.data - performance.timeOrigin);
  source.connect(ear);
  const splitter = context.createChannelSplitter(2);
  source.connect(splitter);
  const analysers = [0, 1].map((channel) => {
    const analyser = context.createAnalyser();
    analyser.fftSize = 8192;
    analyser.smoothingTimeConstant = 0;
    splitter.connect(analyser, channel);
    return analyser;
  });
  const bins = new Float32Array(analysers[0].frequencyBinCount);
  player.earTimer = setInterval(() => {
    analysers.forEach((analyser, channel) => {
      analyser.getFloatFrequencyData(bins);
      let top = 8;
      for (let bin = 8; bin < 700; bin++) if (bins[bin] > bins[top]) top = bin;
      if (bins[top] < -70) return; // silence
      // The peak lies between bins: a parabola through the three highest.
      const [a, b, c] = [bins[top - 1], bins[top], bins[top + 1]];
      const shift = (a - c) / (2 * (a - 2 * b + c));
      player.pitches[channel].push((top + shift) * context.sampleRate / analyser.fftSize);
    });
  }, 100);
}

// ---- the eye: counts pictures and reports each flash of the upper left corner

function watch(player, video) {
  const canvas = new OffscreenCanvas(8, 8);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  let bright = true;
  const onPicture = (now, picture) => {
    if (player.firstPictureAt === null) player.firstPictureAt = picture.presentationTime;
    if (player.lastPictureAt !== null) {
      player.longestHoldMs = Math.max(player.longestHoldMs, picture.presentationTime - player.lastPictureAt);
    }
    player.lastPictureAt = picture.presentationTime;
    player.presented = picture.presentedFrames;
    const w = video.videoWidth, h = video.videoHeight;
    pen.drawImage(video, w / 24, h / 24, w / 6, h / 6, 0, 0, 8, 8);
    const pixels = pen.getImageData(0, 0, 8, 8).data;
    let sum = 0;
    for (let i = 0; i < pixels.length; i += 4) sum += pixels[i + 1];
    const light = sum / 64;
    if (!bright && light > 160) player.flashes.push(picture.presentationTime);
    if (light > 160) bright = true;
    if (light < 100) bright = false;
    if (player.onPicture) player.onPicture(picture, video);
    video.requestVideoFrameCallback(onPicture);
  };
  video.requestVideoFrameCallback(onPicture);
}

async function post(url, offer) {
  const response = await fetch(url, {
    method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer,
  });
  const body = await response.text();
  if (response.status !== 201) throw new Error(`POST ${url}: ${response.status} ${body}`);
  return { answer: body, location: new URL(response.headers.get('Location'), url).href };
}

// ---- WHEP

lab.play = async (name, url) => {
  const player = lab.players[name] = {
    pc: new RTCPeerConnection(), video: document.createElement('video'), streams: new Set(), tracks: [],
    flashes: [], beeps: [], pitches: [[], []], timers: [], location: null, states: [],
    postAt: null, answerAt: null, connectedAt: null, firstPictureAt: null, lastPictureAt: null,
    longestHoldMs: 0, presented: 0, audio: null,
  };
  const { pc, video } = player;
  video.autoplay = true;
  video.playsInline = true;
  video.style.width = '320px';
  document.body.append(video);
  watch(player, video);
  pc.addTransceiver('video', { direction: 'recvonly' });
  pc.addTransceiver('audio', { direction: 'recvonly' });
  pc.onconnectionstatechange = () => {
    player.states.push(pc.connectionState);
    if (pc.connectionState === 'connected') player.connectedAt ??= performance.now();
  };
  pc.ontrack = (event) => {
    player.tracks.push(event.track.kind);
    for (const stream of event.streams) player.streams.add(stream.id);
    const stream = event.streams[0] || new MediaStream([event.track]);
    if (!video.srcObject) video.srcObject = stream;
    if (event.track.kind === 'audio') listen(player, stream);
  };
  const offer = await pc.createOffer();
  // Stereo comes only to those who ask for it in their own offer (RFC 7587 section 7.1).
  offer.sdp = offer.sdp.replace('useinbandfec=1', 'useinbandfec=1;stereo=1');
  await pc.setLocalDescription(offer);
  player.postAt = performance.now();
  const { answer, location } = await post(url, pc.localDescription.sdp);
  player.answerAt = performance.now();
  player.location = location;
  await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  return answer;
};

// ---- WHIP: a moving picture with the flash, a quiet tone with the beep

lab.publish = async (name, url, { width = 640, height = 360, fps = 25, toneHz = 440 } = {}) => {
  const publisher = lab.publishers[name] = { pc: new RTCPeerConnection(), timers: [], states: [] };
  const { pc } = publisher;
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  document.body.append(canvas);
  const pen = canvas.getContext('2d');
  const context = new AudioContext({ sampleRate: 48000 });
  publisher.audio = context;
  await context.resume();
  const sink = context.createMediaStreamDestination();
  const voice = (hz, gain) => {
    const oscillator = context.createOscillator();
    const level = context.createGain();
    oscillator.frequency.value = hz;
    level.gain.value = gain;
    oscillator.connect(level).connect(sink);
    oscillator.start();
    return level.gain;
  };
  voice(toneHz, 0.1);
  const beep = voice(1760, 0);
  let second = Math.floor(performance.now() / 1000);
  let flashUntil = 0;
  publisher.timers.push(setInterval(() => {
    const now = performance.now();
    if (Math.floor(now / 1000) !== second) {
      second = Math.floor(now / 1000);
      flashUntil = now + 120;
      beep.setValueAtTime(0.6, context.currentTime);
      beep.setValueAtTime(0, context.currentTime + 0.1);
    }
    pen.fillStyle = `hsl(${now / 40 % 360} 60% 40%)`;
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = 'white';
    pen.beginPath();
    pen.arc(width * (0.6 + 0.3 * Math.cos(now / 700)), height * (0.6 + 0.3 * Math.sin(now / 700)), 30, 0, 7);
    pen.fill();
    pen.fillStyle = now < flashUntil ? 'white' : 'black';
    pen.fillRect(0, 0, width / 4, height / 4);
  }, 1000 / fps));
  const stream = new MediaStream([
    ...canvas.captureStream(fps).getVideoTracks(), ...sink.stream.getAudioTracks()]);
  publisher.stream = stream;
  const video = pc.addTransceiver(stream.getVideoTracks()[0], { direction: 'sendonly', streams: [stream] });
  pc.addTransceiver(stream.getAudioTracks()[0], { direction: 'sendonly', streams: [stream] });
  video.setCodecPreferences(RTCRtpSender.getCapabilities('video').codecs
    .filter((codec) => codec.mimeType === 'video/H264' || codec.mimeType === 'video/rtx'));
  pc.onconnectionstatechange = () => publisher.states.push(pc.connectionState);
  await pc.setLocalDescription(await pc.createOffer());
  const posted = await post(url, pc.localDescription.sdp);
  publisher.location = posted.location;
  publisher.answerAtEpochMs = Date.now();
  await pc.setRemoteDescription({ type: 'answer', sdp: posted.answer });
  return posted.answer;
};

// Ends a player or publisher as a good client does.
lab.stop = async (name) => {
  const it = lab.players[name] || lab.publishers[name];
  it.timers.forEach(clearInterval);
  clearInterval(it.earTimer);
  const response = await fetch(it.location, { method: 'DELETE' });
  it.pc.close();
  if (it.audio) await it.audio.close();
  return response.status;
};

lab.report = async (name) => {
  const it = lab.players[name] || lab.publishers[name];
  const report = { state: it.pc.connectionState, states: it.states, video: {}, audio: {} };
  const stats = await it.pc.getStats();
  stats.forEach((entry) => {
    if (entry.type === 'inbound-rtp' || entry.type === 'outbound-rtp') {
      const codec = stats.get(entry.codecId) || {};
      report[entry.kind] = { ...entry, mimeType: codec.mimeType, fmtp: codec.sdpFmtpLine };
    }
    if (entry.type === 'candidate-pair' && entry.nominated) report.rttMs = (entry.currentRoundTripTime || 0) * 1000;
  });
  if (lab.players[name]) {
    // The browser's own opinion: how much older the sound being played is than the picture.
    report.playoutMs = report.video.estimatedPlayoutTimestamp - report.audio.estimatedPlayoutTimestamp;
    const median = (values) => values.length
      ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null;
    Object.assign(report, {
      width: it.video.videoWidth, height: it.video.videoHeight, presented: it.presented,
      streams: it.streams.size, tracks: it.tracks, now: performance.now(),
      answerMs: it.answerAt - it.postAt, connectedMs: it.connectedAt && it.connectedAt - it.postAt,
      firstPictureMs: it.firstPictureAt && it.firstPictureAt - it.postAt,
      longestHoldMs: it.longestHoldMs, flashes: it.flashes.length, beeps: it.beeps.length,
      pitchHz: it.pitches.map((pitches) => median(pitches.slice(-30))),
      lipSyncMs: it.flashes.map((flash) => it.beeps.map((beep) => beep - flash)
        .filter((offset) => Math.abs(offset) < 500)
        .sort((a, b) => Math.abs(a) - Math.abs(b))[0]).filter((offset) => offset !== undefined),
    });
  }
  return report;
};

// Forgets what was heard and seen so far, so that the next report is about the time after. The
// ear is made anew: one that was once short of CPU hears late for ever.
lab.forget = async (name) => {
  const it = lab.players[name];
  clearInterval(it.earTimer);
  if (it.audio) await it.audio.close();
  if (it.stream) await listen(it, it.stream);
  Object.assign(it, { flashes: [], beeps: [], pitches: [[], []], longestHoldMs: 0 });
};
