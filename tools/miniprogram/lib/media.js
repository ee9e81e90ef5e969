// What the state codes of <live-pusher> and <live-player> mean for a conversation.
//
// Both tags try again by themselves, three times three seconds apart; only when they have given up is it
// for the page to act: to ask for fresh URLs and to start again. Codes that are not listed change nothing:
// versions of WeChat know more of them than its documents.

/** Verdicts on a code of <live-pusher>. */
export function pusherVerdict(code) {
  return PUSHER[code] ?? null;
}

/** Verdicts on a code of <live-player>. */
export function playerVerdict(code) {
  return PLAYER[code] ?? null;
}

const LIVE = { state: 'live', text: '' };
const DENIED = { state: 'failed', text: 'Camera or microphone is not allowed. Allow it in the settings of this mini-program.' };
const DEVICE = { state: 'failed', text: 'This device cannot encode the picture or the sound.' };
const RENEW = { state: 'renew', text: 'Connecting again...' };

const PUSHER = {
  1002: LIVE,
  1101: { state: 'live', text: 'Your network is weak.' },
  1102: { state: 'waiting', text: 'Connecting again...' },
  5000: { state: 'waiting', text: 'Paused while the phone is in use elsewhere.' },
  '-1301': DENIED,
  '-1302': DENIED,
  10001: DENIED,
  10002: DENIED,
  '-1303': DEVICE,
  '-1304': DEVICE,
  '-1305': DEVICE,
  '-1306': DEVICE,
  '-1307': RENEW,
  3001: RENEW,
  3002: RENEW,
  3003: RENEW,
  3004: RENEW,
};

const PLAYER = {
  2003: LIVE,
  2004: LIVE,
  2006: { state: 'ended', text: '' },
  2007: { state: 'waiting', text: 'Waiting for the picture...' },
  2103: { state: 'waiting', text: 'Connecting again...' },
  2104: { state: 'live', text: 'The network is weak.' },
  2105: { state: 'live', text: 'The network is weak.' },
  '-2301': RENEW,
  '-2302': RENEW,
};

/** When to ask for fresh URLs: at once the first time, then less and less often while nothing gets live. */
export class Renewal {
  #failures = 0;

  /** Milliseconds to wait before the next attempt. */
  next() {
    const delay = this.#failures === 0 ? 0 : Math.min(RENEW_MS_MAX, RENEW_MS * 2 ** (this.#failures - 1));
    this.#failures += 1;
    return delay;
  }

  /** Media flows. */
  succeeded() {
    this.#failures = 0;
  }
}

const RENEW_MS = 1_000;
const RENEW_MS_MAX = 15_000;
