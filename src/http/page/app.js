// The page: what is live, one player, one publisher.
//
// Deep links: /?play=live/demo plays at once, muted; /?publish=live/me&source=test publishes
// at once; /?health=live/demo tells how it does; &token=... goes with all. Every second `window.gatewayStats` is replaced by
// { player, publisher, streams }, for tests and the curious.

import { WhepPlayer } from './whep.js';
import { WhipPublisher } from './whip.js';
import { HealthPanel } from './health.js';
import { openSource } from './sources.js';
import { bits, duration, hertz, milliseconds, percent, seconds } from './format.js';
import { copyButton, copyRow, element, icon, setIcon, setText, showFigures } from './parts.js';

const $ = (id) => document.getElementById(id);
const stage = $('stage');
const video = $('video');
const form = $('publish-form');
const parameters = new URLSearchParams(location.search);

const app = {
  streams: [],
  rtmpPort: 1935,
  /** { name, player } while a stream plays or is tried. */
  play: null,
  /** { name, kind, source, publisher } while publishing. */
  publish: null,
};

// ---- Addresses -------------------------------------------------------------------

const pathOf = (name) => name.split('/').map(encodeURIComponent).join('/');
const endpoint = (protocol, name) => `${location.origin}/${protocol}/${pathOf(name)}`;
const rtmpHost = () => `rtmp://${location.hostname}${app.rtmpPort === 1935 ? '' : `:${app.rtmpPort}`}`;
const rtmpUrl = (name) => `${rtmpHost()}/${name}`;
const pageUrl = (name) => `${location.origin}/?play=${pathOf(name)}`;
const token = () => $('token').value.trim();

/** "app/stream" without slashes around it, or null if it is no such name. */
function streamName(text) {
  const levels = (text ?? '').trim().split('/').filter(Boolean);
  return levels.length >= 2 ? levels.join('/') : null;
}

function setParameters(changes) {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) url.searchParams.delete(key);
    else url.searchParams.set(key, value);
  }
  history.replaceState(null, '', url.href.replaceAll('%2F', '/'));
}

// ---- Live streams ----------------------------------------------------------------

async function pollStreams() {
  try {
    const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
    const response = await fetch('/api/v1/streams', { headers, signal: AbortSignal.timeout(5000) });
    const isClosed = [401, 403].includes(response.status);
    if (!response.ok && !isClosed) throw new Error(`status ${response.status}`);
    const answer = isClosed ? {} : await response.json();
    app.streams = answer.streams ?? [];
    app.rtmpPort = answer.rtmp_port ?? 1935;
    const count = app.streams.filter((stream) => stream.publisher).length;
    if (isClosed) summary('the list needs a token', '');
    else summary(count === 0 ? 'nothing live' : `${count} live`, count > 0 ? 'good' : '');
    showStreams();
  } catch {
    summary('gateway does not answer', 'bad');
  }
  setTimeout(pollStreams, document.hidden ? 10_000 : POLL_MS);
}

function summary(text, kind) {
  setText($('summary'), text);
  $('summary').className = `pill ${kind}`;
}

function showStreams() {
  const list = $('streams');
  const cards = new Map([...list.children].map((card) => [card.dataset.name, card]));
  let before = list.firstElementChild;
  for (const stream of app.streams) {
    const card = cards.get(stream.name) ?? makeCard(stream.name);
    cards.delete(stream.name);
    updateCard(card, stream);
    // A card that stands where it belongs is left alone: it may have the focus.
    if (card === before) before = before.nextElementSibling;
    else list.insertBefore(card, before);
  }
  for (const card of cards.values()) card.remove();
  $('howto').hidden = app.streams.length > 0;
  if (!$('howto').hidden) showHowTo();
}

