// Where a publisher's media comes from. Each source gives { stream, stop() } and throws
// SessionError with a cure.

import { SessionError } from './session.js';

/** @param {{width: number, height: number, sound: boolean, name: string}} wanted */
export async function openSource(kind, wanted) {
  const open = { camera: openCamera, screen: openScreen, test: openTestPicture }[kind];
  try {
    return await open(wanted);
  } catch (error) {
    throw error instanceof SessionError ? error : explain(error, kind);
  }
}

async function openCamera({ width, height, sound }) {
  needSecureContext();
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 } },
    audio: sound,
  });
  hint(stream, 'motion');
  return { stream, stop: () => stopTracks(stream) };
}

async function openScreen({ sound }) {
  needSecureContext();
  if (!navigator.mediaDevices.getDisplayMedia) {
    throw new SessionError('This browser cannot share its screen.', {
      cure: 'Browsers of phones do not offer it; use the camera or the test picture.',
    });
  }
  const stream = await navigator.mediaDevices.getDisplayMedia({
    video: { frameRate: { ideal: 30 } },
    audio: sound,
  });
  hint(stream, 'detail');
  return { stream, stop: () => stopTracks(stream) };
}

/** Colour bars, a moving hand, a clock to the millisecond; a tone that jumps an octave and
    a picture that flashes at each whole second, so that sound and picture can be compared. */
async function openTestPicture({ width, height, sound, name }) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { alpha: false });
  const tone = sound ? openTone() : null;
  let frame = 0;
  let second = -1;
  const draw = () => {
    const now = new Date();
    const isNewSecond = now.getSeconds() !== second;
    second = now.getSeconds();
    if (isNewSecond) tone?.beep();
    drawTestPicture(context, now, frame, name);
    frame += 1;
  };
  draw();
  const stream = canvas.captureStream(TEST_PICTURE_FPS);
  if (tone) stream.addTrack(tone.track);
  hint(stream, 'motion');
  const ticker = new Worker(new URL('./ticker.js', import.meta.url));
  ticker.onmessage = draw;
  ticker.postMessage(TEST_PICTURE_FPS);
  return {
    stream,
    /** Whether the browser keeps the tone silent until the page is clicked. */
    isSilent: () => tone !== null && tone.isSuspended(),
    resume: () => tone?.resume(),
    stop() {
      ticker.terminate();
      tone?.stop();
      stopTracks(stream);
    },
  };
}

function openTone() {
  const context = new AudioContext({ sampleRate: 48_000 });
  const oscillator = new OscillatorNode(context, { frequency: TONE_HZ });
  const gain = new GainNode(context, { gain: 0.2 });
  const output = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(output);
  oscillator.start();
  const [track] = output.stream.getAudioTracks();
  return {
    track,
    beep() {
      oscillator.frequency.setValueAtTime(2 * TONE_HZ, context.currentTime);
      oscillator.frequency.setValueAtTime(TONE_HZ, context.currentTime + FLASH_MS / 1000);
    },
    isSuspended: () => context.state === 'suspended',
    resume: () => context.resume(),
    stop: () => context.close(),
  };
}

function drawTestPicture(context, now, frame, name) {
  const { width, height } = context.canvas;
  const unit = height / 100;
  const isFlash = now.getMilliseconds() < FLASH_MS;
  BARS.forEach((colour, index) => {
    context.fillStyle = colour;
    const left = Math.floor((width * index) / BARS.length);
    context.fillRect(left, 0, Math.ceil(width / BARS.length), height);
  });
  // Something moves in every frame, all over the width.
  context.fillStyle = '#101418';
  context.fillRect(0, 78 * unit, width, 22 * unit);
  context.fillStyle = '#f4b740';
  const x = ((frame % (4 * TEST_PICTURE_FPS)) / (4 * TEST_PICTURE_FPS)) * width;
  context.fillRect(x, 78 * unit, 1.5 * unit, 22 * unit);
  context.fillStyle = isFlash ? '#ffffff' : '#101418';
  const box = { w: Math.min(width * 0.86, 120 * unit), h: 38 * unit };
  context.fillRect((width - box.w) / 2, 20 * unit, box.w, box.h);
  context.fillStyle = isFlash ? '#101418' : '#ffffff';
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  const size = Math.min(22 * unit, box.w / 8);
  context.font = `600 ${size}px ui-monospace, Menlo, Consolas, monospace`;
  const two = (value) => String(value).padStart(2, '0');
  const clock = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}.${String(now.getMilliseconds()).padStart(3, '0')}`;
  context.fillText(clock, width / 2, 40 * unit);
  context.fillStyle = '#ffffff';
  context.font = `500 ${Math.min(7 * unit, width / 22)}px system-ui, sans-serif`;
  context.fillText(`${name}   ${width}\u00d7${height}   frame ${frame}`, width / 2, 89 * unit);
}

function needSecureContext() {
  if (window.isSecureContext && navigator.mediaDevices) return;
  throw new SessionError('Browsers open cameras and screens only for pages that came by https or from localhost.', {
    cure: 'Put TLS in front of the gateway, or open this page as http://localhost. The test picture works here too.',
  });
}

function explain(error, kind) {
  const device = kind === 'screen' ? 'the screen' : 'camera and microphone';
  const [message, cure] = {
    NotAllowedError: [`The browser was not allowed to use ${device}.`, 'Allow it at the left end of the address bar, then try again.'],
    NotFoundError: ['No camera or microphone was found.', 'Connect one, switch the sound off, or choose the test picture.'],
    NotReadableError: [`Another program is using ${device}.`, 'Close it there, then try again.'],
    OverconstrainedError: ['The camera cannot do this size.', 'Choose a smaller one.'],
  }[error.name] ?? [`The source could not be opened: ${error.message}`, 'Try another one, such as the test picture.'];
  return new SessionError(message, { cure, reason: error.name });
}

function hint(stream, content) {
  for (const track of stream.getVideoTracks()) track.contentHint = content;
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}

const BARS = ['#c0c0c0', '#c0c000', '#00c0c0', '#00c000', '#c000c0', '#c00000', '#0000c0'];
const TEST_PICTURE_FPS = 25;
const TONE_HZ = 440;
const FLASH_MS = 80;
