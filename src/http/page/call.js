// The call page: sign in by name, see who is there, ring, talk, hang up; or meet in a room.
//
// Deep links: /call?user=anna signs in at once (&token=... with a token), &room=ward-3 joins, &call=ben rings,
// &source=test sends a test picture and tone in place of camera and microphone. `window.gatewayCall` is
// { state, members, publisher, error }, renewed every half second, for tests and the curious.

import { Conversation } from './conversation.js';
import { bits } from './format.js';
import { Ringer } from './ringer.js';
import { RoomMedia } from './room-media.js';
import { SessionError } from './session.js';
import { Signalling } from './signalling.js';
import { openSource } from './sources.js';

const $ = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

const app = {
  signalling: null,
  conversation: null,
  /** RoomMedia while in a room. */
  media: null,
  /** A promise of openSource while in a call or on the way into one. */
  source: null,
  wantsVideo: true,
  isMicrophoneOff: false,
  isCameraOff: false,
  hint: '',
};
const ringer = new Ringer();

// ---- Signing in ----------------------------------------------------------------------

function signIn(user, token) {
  const signalling = new Signalling({
    open: webSocket(`${location.origin.replace(/^http/, 'ws')}/ws`), kind: 'webrtc',
    user: user || undefined, token: token || undefined,
  });
  const conversation = new Conversation(signalling);
  Object.assign(app, { signalling, conversation });
  signalling.on('state', ({ state, error }) => {
    const pills = { connecting: ['connecting…', ''], online: ['online', 'good'], waiting: ['no connection, trying again', 'bad'], closed: ['signed out', ''], failed: ['signed out', 'bad'] };
    const [text, tone] = pills[state];
    $('status').textContent = text;
    $('status').className = `pill ${tone}`;
    if (state === 'failed') signedOut(error.message);
  });
  signalling.on('hello', () => signedIn());
  signalling.on('restarted', () => endMedia());
  conversation.onChange(render);
  signalling.start();
}

let isDeepLinkDone = false;

function signedIn() {
  const { user, name } = app.signalling;
  $('sign-in').hidden = true;
  $('people').hidden = false;
  $('me').textContent = name || user;
  try {
    localStorage.setItem('gateway-user', user);
  } catch {
    // Without storage the name is asked for next time.
  }
  if (isDeepLinkDone) return;
  isDeepLinkDone = true;
  if (parameters.get('room')) join(parameters.get('room'));
  else if (parameters.get('call')) invite(parameters.get('call'), true);
}

function signedOut(message = '') {
  app.conversation?.hangup().catch(() => {});
  app.signalling?.stop();
  endMedia();
  Object.assign(app, { signalling: null, conversation: null });
  $('sign-in').hidden = false;
  $('people').hidden = $('call').hidden = true;
  $('sign-in-note').hidden = !message;
  $('sign-in-note').textContent = message;
}

function webSocket(url) {
  return (on) => {
    const socket = new WebSocket(url);
    socket.onopen = () => on.open();
    socket.onmessage = ({ data }) => on.message(data);
    socket.onclose = () => on.close();
    return {
      // What is sent while it is closing comes again after the resumption.
      send: (text) => socket.readyState === WebSocket.OPEN && socket.send(text),
      close: () => socket.close(),
    };
  };
}

// ---- What the user does --------------------------------------------------------------

async function invite(user, video) {
  prepare(video);
  await app.conversation.invite(user, { audio: true, video }).catch(() => {});
}

async function accept(video) {
  prepare(video);
  await app.conversation.accept({ audio: true, video }).catch(() => {});
}

async function join(room) {
  prepare(true);
  await app.conversation.join(room, { audio: true, video: true }).catch(() => {});
}

