// Signalling, Conversation and the verdicts on state codes against a gateway of a few lines.
//
//   node --test tools/miniprogram/test

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Conversation } from '../lib/conversation.js';
import { Renewal, playerVerdict, pusherVerdict } from '../lib/media.js';
import { Signalling } from '../lib/signalling.js';

/** Sockets that a test answers by hand. */
class Desk {
  sockets = [];

  open = (on) => {
    const socket = { on, sent: [], isClosed: false };
    this.sockets.push(socket);
    setTimeout(() => on.open());
    return { send: (text) => socket.sent.push(JSON.parse(text)), close: () => { socket.isClosed = true; } };
  };

  get current() { return this.sockets.at(-1); }
  say(message) { this.current.on.message(JSON.stringify(message)); }
  last(type) { return this.current.sent.findLast((message) => message.type === type); }

  async welcome(fields = {}) {
    await until(() => this.current && this.last('hello'));
    this.say({ type: 'ok', id: this.last('hello').id, session: 's1', user: 'me', name: 'Me', kind: 'rtmp', resumed: false, heartbeat_ms: 10_000, rooms: [], calls: [], ...fields });
  }

  /** Answers the last request of a type. */
  async answer(type, fields = {}) {
    await until(() => this.last(type));
    this.say({ type: 'ok', id: this.last(type).id, ...fields });
    await sleep(1);
  }
}

async function until(ready) {
  for (let tries = 0; !ready(); tries += 1) {
    assert.ok(tries < 500, 'not in time');
    await sleep(2);
  }
}

function signedIn() {
  const desk = new Desk();
  const signalling = new Signalling({ open: desk.open, kind: 'rtmp', user: 'me' });
  const conversation = new Conversation(signalling);
  signalling.start();
  return { desk, signalling, conversation };
}

test('requests are answered by id, refusals have their reason', async () => {
  const { desk, signalling } = signedIn();
  await desk.welcome();
  assert.equal(signalling.state, 'online');
  const [first, second] = [signalling.request('room.leave', { room: 'a' }), signalling.request('room.join', { room: 'b' })];
  desk.say({ type: 'error', id: desk.last('room.join').id, reason: 'room_full', message: 'Full.' });
  desk.say({ type: 'ok', id: desk.last('room.leave').id });
  assert.equal((await first).type, 'ok');
  await assert.rejects(second, { reason: 'room_full' });
  signalling.stop();
});

test('a lost socket is resumed: events are asked for from the last one, requests sent again under their ids', async () => {
  const { desk, signalling } = signedIn();
  await desk.welcome();
  desk.say({ type: 'user', seq: 1, user: 'anna', name: 'Anna', kinds: ['rtmp'], state: 'free' });
  desk.say({ type: 'user', seq: 2, user: 'ben', name: 'Ben', kinds: ['rtmp'], state: 'free' });
  const asked = signalling.request('room.urls', { room: 'a' });
  const { id } = desk.last('room.urls');
  desk.current.on.close();
  assert.equal(signalling.state, 'waiting');
  signalling.wake();
  await until(() => desk.sockets.length === 2 && desk.last('hello'));
  assert.deepEqual(desk.last('hello').resume, { session: 's1', seq: 2 });
  await desk.welcome({ resumed: true });
  assert.equal(desk.last('room.urls').id, id);
  desk.say({ type: 'ok', id, push: {}, play: [] });
  await asked;
  signalling.stop();
});

test('an event that comes twice counts once', async () => {
  const { desk, signalling } = signedIn();
  let count = 0;
  signalling.on('member.joined', () => { count += 1; });
  await desk.welcome();
  for (const seq of [1, 1, 2, 1, 2]) desk.say({ type: 'member.joined', seq, room: 'r', member: { member: 'm' } });
  assert.equal(count, 2);
  signalling.stop();
});

test('a session that is gone is told, and what was asked of it is refused', async () => {
  const { desk, signalling, conversation } = signedIn();
  let restarts = 0;
  signalling.on('restarted', () => { restarts += 1; });
  await desk.welcome();
  const joining = conversation.join('ward');
  await desk.answer('room.join', { room: 'ward', member: 'm1', members: [], push: { url: 'rtmp://h/room/ward/m1?token=t' } });
  await joining;
  const asked = assert.rejects(signalling.request('room.urls', { room: 'ward' }), { reason: 'lost' });
  desk.current.on.close();
  signalling.wake();
  await until(() => desk.sockets.length === 2 && desk.last('hello'));
  desk.say({ type: 'error', id: desk.last('hello').id, reason: 'no_such_session', message: '' });
  await until(() => desk.current.sent.filter(({ type }) => type === 'hello').length === 2);
  await desk.welcome({ session: 's2' });
  await asked;
  assert.equal(restarts, 1);
  assert.equal(conversation.state, 'free');
  assert.equal(conversation.ended.reason, 'lost');
  signalling.stop();
});

test('a refused sign-in is not tried again', async () => {
  const { desk, signalling } = signedIn();
  await until(() => desk.current && desk.last('hello'));
  desk.say({ type: 'error', id: desk.last('hello').id, reason: 'token_expired', message: 'Too old.' });
  assert.equal(signalling.state, 'failed');
  assert.equal(signalling.error.reason, 'token_expired');
  await assert.rejects(signalling.request('users'), { reason: 'lost' });
});

