// What players and publishers have in common: offer, answer, connection, retry, end. The offer goes
// by POST to a WHIP or WHEP endpoint, or by an exchange of the caller's: a room's goes by its socket.
//
// A session goes through these states and tells each by a "state" event, whose detail is
// { state, error, retryInMs }:
//
//   connecting ──► connected ──► waiting ──► connecting ...    (lost, or 409 and 503)
//        └───────────┴──────────► failed                       (trying again is no use)
//   any ──close()──► closed

/** Why a session does not run: a sentence for people, and whether another try may help. */
export class SessionError extends Error {
  constructor(message, { cure = '', status = 0, reason = '', retry = false, retryAfterMs } = {}) {
    super(message);
    this.name = 'SessionError';
    this.cure = cure;
    this.status = status;
    this.reason = reason;
    this.retry = retry;
    this.retryAfterMs = retryAfterMs;
  }
}

export class Session extends EventTarget {
  #abort = null;
  #exchange;
  #previous = new Map();

  /**
   * @param {string | Exchange} to  the WHEP or WHIP endpoint, or what takes offers in its place
   * @param {{token?: string, retry?: boolean}} options  a bearer token; whether to try
   *   again by itself (default: yes)
   */
  constructor(to, { token = '', retry = true } = {}) {
    super();
    this.#exchange = typeof to === 'string' ? new HttpExchange(to, token) : to;
    this.retry = retry;
    this.state = 'idle';
    this.error = null;
    this.attempts = 0;
    /** The current RTCPeerConnection; a new one for each attempt. */
    this.peer = null;
    /** performance.now() of connect(), of the POST that was answered, and of its connection. */
    this.startedAt = this.postedAt = this.connectedAt = null;
  }

  /** Starts. Resolves when first connected; rejects if that will not happen. */
  connect() {
    if (this.#abort) throw new Error('connect() was called before');
    this.#abort = new AbortController();
    this.startedAt = performance.now();
    const first = new Promise((resolve, reject) => {
      this.addEventListener('state', ({ detail }) => {
        if (detail.state === 'connected') resolve();
        if (detail.state === 'failed') reject(detail.error);
        if (detail.state === 'closed') reject(new SessionError('Stopped.'));
      });
    });
    first.catch(() => {});
    this.#run(this.#abort.signal);
    return first;
  }

  /** Ends the session, here and at the gateway. */
  async close() {
    if (this.state === 'closed') return;
    this.#abort?.abort();
    const told = this.#drop();
    this.#enter('closed');
    await told;
  }

  async #run(signal) {
    for (let failures = 0; !signal.aborted; ) {
      let error;
      this.connectedAt = null;
      try {
        await this.#attempt(signal);
      } catch (caught) {
        error = caught instanceof SessionError ? caught
          : new SessionError('This browser could not set up the connection.', { cure: String(caught?.message ?? caught) });
      }
      if (signal.aborted) return;
      failures = this.connectedAt === null ? failures + 1 : 0;
      this.#drop();
      if (!error.retry || !this.retry || this.isHopeless(error, failures)) {
        this.#enter('failed', error);
        return;
      }
      const delay = error.retryAfterMs ?? Math.min(8000, 500 * 2 ** failures);
      this.#enter('waiting', error, delay);
      await sleep(delay, signal);
    }
  }

  /** One offer; returns never, but throws when the connection ends. */
  async #attempt(signal) {
    this.attempts += 1;
    this.#enter('connecting');
    const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.peer = peer;
    this.#previous.clear();
    await this.prepare(peer);
    const offer = await peer.createOffer();
    offer.sdp = this.editOffer(offer.sdp);
    await peer.setLocalDescription(offer);
    signal.throwIfAborted();
    // The gateway is ICE-lite: it learns our address from our checks, so neither waiting
    // for candidates nor sending them later by PATCH would gain anything.
    this.postedAt = performance.now();
    const answer = await this.#exchange.offer(peer.localDescription.sdp);
    if (signal.aborted) {
      // Stopped while the answer was on its way: the gateway must not keep the session.
      this.#drop();
      return;
    }
    await peer.setRemoteDescription({ type: 'answer', sdp: this.editAnswer(answer) });
    await this.#watch(peer, signal);
  }

  /** Waits until the connection ends, then throws. */
  #watch(peer, signal) {
    return new Promise((_, reject) => {
      const lost = (message, cure = '') =>
        reject(new SessionError(message, { cure, retry: true, reason: 'lost' }));
      const setup = setTimeout(() => lost('No media path to the gateway was found.', MEDIA_PATH_CURE), SETUP_TIMEOUT_MS);
      let grace;
      signal.addEventListener('abort', () => {
        clearTimeout(setup);
        clearTimeout(grace);
        reject(new SessionError('Stopped.'));
      });
      const look = () => {
        clearTimeout(grace);
        switch (peer.connectionState) {
          case 'connected':
            clearTimeout(setup);
            if (this.connectedAt === null) {
              this.connectedAt = performance.now();
              this.#enter('connected');
            }
            break;
          // A short gap in the network heals by itself.
          case 'disconnected':
            grace = setTimeout(() => lost('The connection was lost.'), DISCONNECTED_MS);
            break;
          case 'failed':
            clearTimeout(setup);
            if (this.connectedAt === null) lost('No media path to the gateway was found.', MEDIA_PATH_CURE);
            else lost('The connection was lost.');
            break;
          case 'closed':
            lost('The connection was closed.');
        }
      };
      peer.addEventListener('connectionstatechange', look);
      // The gateway ends a session by closing DTLS.
      const dtls = peer.getTransceivers()[0]?.receiver.transport;
      dtls?.addEventListener('statechange', () => {
        if (dtls.state === 'closed') lost('The gateway ended the session.');
      });
      look();
    });
  }

  /** Lets go of the connection and of the session at the gateway. */
  async #drop() {
    const { peer } = this;
    await this.#exchange.release();
    // Closed before, the session would be gone when the gateway is told.
    peer?.close();
  }

  #enter(state, error = null, retryInMs = 0) {
    if (this.state === 'closed') return;
    this.state = state;
    this.error = error;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, error, retryInMs } }));
  }

  // What WHEP and WHIP do differently.
  async prepare() {}
  isHopeless() { return false; }
  editOffer(sdp) { return sdp; }
  editAnswer(sdp) { return sdp; }

  /** The report of getStats as a map, and a function for the change of a counter per
      second since the last call. */
  async report() {
    const report = await this.peer.getStats();
    const all = [...report.values()];
    const rate = (stat, ...keys) => {
      if (!stat) return null;
      const key = `${stat.id} ${keys}`;
      const value = keys.reduce((sum, name) => sum + (stat[name] ?? 0), 0);
      const before = this.#previous.get(key);
      if (before && before.at === stat.timestamp) return before.rate;
      const seconds = before ? (stat.timestamp - before.at) / 1000 : 0;
      const now = { value, at: stat.timestamp, rate: seconds > 0 ? (value - before.value) / seconds : null };
      this.#previous.set(key, now);
      return now.rate;
    };
    const transport = all.find((s) => s.type === 'transport' && s.selectedCandidatePairId);
    const pair = report.get(transport?.selectedCandidatePairId)
      ?? all.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
    return {
      report, all, rate,
      roundTripMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      protocol: report.get(pair?.localCandidateId)?.protocol ?? null,
    };
  }
}

