// The mini-program without its pages: signs in at the gateway, does what it is told, and tells its state. Run by
// the tests, which put the media tags beside it.
//
//   NODE_PATH=/usr/share/nodejs node tests/e2e/support/phone/phone.mjs ws://localhost:8080/ws USER [TOKEN]
//
// Standard input, a line each: {"do":"invite","user":"anna"}, "accept", "hangup", {"do":"join","room":"ward-3"},
// {"do":"mute","audio":true,"video":false}, "renew", "away" (the app in the background), "back", "quit".
// Standard output: a line with the state whenever it changes, and {"refused":REASON} for what was refused.

import { createInterface } from 'node:readline';

import { Conversation } from '../../../../tools/miniprogram/lib/conversation.js';
import { Signalling } from '../../../../tools/miniprogram/lib/signalling.js';
import { wxSocket } from '../../../../tools/miniprogram/lib/socket.js';
import { Wx } from './wx.mjs';

const [url, user, token] = process.argv.slice(2);
const wx = new Wx();
globalThis.wx = wx;
const signalling = new Signalling({ open: wxSocket(url), kind: 'rtmp', user, token });
const conversation = new Conversation(signalling);

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

conversation.onChange(({ state, call, room, member, push, members, users, ended }) => tell({
  at: Date.now(), online: signalling.state, state, call: call?.call ?? null, other: call?.other.user ?? null,
  isRinging: call?.isRinging ?? false, room, member, push: push?.url ?? null,
  members: [...members.values()].map(({ member: id, user: who, audio, video, muted_audio, muted_video, play }) => ({
    member: id, user: who, audio, video, muted_audio, muted_video, url: play.url, audio_url: play.audio_url,
  })),
  users: [...users.values()].map(({ user: who, state: what }) => `${who} ${what}`), ended: ended?.reason ?? null,
}));
signalling.on('state', ({ state, error }) => tell({ online: state, reason: error?.reason ?? null }));

const actions = {
  invite: ({ user: to, video = true }) => conversation.invite(to, { audio: true, video }),
  accept: () => conversation.accept(),
  hangup: () => conversation.hangup(),
  join: ({ room }) => conversation.join(room),
  mute: ({ audio, video }) => conversation.mute({ audio, video }),
  renew: () => conversation.renewUrls(),
  away: ({ isSudden }) => wx.goAway(isSudden),
  back: () => {
    wx.comeBack();
    signalling.wake();
  },
  quit: () => process.exit(0),
};

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const message = JSON.parse(line);
    try {
      await actions[message.do](message);
    } catch (error) {
      tell({ refused: error.reason ?? String(error) });
    }
  })
  // Whoever ran us is gone.
  .on('close', () => process.exit(0));
signalling.start();