/** Opens camera and microphone while the other side is still asked. */
function prepare(video) {
  closeSource();
  Object.assign(app, { wantsVideo: video, isMicrophoneOff: false, isCameraOff: !video, hint: '' });
  const kind = parameters.get('source') === 'test' ? 'test' : 'camera';
  const wanted = { width: 640, height: 480, sound: true, name: app.signalling.name ?? '' };
  app.source = openSource(kind, wanted).then((source) => {
    if (!video) for (const track of source.stream.getVideoTracks()) {
      track.stop();
      source.stream.removeTrack(track);
    }
    return source;
  });
  app.source.then(({ stream }) => {
    $('self-video').srcObject = stream;
    $('self').dataset.mirror = kind === 'camera' ? 'yes' : 'no';
    render();
  }, (error) => {
    // Who cannot be seen may still see and hear.
    app.hint = error instanceof SessionError ? `${error.message} ${error.cure}` : String(error);
    render();
  });
}

function closeSource() {
  const { source } = app;
  app.source = null;
  $('self-video').srcObject = null;
  source?.then(({ stop }) => stop(), () => {});
}

function endMedia() {
  app.media?.close();
  app.media = null;
  closeSource();
}

function toggle(kind) {
  const key = kind === 'audio' ? 'isMicrophoneOff' : 'isCameraOff';
  app[key] = !app[key];
  app.source?.then(({ stream }) => {
    for (const track of stream.getTracks()) if (track.kind === kind) track.enabled = !app[key];
  }, () => {});
  app.conversation.mute({ audio: app.isMicrophoneOff, video: app.isCameraOff }).catch(() => {});
  render();
}

// ---- What is shown -------------------------------------------------------------------

function render() {
  const { conversation } = app;
  if (!conversation) return;
  const { state } = conversation;
  const isInCall = state !== 'free';
  document.body.dataset.state = isInCall ? 'call' : 'lobby';
  $('call').hidden = !isInCall;
  $('call').dataset.state = state;
  ringer.ring(state === 'ringing' ? 'incoming' : state === 'inviting' && conversation.call.isRinging ? 'outgoing' : null);
  renderLobby(conversation);
  if (!isInCall) {
    endMedia();
    return;
  }
  if (state === 'talking') {
    app.media ??= new RoomMedia({
      signalling: app.signalling, room: conversation.room, source: app.source, tiles: $('tiles'),
      onMuted: () => { $('sound').hidden = false; }, onError: (text) => { app.hint = text; render(); },
    });
    app.media.show(conversation.members);
  }
  renderCall(conversation);
}

function renderLobby({ users, ended }) {
  const others = [...users.values()].filter(({ user }) => user !== app.signalling.user);
  others.sort((a, b) => a.name.localeCompare(b.name));
  $('nobody').hidden = others.length > 0;
  $('ended').hidden = !ended;
  $('ended').textContent = ended ? `${ended.name ? `${ended.name}: ` : ''}${ended.text}` : '';
  $('users').replaceChildren(...others.map(({ user, name, kinds, state }) => {
    const what = `${state === 'busy' ? 'in a call' : 'free'} · ${kinds.includes('webrtc') ? 'browser' : 'mini-program'}`;
    const item = element('li', { className: 'user' },
      element('span', { className: 'initial', textContent: initial(name) }),
      element('span', {}, element('span', { className: 'name', textContent: name }), element('span', { className: 'what', textContent: what })),
      element('span', { className: 'actions' },
        callButton(user, name, false, state), callButton(user, name, true, state)));
    item.dataset.user = user;
    return item;
  }));
}

function callButton(user, name, video, state) {
  const button = element('button', { className: video ? 'button primary' : 'icon', type: 'button', disabled: state === 'busy' }, icon(video ? 'camera' : 'call'));
  if (video) button.append('Call');
  button.setAttribute('aria-label', video ? `Call ${name}` : `Call ${name} without picture`);
  button.dataset.testid = `${video ? 'call' : 'voice'}-${user}`;
  button.addEventListener('click', () => invite(user, video));
  return button;
}

