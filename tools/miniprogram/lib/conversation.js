// A client's conversation: who is there, the call that rings or runs, the room and its members.
//
//   free ──invite()──► inviting ──call.accepted──► talking      free ──join()──► joining ──► talking
//     └─call.incoming─► ringing ──accept()───────────┘
//   any ──hangup(), call.ended, left the room──► free
//
// Keeps what the gateway said and nothing else; whoever shows it listens to `onChange`.

/** Call it with a Signalling that was not started yet. */
export class Conversation {
  #signalling;
  #listeners = [];
  /** Counts what was begun, so that an answer that comes too late for it is told. */
  #turn = 0;

  constructor(signalling) {
    this.#signalling = signalling;
    this.#reset();
    /** Others who are signed in, by user. */
    this.users = new Map();
    /** How the last call ended: { reason, text, name, durationMs }. */
    this.ended = null;
    signalling
      .on('hello', (answer) => this.#hello(answer))
      .on('user', (event) => this.#user(event))
      .on('call.incoming', (event) => this.#incoming(event))
      .on('call.ringing', (event) => this.#ofCall(event, () => { this.call.isRinging = true; }))
      .on('call.accepted', (event) => this.#ofCall(event, () => this.#enterRoom(event)))
      .on('call.ended', (event) => this.#ofCall(event, () => this.#end(event)))
      .on('member.joined', ({ room, member }) => this.#ofRoom(room, () => this.members.set(member.member, member)))
      .on('member.left', ({ room, member }) => this.#ofRoom(room, () => this.members.delete(member)))
      .on('member.media', (event) => this.#ofMember(event, { audio: event.audio, video: event.video }))
      .on('member.muted', (event) => this.#ofMember(event, { muted_audio: event.audio, muted_video: event.video }))
      .on('room.closed', ({ room, reason }) => this.#ofRoom(room, () => this.#end({ reason })));
  }

  /** 'free', 'inviting', 'ringing', 'joining' or 'talking'. */
  get state() {
    if (this.room) return 'talking';
    if (this.joining) return 'joining';
    if (!this.call) return 'free';
    return this.call.isIncoming ? 'ringing' : 'inviting';
  }

  /** `listener` is called after each change, and gets this conversation. */
  onChange(listener) {
    this.#listeners.push(listener);
    return this;
  }

  /** Rings a user. Resolves when the call is under way; rejects with SignallingError. */
  async invite(user, { audio = true, video = true } = {}) {
    const turn = this.#begin({ call: null, other: this.users.get(user) ?? { user, name: user }, audio, video, isIncoming: false, isRinging: false });
    const answer = await this.#try(turn, 'call.invite', { to: user, audio, video }, (accepted) => {
      this.call.call = accepted.call;
      if (accepted.state === 'accepted') this.#enterRoom(accepted);
    });
    // Hung up before the answer came.
    if (turn !== this.#turn && this.call?.call !== answer.call) await this.#signalling.request('call.hangup', { call: answer.call });
  }

  /** Takes the call that rings. */
  async accept({ audio = true, video = this.call?.video ?? true } = {}) {
    if (this.state !== 'ringing') return;
    const turn = this.#turn;
    const { call } = this.call;
    this.call.isAccepted = true;
    await this.#try(turn, 'call.accept', { call, audio, video }, (answer) => {
      if (answer.state === 'ended') this.#end(answer);
      else this.#enterRoom(answer);
    });
  }

  /** Refuses the call that rings, takes an invitation back, ends a call, leaves a room. */
  async hangup() {
    const { state, call, room } = this;
    // Of a room that is being joined `join` sees that its turn is over.
    if (state === 'free') return;
    this.#reset();
    this.#changed();
    if (call) {
      // Without an id yet, `invite` sees that its turn is over.
      const isRefused = state === 'ringing' && !call.isAccepted;
      if (call.call) await this.#signalling.request(isRefused ? 'call.reject' : 'call.hangup', { call: call.call });
    } else if (room) {
      await this.#signalling.request('room.leave', { room });
    }
  }

  /** Joins a room, which is made if there is none of this name. */
  async join(room, { audio = true, video = true } = {}) {
    const turn = this.#begin(null, room);
    await this.#try(turn, 'room.join', { room, create: true, audio, video }, (answer) => this.#enterRoom(answer));
    // Left before the answer came.
    if (turn !== this.#turn && this.room !== room) await this.#signalling.request('room.leave', { room });
  }

  /** Tells the others what is muted. */
  async mute({ audio, video }) {
    if (this.room) await this.#signalling.request('room.mute', { room: this.room, audio, video });
  }

  /** Fresh URLs for a mini-program whose media broke for good; updates `push` and each member's `play`. */
  async renewUrls() {
    const { room } = this;
    if (!room) return;
    await this.#signalling.request('room.urls', { room }, ({ push, play }) => this.#ofRoom(room, () => {
      this.push = push;
      for (const { member, url, audio_url } of play) {
        const known = this.members.get(member);
        if (known) this.members.set(member, { ...known, play: { url, audio_url } });
      }
    }));
  }

  // ---- What the gateway says -----------------------------------------------------------

  #hello(answer) {
    if (!answer.resumed) {
      const wasBusy = this.state !== 'free';
      this.#reset();
      if (wasBusy) this.ended = { reason: 'lost', text: endText('lost') };
    }
    // Present state of what goes on; on a resumed session it replaces what is known.
    const [room] = answer.rooms ?? [];
    if (answer.resumed && room && this.room === room.room) this.#enterRoom(room);
    this.#signalling.request('users', { watch: true }, ({ users }) => {
      this.users = new Map(users.map((user) => [user.user, user]));
      this.#changed();
    }).catch(() => {
      // The connection broke again: the next hello asks again.
    });
    this.#changed();
  }

  #user(event) {
    if (event.state === 'offline') this.users.delete(event.user);
    else this.users.set(event.user, event);
    this.#changed();
  }

  #incoming(event) {
    if (this.state !== 'free') return;
    this.#begin({ call: event.call, other: event.from, audio: event.audio, video: event.video, isIncoming: true, isRinging: true });
    this.#signalling.request('call.ringing', { call: event.call }).catch(() => {
      // It ended meanwhile, which an event tells.
    });
    this.#changed();
  }

  #enterRoom(answer) {
    this.room = answer.room;
    this.member = answer.member;
    this.push = answer.push ?? null;
    this.members = new Map((answer.members ?? []).map((member) => [member.member, member]));
    this.since ??= Date.now();
  }

  #end({ reason, duration_ms: durationMs = 0 }) {
    const name = this.call?.other.name ?? this.room ?? this.joining;
    this.#reset();
    this.ended = { reason, text: endText(reason), name, durationMs };
  }

  #ofCall(event, change) {
    if (this.call?.call !== event.call) return;
    change();
    this.#changed();
  }

  #ofRoom(room, change) {
    if (this.room !== room) return;
    change();
    this.#changed();
  }

  #ofMember({ room, member }, change) {
    const known = this.room === room && this.members.get(member);
    if (!known) return;
    this.members.set(member, { ...known, ...change });
    this.#changed();
  }

  #begin(call, joining = null) {
    this.#reset();
    this.ended = null;
    this.call = call;
    /** The room that is being joined. */
    this.joining = joining;
    this.#changed();
    return this.#turn;
  }

  /** A request of `turn`: its answer is applied unless the turn is over, its refusal ends what was begun. */
  async #try(turn, type, fields, apply) {
    try {
      return await this.#signalling.request(type, fields, (answer) => {
        if (turn !== this.#turn) return;
        apply(answer);
        this.#changed();
      });
    } catch (error) {
      if (turn === this.#turn) {
        this.#end({ reason: error.reason });
        this.#changed();
      }
      throw error;
    }
  }

  #reset() {
    this.#turn += 1;
    this.call = this.joining = null;
    this.room = this.member = this.push = this.since = null;
    /** The other members of the room, by id. */
    this.members = new Map();
  }

  #changed() {
    for (const listener of this.#listeners) listener(this);
  }
}

/** A reason of PROTOCOL.md in words for people. */
export function endText(reason) {
  return END_TEXTS[reason] ?? 'The call has ended.';
}

const END_TEXTS = {
  hangup: 'The call has ended.',
  rejected: 'The call was declined.',
  cancelled: 'The caller hung up.',
  no_answer: 'Nobody answered.',
  answered_elsewhere: 'Answered on another device.',
  rejected_elsewhere: 'Declined on another device.',
  busy: 'Busy: in another call.',
  offline: 'Not signed in any more.',
  lost: 'The connection was lost.',
  drain: 'The gateway is being restarted. Please call again.',
  draining: 'The gateway is being restarted. Please call again.',
  room_full: 'The room is full.',
  forbidden: 'You are not allowed to do this.',
  refused: 'This was not allowed.',
  call_ended: 'The call has ended.',
};