test('a ping is answered', async () => {
  const { desk, signalling } = signedIn();
  await desk.welcome();
  desk.say({ type: 'ping' });
  assert.deepEqual(desk.last('pong'), { type: 'pong' });
  signalling.stop();
});

test('a call that comes in rings, is accepted and hung up', async () => {
  const { desk, signalling, conversation } = signedIn();
  await desk.welcome();
  desk.say({ type: 'call.incoming', seq: 1, call: 'c1', from: { user: 'anna', name: 'Anna', kind: 'webrtc' }, audio: true, video: true, expires_ms: 45_000 });
  assert.equal(conversation.state, 'ringing');
  assert.equal(desk.last('call.ringing').call, 'c1');
  const accepting = conversation.accept();
  const member = { member: 'm1', user: 'anna', name: 'Anna', kind: 'webrtc', audio: false, video: false, play: { url: 'rtmp://h/room/c1/m1?token=t' } };
  await desk.answer('call.accept', { call: 'c1', state: 'accepted', room: 'c1', member: 'm2', members: [member], push: { url: 'rtmp://h/room/c1/m2?token=t' } });
  await accepting;
  assert.equal(conversation.state, 'talking');
  assert.equal(conversation.push.url, 'rtmp://h/room/c1/m2?token=t');
  desk.say({ type: 'member.media', seq: 2, room: 'c1', member: 'm1', audio: true, video: true });
  assert.equal(conversation.members.get('m1').video, true);
  desk.say({ type: 'call.ended', seq: 3, call: 'c1', reason: 'hangup', by: 'anna', duration_ms: 5_000 });
  assert.equal(conversation.state, 'free');
  assert.deepEqual([conversation.ended.reason, conversation.ended.name], ['hangup', 'Anna']);
  signalling.stop();
});

test('an invitation that is taken back before its answer came is hung up', async () => {
  const { desk, signalling, conversation } = signedIn();
  await desk.welcome();
  const inviting = conversation.invite('anna');
  await conversation.hangup();
  await desk.answer('call.invite', { call: 'c9', state: 'inviting' });
  await desk.answer('call.hangup');
  await inviting;
  assert.equal(desk.last('call.hangup').call, 'c9');
  assert.equal(conversation.state, 'free');
  signalling.stop();
});

test('a refused invitation says why', async () => {
  const { desk, signalling, conversation } = signedIn();
  await desk.welcome();
  const inviting = assert.rejects(conversation.invite('anna'), { reason: 'busy' });
  await until(() => desk.last('call.invite'));
  desk.say({ type: 'error', id: desk.last('call.invite').id, reason: 'busy', message: 'Busy.' });
  await inviting;
  assert.equal(conversation.ended.text, 'Busy: in another call.');
  signalling.stop();
});

test('an event right behind the answer it builds on is not lost', async () => {
  const { desk, signalling, conversation } = signedIn();
  await desk.welcome();
  const joining = conversation.join('ward');
  await until(() => desk.last('room.join'));
  // Both in one piece, as sockets deliver them: nothing else runs in between.
  desk.say({ type: 'ok', id: desk.last('room.join').id, room: 'ward', member: 'm1', members: [], push: { url: 'x' } });
  desk.say({ type: 'member.joined', seq: 1, room: 'ward', member: { member: 'm2', user: 'ben', name: 'Ben', play: { url: 'y' } } });
  await joining;
  assert.deepEqual([...conversation.members.keys()], ['m2']);
  signalling.stop();
});

test('fresh URLs reach the tags', async () => {
  const { desk, signalling, conversation } = signedIn();
  await desk.welcome();
  const joining = conversation.join('ward');
  const member = { member: 'm1', user: 'anna', name: 'Anna', play: { url: 'rtmp://old', audio_url: 'rtmp://old&media=audio' } };
  await desk.answer('room.join', { room: 'ward', member: 'm2', members: [member], push: { url: 'rtmp://old' } });
  await joining;
  const renewing = conversation.renewUrls();
  await desk.answer('room.urls', { room: 'ward', push: { url: 'rtmp://new' }, play: [{ member: 'm1', url: 'rtmp://new', audio_url: 'x' }] });
  await renewing;
  assert.deepEqual([conversation.push.url, conversation.members.get('m1').play.url], ['rtmp://new', 'rtmp://new']);
  signalling.stop();
});

test('state codes lead to what they should', () => {
  assert.equal(pusherVerdict(1002).state, 'live');
  assert.equal(pusherVerdict(1102).state, 'waiting');
  assert.equal(pusherVerdict(-1307).state, 'renew');
  assert.equal(pusherVerdict(10001).state, 'failed');
  assert.equal(pusherVerdict(6000), null);
  assert.equal(playerVerdict(2004).state, 'live');
  assert.equal(playerVerdict(2006).state, 'ended');
  assert.equal(playerVerdict(-2301).state, 'renew');
  const renewal = new Renewal();
  assert.deepEqual([renewal.next(), renewal.next(), renewal.next()], [0, 1000, 2000]);
  renewal.succeeded();
  assert.equal(renewal.next(), 0);
});