function renderCall({ state, call, room, joining, members }) {
  const name = call?.other.name ?? `Room ${room ?? joining}`;
  const notes = {
    inviting: call?.isRinging ? 'ringing…' : 'calling…',
    joining: 'joining…',
    ringing: call?.video ? 'is calling you' : 'is calling you, voice only',
    talking: call ? 'connecting…' : 'You are the first here. Others join by the same name.',
  };
  $('waiting').hidden = members.size > 0 && state === 'talking';
  $('initial').textContent = initial(name);
  $('call-title').textContent = name;
  $('call-note').textContent = notes[state];
  $('call-top').hidden = state !== 'talking' || members.size === 0;
  $('call-name').textContent = name;
  $('ringing-bar').hidden = state !== 'ringing';
  $('accept-audio').hidden = !call?.video;
  $('talking-bar').hidden = state === 'ringing';
  $('hangup-text').textContent = state === 'talking' ? 'Hang up' : 'Cancel';
  showToggle('mic', app.isMicrophoneOff, state, 'mic');
  showToggle('camera', app.isCameraOff, state, 'camera');
  $('camera').hidden = !app.wantsVideo;
  $('self').hidden = !app.source || !app.wantsVideo || state === 'ringing';
  $('self-off').hidden = !app.isCameraOff;
  $('call-hint').hidden = !app.hint;
  $('call-hint').textContent = app.hint;
}

function showToggle(id, isOff, state, name) {
  $(id).setAttribute('aria-pressed', String(isOff));
  $(id).disabled = state !== 'talking';
  $(id).querySelector('use').setAttribute('href', `#i-${name}${isOff ? '-off' : ''}`);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(svg.namespaceURI, 'use'));
  svg.firstChild.setAttribute('href', `#i-${name}`);
  return svg;
}

const initial = (name) => [...(name.trim() || '?')][0];

async function tick() {
  const { conversation, media } = app;
  const since = conversation?.since;
  const whole = since ? Math.floor((Date.now() - since) / 1000) : 0;
  $('call-time').textContent = since ? `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}` : '';
  if (conversation?.state !== 'talking') $('sound').hidden = true;
  const figures = await media?.stats();
  const publisher = figures?.publisher;
  $('call-time').title = publisher?.bitrate_bps ? `sending ${bits(publisher.bitrate_bps)}` : '';
  window.gatewayCall = {
    state: conversation?.state ?? 'out', members: figures?.members ?? [], publisher: publisher ?? null,
    ended: conversation?.ended ?? null, error: app.hint,
  };
}

// ---- Wiring --------------------------------------------------------------------------

$('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  ringer.unlock();
  $('sign-in-note').hidden = true;
  signIn($('user').value.trim(), $('token').value.trim());
});
$('sign-out').addEventListener('click', () => signedOut());
$('room-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const room = $('room').value.trim();
  if (room) join(room);
});
$('accept').addEventListener('click', () => accept(app.conversation.call?.video ?? true));
$('accept-audio').addEventListener('click', () => accept(false));
for (const id of ['decline', 'hangup']) $(id).addEventListener('click', () => app.conversation.hangup().catch(() => {}));
$('mic').addEventListener('click', () => toggle('audio'));
$('camera').addEventListener('click', () => toggle('video'));
$('sound').addEventListener('click', () => {
  $('sound').hidden = true;
  app.media?.unmute();
});
addEventListener('online', () => app.signalling?.wake());
document.addEventListener('visibilitychange', () => document.hidden || app.signalling?.wake());
// Closing the page is hanging up; a reload within the gateway's grace time is another session.
addEventListener('pagehide', () => app.conversation?.hangup().catch(() => {}));
setInterval(tick, 500);

try {
  $('user').value = localStorage.getItem('gateway-user') ?? '';
} catch {
  // No storage, no name.
}
const token = parameters.get('token') ?? '';
$('token').value = token;
if (parameters.has('user')) $('user').value = parameters.get('user');
if (parameters.has('user') || token) signIn(parameters.get('user') ?? '', token);
