// Signalling with the gateway: version 1 of src/signaling/PROTOCOL.md, from the client's side.
//
// Knows neither browser nor WeChat: the caller says how a socket is opened. The same file serves the
// gateway's own call page, this mini-program and the tests.
//
//   idle ──start()──► connecting ──► online ──(socket lost)──► waiting ──► connecting ...
//                         └──► failed (trying again is no use)        any ──stop()──► closed
//
// A lost socket is opened again and the session resumed: the gateway sends what was missed, and
// requests without an answer are sent again under their old ids, which the gateway does not do twice.

/** Why a request failed: `reason` is one of PROTOCOL.md's, or 'lost' if the session ended before the answer. */
export class SignallingError extends Error {
  constructor(reason, message) {
    super(message || reason);
    this.name = 'SignallingError';
    this.reason = reason;
  }
}

/**
 * A signed-in client.
 *
 * Tells by `on(type, listener)`: each event of the protocol by its type ('call.incoming', 'member.joined', ...),
 * 'state' ({ state, error, retryInMs }), 'hello' (the answer to `hello`, each time) and 'restarted' (the answer
 * to `hello` when the former session was gone: rooms and calls of before have ended).
 */
export class Signalling {
  #options;
  #listeners = new Map();
  #socket = null;
  #pending = new Map();
  #nextId = 1;
  #seen = 0;
  #session = null;
  #failures = 0;
  #timers = {};
  #lastHeard = 0;
  #heartbeatMs = HEARTBEAT_MS;