function makeCard(name) {
  const play = element('button', { className: 'button', type: 'button' }, icon('play'), 'Play');
  play.dataset.testid = 'play';
  play.setAttribute('aria-label', `Play ${name}`);
  play.addEventListener('click', () => {
    if (app.play?.name === name) stopPlaying();
    else playFromGesture(name);
  });
  const details = element('details', {},
    element('summary', { textContent: 'Addresses' }),
    element('div', { className: 'rows' },
      copyRow('Play by RTMP', rtmpUrl(name)),
      copyRow('Play by WHEP', endpoint('whep', name)),
      copyRow('Publish by WHIP', endpoint('whip', name)),
      copyRow('This page, playing it', pageUrl(name))));
  const card = element('li', { className: 'card' },
    element('div', { className: 'card-main' },
      element('span', { className: 'card-name', textContent: name }), play,
      element('div', { className: 'card-facts' })),
    details);
  const health = element('button', { className: 'link', type: 'button' }, icon('health'), 'Health');
  health.dataset.testid = 'card-health';
  health.setAttribute('aria-controls', 'health');
  health.addEventListener('click', () => toggleHealth(name, health));
  card.append(health);
  card.dataset.name = name;
  card.dataset.testid = 'stream';
  return card;
}

function updateCard(card, stream) {
  const isCurrent = app.play?.name === stream.name;
  card.classList.toggle('current', isCurrent);
  const button = card.querySelector('.button');
  setIcon(button, isCurrent ? 'stop' : 'play');
  setText(button.lastChild, isCurrent ? 'Stop' : 'Play');
  button.setAttribute('aria-label', `${isCurrent ? 'Stop' : 'Play'} ${stream.name}`);
  const health = card.querySelector('.link');
  const warnings = stream.warnings?.length ?? 0;
  setText(health.lastChild, warnings === 0 ? 'Health' : warnings === 1 ? '1 warning' : `${warnings} warnings`);
  health.classList.toggle('warned', warnings > 0);
  health.setAttribute('aria-expanded', String(panel.name === stream.name));
  health.setAttribute('aria-label', `${health.lastChild.textContent}: ${stream.name}`);
  const facts = card.querySelector('.card-facts');
  const lines = streamFacts(stream);
  while (facts.children.length > lines.length) facts.lastChild.remove();
  lines.forEach(([text, className = ''], index) => {
    const line = facts.children[index] ?? facts.appendChild(element('span'));
    setText(line, text);
    line.className = className;
  });
}

function streamFacts({ publisher, tracks = [], players = {}, transcode = {} }) {
  const lines = tracks.map((track) => [trackFacts(track)]);
  if (publisher) {
    const by = { rtmp: 'RTMP', whip: 'WHIP' }[publisher.protocol] ?? publisher.protocol;
    const [address, ...program] = (publisher.client ?? '').split(' ');
    const facts = [`by ${by} for ${duration(publisher.uptime_s)}`, address && `from ${address}`, programName(program.join(' '))];
    lines.push([facts.filter(Boolean).map(unbroken).join(DOT)]);
  } else {
    lines.push(['waiting for its publisher', 'absent']);
  }
  for (const { advice } of tracks) if (advice) lines.push([advice, 'absent']);
  const watching = Object.entries(players)
    .filter(([, count]) => count > 0)
    .map(([protocol, count]) => `${count} by ${protocol.toUpperCase()}`);
  const converting = Object.entries(transcode)
    .filter(([, value]) => value === true)
    .map(([key]) => ({ aac_to_opus: 'AAC → Opus', opus_to_aac: 'Opus → AAC' }[key]))
    .filter(Boolean)
    .map(unbroken);
  lines.push([[watching.length ? `watched: ${watching.join(', ')}` : 'nobody watches', ...converting].join(DOT)]);
  return lines;
}