/**
 * Takes offers to the gateway.
 * @typedef {object} Exchange
 * @property {(sdp: string) => Promise<string>} offer  the answer; throws SessionError
 * @property {() => Promise<void>} release  ends the session of the last offer; never throws
 */

/** Offers by POST, ends by DELETE (WHIP and WHEP). */
class HttpExchange {
  #resource = null;

  constructor(url, token) {
    this.url = new URL(url, document.baseURI).href;
    this.headers = token ? { Authorization: `Bearer ${token}` } : {};
  }

  async offer(sdp) {
    const headers = { ...this.headers, 'Content-Type': 'application/sdp' };
    let response;
    try {
      const limit = AbortSignal.timeout(POST_TIMEOUT_MS);
      response = await fetch(this.url, { method: 'POST', headers, body: sdp, signal: limit });
    } catch {
      throw new SessionError('The gateway cannot be reached.', {
        cure: 'Check that it is running and that this device is online.', retry: true,
      });
    }
    if (response.status !== 201) throw await refusal(response);
    const location = response.headers.get('Location');
    this.#resource = location && new URL(location, response.url || this.url).href;
    return response.text();
  }

  async release() {
    const resource = this.#resource;
    this.#resource = null;
    if (!resource) return;
    try {
      // It must get out even while the page is being left.
      const limit = AbortSignal.timeout(DELETE_TIMEOUT_MS);
      await fetch(resource, { method: 'DELETE', headers: this.headers, keepalive: true, signal: limit });
    } catch {
      // The gateway finds out by itself.
    }
  }
}

/** The PTs of a codec in an SDP. */
export function payloadTypes(sdp, codec) {
  const found = sdp.matchAll(/^a=rtpmap:(\d+) ([^/\r\n]+)\//gm);
  return [...found].filter(([, , name]) => name.toLowerCase() === codec).map(([, type]) => type);
}

/** Appends parameters to the fmtp line of payload types. */
export function addFormatParameters(sdp, types, parameters) {
  for (const type of types) {
    sdp = sdp.replace(new RegExp(`^(a=fmtp:${type} [^\\r\\n]*)`, 'm'), `$1;${parameters}`);
  }
  return sdp;
}

/** "H.264 High" or "Opus" out of a codec entry of getStats. */
export function codecName(codec) {
  if (!codec) return null;
  const name = codec.mimeType.split('/')[1];
  if (name.toUpperCase() !== 'H264') return name === 'opus' ? 'Opus' : name;
  const level = /profile-level-id=([0-9a-f]{2})([0-9a-f]{2})/i.exec(codec.sdpFmtpLine ?? '');
  const profile = level && { 42: parseInt(level[2], 16) & 0x40 ? 'Constrained Baseline' : 'Baseline', '4d': 'Main', 64: 'High' }[level[1].toLowerCase()];
  return profile ? `H.264 ${profile}` : 'H.264';
}

async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // No problem body: the status says enough.
  }
  const seconds = Number(response.headers.get('Retry-After'));
  const retry = [409, 503].includes(response.status) && seconds > 0;
  let said = problem.detail ?? `The gateway answered ${response.status}.`;
  let cure = '';
  if ([401, 403].includes(response.status)) {
    said = 'This stream needs a valid token.';
    cure = 'Put it into the token field, or as ?\u2060token= into the address of this page.';
  }
  return new SessionError(said, {
    cure, status: response.status, reason: problem.reason, retry,
    retryAfterMs: retry ? seconds * 1000 : undefined,
  });
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

const POST_TIMEOUT_MS = 10_000;
const DELETE_TIMEOUT_MS = 1_000;
const SETUP_TIMEOUT_MS = 12_000;
const DISCONNECTED_MS = 4_000;
const MEDIA_PATH_CURE = 'A firewall may block it: open the gateway\u2019s media port (8000 by default, UDP and TCP), or set its public address in gateway.toml.';