  /**
   * @param {object} options
   * @param {(on: {open(): void, message(text: string): void, close(): void}) =>
   *   {send(text: string): void, close(): void}} options.open  opens a socket
   * @param {'rtmp' | 'webrtc'} options.kind  how this client sends and receives media
   * @param {string} [options.token]
   * @param {string} [options.user]  who to be, where no token says it
   * @param {string} [options.name]  what others are shown
   */
  constructor(options) {
    this.#options = options;
    this.state = 'idle';
    this.error = null;
    /** This client as the gateway knows it. */
    this.user = this.name = null;
  }

  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? [];
    this.#listeners.set(type, [...listeners, listener]);
    return this;
  }

  start() {
    if (this.state === 'idle') this.#connect();
  }

  /** Ends the signalling. The session then lives until the gateway's time for it is over: leave rooms first. */
  stop() {
    if (this.state === 'closed') return;
    this.#enter('closed');
    this.#dropSocket();
    this.#rejectAll('lost', 'Signed out.');
  }

  /** Call it when the device comes back (app shown again, network changed): looks at once whether the socket lives. */
  wake() {
    if (this.state === 'waiting') this.#connect();
    else if (this.state === 'online') this.#ping(WAKE_MS);
  }

  /**
   * Sends a request; resolves to its answer, however often the socket breaks meanwhile.
   * @param {(answer: object) => void} [apply]  is given the answer at once: what waits for the promise may come
   *   after the next event, which builds on the answer
   * @returns {Promise<object>} rejects with SignallingError
   */
  request(type, fields = {}, apply = () => {}) {
    if (this.state === 'closed' || this.state === 'failed') {
      return Promise.reject(new SignallingError('lost', 'Not signed in.'));
    }
    const id = this.#nextId++;
    const text = JSON.stringify({ ...fields, type, id });
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { text, apply, resolve, reject });
      if (this.state === 'online') this.#socket.send(text);
    });
  }

  // ---- The socket --------------------------------------------------------------------

  #connect() {
    this.#dropSocket();
    this.#enter('connecting');
    let socket;
    const isCurrent = () => socket !== undefined && socket === this.#socket;
    socket = this.#options.open({
      open: () => isCurrent() && this.#hello(),
      message: (text) => isCurrent() && this.#receive(text),
      close: () => isCurrent() && this.#lost(),
    });
    this.#socket = socket;
    this.#timers.setup = setTimeout(() => this.#lost(), SETUP_MS);
  }

  #lost(error = null) {
    this.#dropSocket();
    const delay = this.#failures === 0 ? FIRST_RETRY_MS : Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** this.#failures);
    this.#failures += 1;
    // Not all clients of a gateway that restarts come in the same instant.
    const retryInMs = Math.round(delay * (0.75 + Math.random() / 2));
    this.#enter('waiting', error, retryInMs);
    this.#timers.retry = setTimeout(() => this.#connect(), retryInMs);
  }

  #dropSocket() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #hello() {
    const { kind, token, user, name } = this.#options;
    const resume = this.#session ? { session: this.#session, seq: this.#seen } : undefined;
    this.#helloId = this.#nextId++;
    const hello = { type: 'hello', id: this.#helloId, version: 1, kind, token, user, name, resume };
    this.#socket.send(JSON.stringify(hello));
  }

  #helloId = 0;

  #welcome(answer) {
    clearTimeout(this.#timers.setup);
    const isNew = !answer.resumed;
    const wasSignedIn = this.#session !== null || this.user !== null;
    if (isNew) {
      this.#seen = 0;
      // Their session is gone, and what they asked for with it.
      if (wasSignedIn) this.#rejectAll('lost', 'The connection was lost for too long.');
    }
    this.#session = answer.session;
    this.user = answer.user;
    this.name = answer.name;
    this.#heartbeatMs = answer.heartbeat_ms ?? HEARTBEAT_MS;
    this.#failures = 0;
    this.#enter('online');
    for (const { text } of this.#pending.values()) this.#socket.send(text);
    this.#schedulePing();
    if (isNew && wasSignedIn) this.#tell('restarted', answer);
    this.#tell('hello', answer);
  }

  #refused({ reason, message }) {
    const error = new SignallingError(reason, message);
    if (reason === 'no_such_session') {
      this.#session = null;
      this.#hello();
    } else if (RETRY_REASONS.includes(reason)) {
      this.#lost(error);
    } else {
      this.#dropSocket();
      this.#rejectAll(reason, message);
      this.#enter('failed', error);
    }
  }

  // ---- Heartbeat ---------------------------------------------------------------------

  #schedulePing() {
    clearTimeout(this.#timers.ping);
    this.#timers.ping = setTimeout(() => this.#ping(this.#heartbeatMs), this.#heartbeatMs * 0.8);
  }

  #ping(patienceMs) {
    const sentAt = Date.now();
    this.#socket.send(JSON.stringify({ type: 'ping', id: this.#nextId++, seq: this.#seen }));
    this.#schedulePing();
    clearTimeout(this.#timers.patience);
    this.#timers.patience = setTimeout(() => {
      if (this.#lastHeard < sentAt) this.#lost();
    }, patienceMs);
  }

  // ---- Messages ----------------------------------------------------------------------

  #receive(text) {
    this.#lastHeard = Date.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const { type, id, seq } = message;
    if (type === 'ok' || type === 'error') {
      this.#answered(id, message);
    } else if (type === 'ping') {
      this.#socket.send('{"type":"pong"}');
    } else if (type === 'bye') {
      this.#bye(message.reason);
    } else if (seq > this.#seen) {
      this.#seen = seq;
      this.#tell(type, message);
    }
  }

  #answered(id, message) {
    if (id === this.#helloId) {
      if (message.type === 'ok') this.#welcome(message);
      else this.#refused(message);
      return;
    }
    const request = this.#pending.get(id);
    if (!request) return;
    this.#pending.delete(id);
    if (message.type === 'ok') {
      request.apply(message);
      request.resolve(message);
    } else request.reject(new SignallingError(message.reason, message.message));
  }

  #bye(reason) {
    if (reason !== 'replaced' && reason !== 'unauthorized') return;
    const text = reason === 'replaced' ? 'This session was continued elsewhere.' : 'Signed out by the gateway.';
    this.#dropSocket();
    this.#rejectAll('lost', text);
    this.#enter('failed', new SignallingError(reason, text));
  }

  #rejectAll(reason, message) {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(new SignallingError(reason, message));
  }

  #enter(state, error = null, retryInMs = 0) {
    if (this.state === 'closed') return;
    this.state = state;
    this.error = error;
    this.#tell('state', { state, error, retryInMs });
  }

  #tell(type, message) {
    for (const listener of this.#listeners.get(type) ?? []) listener(message);
  }
}

/** Reasons of a refused `hello` that go away by themselves. */
const RETRY_REASONS = ['draining', 'too_many_sessions', 'too_many_messages'];
/** Until the gateway says its own. */
const HEARTBEAT_MS = 10_000;
/** From opening a socket to the answer to `hello`. */
const SETUP_MS = 10_000;
/** How long a socket may take to show that it lives when the device comes back. */
const WAKE_MS = 2_000;
const FIRST_RETRY_MS = 200;
const RETRY_MS = 500;
const RETRY_MS_MAX = 10_000;