/** "Lavf59.27.100", or "OBS" out of "FMLE/3.0 (compatible; OBS)". */
function programName(text) {
  return /^FMLE[^(]*\(compatible; (.*)\)$/.exec(text)?.[1] ?? text;
}

function trackFacts(track) {
  const codec = [track.codec === 'H264' ? 'H.264' : track.codec, track.profile].filter(Boolean).join(' ');
  const facts = track.kind === 'video'
    ? [track.width && `${track.width}×${track.height}`, track.fps && `${Math.round(track.fps)} fps`]
    : [track.sample_rate_hz && hertz(track.sample_rate_hz), { 1: 'mono', 2: 'stereo' }[track.channels]];
  const gop = track.gop_ms ? `GOP ${seconds(track.gop_ms)}` : null;
  const all = [codec, ...facts, track.bitrate_bps && bits(track.bitrate_bps), gop].filter(Boolean);
  return all.map(unbroken).join(DOT);
}

/** A fact is not broken across lines; between facts there is room. */
const DOT = '\u00a0· ';
const unbroken = (text) => text.replaceAll(' ', '\u00a0');

function showHowTo() {
  const [name, host] = ['live/demo', rtmpHost()];
  const line = $('ffmpeg-line');
  if (line.dataset.host === host) return;
  line.dataset.host = host;
  line.textContent = 'ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine=frequency=440:sample_rate=48000 '
    + '-c:v libx264 -preset veryfast -tune zerolatency -g 50 -pix_fmt yuv420p -c:a aac -b:a 96k '
    + `-f flv ${rtmpUrl(name)}`;
  line.parentElement.querySelector('.copy')?.remove();
  line.after(copyButton('the ffmpeg command', () => line.textContent));
  $('obs-rows').replaceChildren(copyRow('Server', `${host}/live`), copyRow('Stream key', 'demo'));
}

// ---- Health ----------------------------------------------------------------------

const panel = new HealthPanel({ token, onchange: showHealth });

function showHealth() {
  $('health-open').setAttribute('aria-expanded', String(panel.name !== null && panel.name === app.play?.name));
  $('publish-health').setAttribute('aria-expanded', String(panel.name !== null && panel.name === app.publish?.name));
  setParameters({ health: panel.name });
  showStreams();
}

/** The panel stands under the picture, which stays in sight. */
function toggleHealth(name, opener) {
  panel.toggle(name, opener);
  if (panel.name) document.querySelector('.watch').scrollIntoView({ block: 'start', behavior: 'smooth' });
}

// ---- Player ----------------------------------------------------------------------

function startPlaying(name, { muted = false } = {}) {
  stopPlaying();
  const player = new WhepPlayer(endpoint('whep', name), { video, muted, token: token() });
  // Once there was sound, the large button for it has done its work.
  const play = { name, player, wasHeard: !muted, trouble: '' };
  app.play = play;
  const on = (event, act) => player.addEventListener(event, ({ detail }) => {
    if (app.play === play) act(detail);
  });
  on('state', (detail) => showPlayerState(play, detail));
  on('firstpicture', () => showStage('playing'));
  on('muted', () => {
    play.wasHeard = false;
    showSound();
  });
  on('stalled', () => showStage('waiting', 'No picture arrives', 'The publisher may have paused or lost its network.'));
  on('flowing', () => showStage('playing'));
  player.connect();
  setText($('stage-title'), name);
  document.title = `${name} · RTMP Gateway`;
  $('stage-bar').hidden = false;
  graph.reset();
  setParameters({ play: name });
  showStreams();
  showSound();
  showFiguresOfPlayer({});
}

function playFromGesture(name, options) {
  startPlaying(name, options);
  document.querySelector('.watch').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
}

function stopPlaying() {
  if (!app.play) return;
  app.play.player.close();
  app.play = null;
  clearInterval(countdown);
  setText($('stage-title'), 'Player');
  document.title = 'RTMP Gateway';
  for (const id of ['stage-bar', 'stage-live', 'player-stats', 'unmute']) $(id).hidden = true;
  showStage('idle', 'Nothing is playing', 'Choose a live stream, or publish one.');
  setParameters({ play: null });
  showStreams();
}

let countdown;

function showPlayerState(play, { state, error, retryInMs }) {
  const { name } = play;
  clearInterval(countdown);
  // Figures stay through a gap, but do not stand empty before there was anything.
  if (state === 'connected') $('player-stats').hidden = false;
  // What went wrong before stays readable during the next try.
  if (state === 'connecting') showStage('connecting', `Connecting to ${name}…`, play.trouble);
  if (state === 'connected') play.trouble = '';
  if (state === 'failed') showStage('failed', error.message, error.cure);
  if (state !== 'waiting') return;
  const until = performance.now() + retryInMs;
  const isAbsent = error.status === 409;
  play.trouble = isAbsent ? '' : `${error.message} ${error.cure}`.trim();
  const say = () => {
    const left = Math.max(1, Math.ceil((until - performance.now()) / 1000));
    showStage('waiting', isAbsent ? `${name} is not live yet` : error.message,
      `${isAbsent ? '' : error.cure} Trying again in ${left} s.`.trim());
  };
  say();
  countdown = setInterval(say, 1000);
}

function showStage(state, text = '', cure = '') {
  stage.dataset.state = state;
  setText($('overlay-text'), text);
  setText($('overlay-cure'), cure);
  $('again').hidden = state !== 'failed';
  $('stage-live').hidden = state !== 'playing';
}

function showSound() {
  const { player, wasHeard = true } = app.play ?? {};
  const isMuted = player?.muted ?? false;
  setIcon($('mute'), isMuted ? 'muted' : 'sound');
  $('mute').setAttribute('aria-pressed', String(isMuted));
  $('unmute').hidden = !isMuted || wasHeard;
}

async function setSound(isOn) {
  const { play } = app;
  if (!play) return;
  if (isOn) {
    play.wasHeard = true;
    await play.player.unmute();
  } else {
    play.player.mute();
  }
  showSound();
}

const graph = {
  values: [],
  reset() {
    this.values = [];
    $('player-stats').replaceChildren();
  },
  push(value) {
    // There is no rate before the second look at the counters.
    if (value === 0 && this.values.length === 0) return;
    this.values = [...this.values, value].slice(-GRAPH_SECONDS);
    const list = $('player-stats');
    const tile = list.querySelector('.graph') ?? list.appendChild(this.make());
    const top = Math.max(...this.values, 1) * 1.1;
    const points = this.values.map((v, i) => `${GRAPH_SECONDS - this.values.length + i},${(40 - (40 * v) / top).toFixed(1)}`);
    const first = GRAPH_SECONDS - this.values.length;
    tile.querySelector('.curve').setAttribute('points', points.join(' '));
    tile.querySelector('.area').setAttribute('points', `${first},40 ${points.join(' ')} ${GRAPH_SECONDS - 1},40`);
    setText(tile.querySelector('.peak'), `peak ${bits(Math.max(...this.values))}`);
  },
  make() {
    const svg = icon('none');
    svg.replaceChildren();
    svg.setAttribute('viewBox', `0 0 ${GRAPH_SECONDS - 1} 40`);
    svg.setAttribute('preserveAspectRatio', 'none');
    for (const name of ['area', 'curve']) {
      const line = document.createElementNS(svg.namespaceURI, name === 'area' ? 'polygon' : 'polyline');
      line.setAttribute('class', name);
      svg.append(line);
    }
    const label = element('dt', {}, element('span', { textContent: 'Bit rate, last minute' }), element('span', { className: 'peak' }));
    return element('div', { className: 'graph' }, label, element('dd', {}, svg));
  },
};

function showFiguresOfPlayer(stats) {
  const picture = stats.width ? `${stats.width}×${stats.height}` : null;
  showFigures($('player-stats'), [
    ['first-picture', 'First picture', milliseconds(stats.first_picture_ms)],
    ['resolution', 'Resolution', picture],
    ['fps', 'Frame rate', stats.fps == null ? null : `${stats.fps.toFixed(1)} fps`],
    ['bitrate', 'Bit rate', stats.bitrate_bps == null ? null : bits(stats.bitrate_bps)],
    ['round-trip', 'Round trip', milliseconds(stats.round_trip_ms)],
    ['loss', 'Packet loss', percent(stats.loss_percent), stats.loss_percent > 2],
    ['jitter-buffer', 'Jitter buffer', milliseconds(stats.jitter_buffer_ms)],
    ['freezes', 'Freezes', stats.freeze_count === undefined ? null : String(stats.freeze_count), stats.freeze_count > 0],
    ['video-codec', 'Picture', stats.video_codec?.replace('Constrained ', '')],
    ['audio-codec', 'Sound', stats.audio_codec],
  ]);
}

// ---- Publisher -------------------------------------------------------------------

async function startPublishing(name, kind) {
  if (app.publish) return;
  const publish = { name, kind, source: null, publisher: null };
  app.publish = publish;
  note('');
  $('go-live').disabled = true;
  const [width, height, kbps] = form.elements.quality.value.split('x').map(Number);
  try {
    const sound = form.elements.sound.checked;
    publish.source = await openSource(kind, { width, height, sound, name });
  } catch (error) {
    app.publish = null;
    $('go-live').disabled = false;
    note(error.message, error.cure, 'bad');
    return;
  }
  const { stream } = publish.source;
  publish.publisher = new WhipPublisher(endpoint('whip', name), { stream, token: token(), videoBitrateBps: kbps * 1000, keepSize: kind !== 'camera' });
  publish.publisher.addEventListener('state', ({ detail }) => {
    if (app.publish === publish) showPublisherState(publish, detail);
  });
  // The browser's own "stop sharing" ends the stream.
  stream.getVideoTracks()[0]?.addEventListener('ended', () => {
    if (app.publish !== publish) return;
    stopPublishing();
    note('The source ended.');
  });
  publish.publisher.connect();
  $('preview').srcObject = stream;
  setText($('preview-name'), `${name} · ${SOURCE_NAMES[kind]}`);
  form.hidden = true;
  $('publish-run').hidden = false;
  $('publish-stats').replaceChildren();
  showFiguresOfPublisher({});
}

function stopPublishing() {
  const { publisher, source } = app.publish ?? {};
  if (!publisher) return;
  app.publish = null;
  publisher.close();
  source.stop();
  $('preview').srcObject = null;
  form.hidden = false;
  $('go-live').disabled = false;
  for (const id of ['publish-run', 'publish-live', 'publish-hint']) $(id).hidden = true;
  note('');
  setParameters({ publish: null, source: null });
}

function showPublisherState(publish, { state, error, retryInMs }) {
  const tally = $('publish-live');
  tally.hidden = false;
  tally.classList.toggle('waiting', state !== 'connected');
  setText(tally, state === 'connected' ? 'on air' : state === 'failed' ? 'off air' : 'connecting');
  if (state === 'waiting') {
    note(error.message, `${error.cure} Trying again in ${Math.ceil(retryInMs / 1000)} s.`);
  } else if (state === 'failed') {
    const cure = error.status === 409 ? 'Choose another name, or stop the other publisher.' : error.cure;
    stopPublishing();
    note(error.message, cure, 'bad');
  } else {
    note('');
  }
}

function note(message, cure = '', kind = '') {
  const shown = $('publish-note');
  shown.hidden = !message;
  shown.className = `note ${kind}`;
  setText(shown, `${message} ${cure}`.trim());
}

function showFiguresOfPublisher(stats) {
  showFigures($('publish-stats'), [
    ['up-resolution', 'Picture', stats.width ? `${stats.width}×${stats.height}` : null],
    ['up-fps', 'Frames', stats.fps == null ? null : `${stats.fps.toFixed(1)} fps`],
    ['up-bitrate', 'Bit rate', stats.bitrate_bps == null ? null : bits(stats.bitrate_bps)],
    ['up-round-trip', 'Round trip', milliseconds(stats.round_trip_ms)],
    ['up-loss', 'Loss', percent(stats.loss_percent), stats.loss_percent > 2],
    ['up-limit', 'Held back by', stats.limited_by ? LIMITS[stats.limited_by] ?? stats.limited_by : null],
  ]);
}

// ---- Once a second ---------------------------------------------------------------

async function tick() {
  const { play, publish } = app;
  const [player, publisher] = await Promise.all([
    play?.player.stats().catch(() => null),
    publish?.publisher?.stats().catch(() => null),
  ]);
  if (player && app.play === play) {
    showFiguresOfPlayer(player);
    if (player.bitrate_bps != null) graph.push(player.bitrate_bps);
    const isSoundOnly = player.state === 'connected' && player.first_picture_ms === null && player.audio_bitrate_bps > 0;
    if (isSoundOnly && player.uptime_s > 3) showStage('sound', 'Sound only', 'This stream sends no picture at the moment.');
  }
  if (publisher && app.publish === publish) {
    showFiguresOfPublisher(publisher);
    $('publish-hint').hidden = !publish.source.isSilent?.();
  }
  window.gatewayStats = {
    player: player ? { stream: play.name, stage: stage.dataset.state, ...player } : null,
    publisher: publisher ? { stream: publish.name, source: publish.kind, ...publisher } : null,
    streams: app.streams,
    updated_at: Date.now(),
  };
}

// ---- Wiring ----------------------------------------------------------------------

$('stop').addEventListener('click', stopPlaying);
$('again').addEventListener('click', () => startPlaying(app.play.name));
$('unmute').addEventListener('click', () => setSound(true));
$('mute').addEventListener('click', () => setSound(app.play?.player.muted));
$('volume').addEventListener('input', ({ target }) => {
  video.volume = target.value / 100;
});
$('health-open').addEventListener('click', ({ currentTarget }) => toggleHealth(app.play.name, currentTarget));
$('publish-health').addEventListener('click', ({ currentTarget }) => toggleHealth(app.publish.name, currentTarget));
$('full').addEventListener('click', () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen();
  else video.webkitEnterFullscreen?.();
});
$('pip').hidden = !document.pictureInPictureEnabled;
$('pip').addEventListener('click', () => {
  if (document.pictureInPictureElement) document.exitPictureInPicture();
  else video.requestPictureInPicture().catch(() => {});
});
form.addEventListener('submit', (event) => {
  event.preventDefault();
  const name = streamName(form.elements.name.value);
  if (!name) {
    note('A stream needs an app and a name.', 'Write it as app/stream, such as live/me.', 'bad');
    return;
  }
  startPublishing(name, form.elements.source.value);
});
$('publish-stop').addEventListener('click', stopPublishing);
$('publish-watch').addEventListener('click', () => {
  // A camera's own sound would feed back.
  playFromGesture(app.publish.name, { muted: app.publish.kind === 'camera' });
});
$('try-test').addEventListener('click', () => {
  form.elements.source.value = 'test';
  startPublishing(streamName(form.elements.name.value) ?? 'live/me', 'test');
});
for (const gesture of ['pointerdown', 'keydown']) {
  addEventListener(gesture, () => app.publish?.source?.resume?.());
}
// Without this, sessions of a closed tab would live until their timeouts.
addEventListener('pagehide', () => {
  app.play?.player.close();
  app.publish?.publisher?.close();
});
// Back from the browser's cache, where its sessions did not survive.
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});

function followDeepLink() {
  if (parameters.has('token')) $('token').value = parameters.get('token');
  const publish = streamName(parameters.get('publish'));
  if (publish) {
    const kind = SOURCE_NAMES[parameters.get('source')] ? parameters.get('source') : 'camera';
    form.elements.name.value = publish;
    form.elements.source.value = kind;
    startPublishing(publish, kind);
  }
  const play = streamName(parameters.get('play'));
  if (play) startPlaying(play, { muted: true });
  const health = streamName(parameters.get('health'));
  if (health) panel.open(health);
}

const POLL_MS = 2000;
const GRAPH_SECONDS = 60;
const SOURCE_NAMES = { camera: 'camera', screen: 'screen', test: 'test picture' };
const LIMITS = { none: 'nothing', bandwidth: 'network', cpu: 'this computer', other: 'the encoder' };

window.gatewayStats = { player: null, publisher: null, streams: [], updated_at: Date.now() };
followDeepLink();
pollStreams();
setInterval(tick, 1000);
